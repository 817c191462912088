package collective

import (
	"context"
	"fmt"
)

// do runs one operation, from the caller's side: begin it, tell the previous rank, let send and receive work, wait.
func (r *Ring) do(ctx context.Context, v verb, op Op, x Vector, bounds []int, f Reduce, root int) error {
	if !r.busy.CompareAndSwap(false, true) {
		return ErrBusy
	}
	defer r.busy.Store(false)
	if v == verbReduceScatter || v == verbAllGather {
		if err := r.checkBounds(x, bounds); err != nil {
			return err
		}
	}
	if err := x.checkInput(f); err != nil {
		return err
	}
	if v == verbBroadcast {
		bounds = r.boundsOf(root, x.Len())
	}
	if ctx.Err() != nil {
		r.giveUp(context.Cause(ctx))
	}
	call, open, err := r.begin(v, op, x, bounds, f)
	if err == nil && r.world == 1 {
		r.sumAlone(x)
	}
	if err != nil || r.world == 1 {
		return err
	}
	record := r.recordBegin()
	if r.call.small {
		err = r.exchange(ctx)
	} else if !open {
		r.beginCall(&call, true)
	} else {
		r.sit(true)
		r.beginCall(&call, false)
		err = r.wait(ctx)
		r.rise()
	}
	if err != nil { // the ring has failed, and x is given back
		r.prev.bulkOut.abandon()
		r.next.bulkOut.abandon()
	}
	r.recordEnd(record, err)
	r.mu.Lock()
	r.call.live, r.call.small = false, false
	r.call.x = Vector{} // keep no hold on the caller's memory
	r.mu.Unlock()
	return err
}

// wait returns when this rank's part is complete or when the ring has failed and x is the caller's again.
func (r *Ring) wait(ctx context.Context) error {
	for {
		if r.drive(ctx) {
			<-r.done
			return nil
		}
		select {
		case <-r.done:
			return nil
		case <-r.stirred:
			r.sit(false)
			continue
		case <-ctx.Done():
			r.giveUp(context.Cause(ctx))
		case <-r.failed:
		}
		<-r.failed
		<-r.released
		select {
		case <-r.done: // completed at the last moment; the next call will say that the ring is broken
			return nil
		default:
			return r.Err()
		}
	}
}

// begin makes an operation the current one. The frame it returns goes to the previous rank. Not open: this rank has
// nothing to send and nothing to receive.
func (r *Ring) begin(v verb, op Op, x Vector, bounds []int, f Reduce) (frame header, open bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return header{}, false, r.err
	}
	for _, l := range [...]*link{&r.prev, &r.next} {
		if l.left.Load() {
			err := &PeerError{Peer: l.peer.Node, Op: op, Phase: "idle", Err: ErrLeft}
			return header{}, false, r.failLocked(err, nil)
		}
	}
	if r.world == 1 {
		return header{}, false, nil
	}
	c := &r.call
	*c = call{live: true, seq: c.seq + 1, op: op, verb: v, reduce: f, x: x, digest: hashBounds(bounds), began: r.now()}
	c.timetable = timetable{
		rank: r.cfg.Rank, world: r.world, elems: x.Len(), chunk: r.cfg.ChunkBytes / elemSize, bounds: bounds,
		end: 2 * (r.world - 1),
	}
	switch v {
	case verbReduceScatter:
		c.end = r.world - 1
	case verbAllGather, verbBarrier, verbBroadcast:
		c.first = r.world - 1
	}
	if v == verbBarrier { // gathers one element from every rank: all are there
		c.x = r.tokens
		c.elems = r.world
	}
	c.small = c.elems <= r.whole.limit/elemSize
	if x.form != nil {
		unit := unitOf(x.form, c.chunk)
		c.chunk -= c.chunk % unit
		c.digest ^= x.form.digest()
		c.unit = min(unit, wholeTile/elemSize)
		words := c.wholeWords()
		if c.small = words <= r.whole.limit/elemSize; c.small {
			c.own = r.whole.frame(c.seq, r.cfg.Rank)[headerSize:][:words*elemSize]
		} else {
			c.unit = unit
		}
	}
	if v == verbBarrier {
		c.small = r.whole.limit >= 0
	}
	if err := r.compare(&r.nextCall); err != nil {
		return header{}, false, r.failLocked(r.peerErrorLocked(&r.next, err), nil)
	}
	r.moved.Store(c.began)
	r.tally = tally{}
	if c.small {
		return header{}, true, nil
	}
	for _, l := range [...]*link{&r.prev, &r.next} {
		if err := r.early(l, c.seq); err != nil {
			return header{}, false, r.failLocked(r.peerErrorLocked(l, err), nil)
		}
	}
	c.piece = r.piece()

	r.outgoing.start(&c.timetable, false)
	r.incoming.start(&c.timetable, true)
	if r.nextCall.seq > c.seq && !r.outgoing.done {
		err := fmt.Errorf("%w: it is done with %v of %v, which has data for it here", ErrMismatch, c.verb, c.op)
		return header{}, false, r.failLocked(r.peerErrorLocked(&r.next, err), nil)
	}
	r.sent.Store(0)
	r.taken.Store(0)
	r.hopOut.Store(int64(c.first))
	r.hopIn.Store(int64(c.first))
	sides := int32(0)
	if !r.outgoing.done {
		sides++
	}
	if !r.incoming.done {
		sides++
	}
	r.open.Store(sides)
	// From here on the operation belongs to send and receive.
	if !r.incoming.done {
		r.recvSeq.Store(c.seq)
	}
	if !r.outgoing.done {
		r.sendSeq.Store(c.seq)
	}
	return r.callHeader(kindCall), sides > 0, nil
}

// beginCall tells the previous rank, at once if wait; else what a full connection does not take goes on with flushCall:
// ranks that wait for each other to read would wait for ever.
func (r *Ring) beginCall(call *header, wait bool) {
	o := r.prev.bulkOut
	o.Lock()
	if !o.sealed && !o.begun() { // else the ring has failed
		o.begin(call, nil)
		r.calling = true
	}
	o.Unlock()
	r.flushCall(wait)
}

func (r *Ring) flushCall(wait bool) {
	o := r.prev.bulkOut
	if wait {
		o.Lock()
	} else if !o.TryLock() {
		return
	}
	defer o.Unlock()
	if o.sealed {
		return
	}
	err := o.flush(wait)
	r.calling = err == errNotNow
	if err != nil && !r.calling {
		r.loseWriting(&r.prev, err)
	}
}

// callHeader describes the current operation.
func (r *Ring) callHeader(k kind) header {
	c, h := &r.call, r.header(k)
	h.step, h.bucket, h.seq = c.op.Step, c.op.Bucket, c.seq
	h.verb, h.reduce, h.offset, h.digest = c.verb, c.reduce, uint64(c.elems), c.digest
	return h
}

// compare says whether the next rank's call is the same operation as the current one; both must be known.
func (r *Ring) compare(h *header) error {
	c := &r.call
	if !c.live || h.seq != c.seq {
		return nil
	}
	if h.verb == c.verb && h.reduce == c.reduce && h.offset == uint64(c.elems) && h.digest == c.digest &&
		h.step == c.op.Step && h.bucket == c.op.Bucket {
		if c.small != (h.kind == kindWhole) {
			return fmt.Errorf("%w: %v of an operation that goes the other way", ErrProtocol, h.kind)
		}
		return nil
	}
	theirs := fmt.Sprintf("%v(%v) of %d elements, %v", h.verb, h.reduce, h.offset, Op{h.step, h.bucket})
	ours := fmt.Sprintf("%v(%v) of %d elements, %v", c.verb, c.reduce, c.elems, c.op)
	if theirs == ours {
		return fmt.Errorf("%w: %s, but over other bounds", ErrMismatch, ours)
	}
	return fmt.Errorf("%w: it calls %s; here %s", ErrMismatch, theirs, ours)
}

// sideDone is called by send and by receive as their last act in an operation.
func (r *Ring) sideDone() {
	if r.open.Add(-1) == 0 {
		r.done <- struct{}{}
	}
}
