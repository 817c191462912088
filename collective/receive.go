package collective

import (
	"errors"
	"fmt"
	"time"
)

// readLoop is the receive goroutine on the previous link and the listen goroutine on the next one: it reads the
// connection. One that can be asked it reads only while no caller does (drive.go).
func (r *Ring) readLoop(l *link) {
	defer r.wg.Done()
	in := &l.control
	err := errNotNow
	turn := func() bool {
		in.role.Lock()
		defer in.role.Unlock()
		err = r.absorbAll(l, in)
		return err != errNotNow
	}
	if l.prompt == nil {
		turn()
	} else if e := l.prompt.whenReadable(turn); err == errNotNow {
		err = e
	}
	r.endReading(l, err)
	if l == &r.prev && l.lane == nil {
		r.letGo()
	}
	if err != errLast {
		<-r.kicked
		until := r.linger()
		if l.dead.Load() {
			until = atOnce
		}
		l.drain(time.Now().Add(until))
	}
	l.release()
}

// laneLoop takes in what a lane brings while no caller does.
func (r *Ring) laneLoop(l *link) {
	defer r.wg.Done()
	for err := error(nil); err == nil; {
		select {
		case <-r.failed:
			err = r.Err()
		case <-l.laneKick:
			err = r.laneTurn(l)
			r.endReading(l, err)
		}
	}
	if l == &r.prev {
		r.letGo()
	}
}

// laneTurn returns nil when the lane is empty and the peer knows that it must ring.
func (r *Ring) laneTurn(l *link) error {
	in := l.bulk
	in.role.Lock()
	defer in.role.Unlock()
	for {
		said := l.bye.Load() // before it is found empty
		if err := r.absorbAll(l, in); err != errNotNow {
			return err
		}
		if said {
			return r.takeBye(l, &l.byeHeader)
		}
		if in.lane.doze() {
			return nil
		}
	}
}

// endReading ends the ring if that is why reading ended. It does nothing where the ring has failed already, which then
// is what interrupted us.
func (r *Ring) endReading(l *link, err error) {
	if err != nil && err != errLast {
		if errors.Is(err, ErrProtocol) {
			l.garbled.Store(true)
		}
		r.lose(l, err)
	}
}

// takeCall notes that the next rank has begun an operation.
func (r *Ring) takeCall(h *header) error {
	r.mu.Lock()
	if h.seq <= r.nextCall.seq {
		r.mu.Unlock()
		return fmt.Errorf("%w: call %d after call %d", ErrProtocol, h.seq, r.nextCall.seq)
	}
	r.nextCall = *h
	err := r.compare(h)
	r.mu.Unlock()
	if err == nil {
		r.called[h.seq&1].Store(r.now())
		r.credited.Store(h.seq)
		r.stir(true)
		r.see(&r.next, h.seq)
	}
	return err
}

// takeBye: a peer that has all it wants may leave while this rank still waits for others. It is an error only where
// this rank needs it.
func (r *Ring) takeBye(l *link, h *header) error {
	r.mu.Lock()
	l.left.Store(true)
	c := &r.call
	needed := l == &r.prev && c.live && r.recvSeq.Load() == c.seq && r.recvDone != c.seq
	if c.live && c.small {
		needed = r.came(l, c.seq) < r.wholesFrom(l) || h.seq < c.seq
	}
	r.mu.Unlock()
	if needed {
		return ErrLeft
	}
	kick(r.stirred)
	if l == &r.next {
		kick(r.sendKick) // send knows whether anything is left to send
		return errLast
	}
	kick(r.answerKick)
	return errLast
}

// admitData finds the place of a frame. The timetable says which one that must be: nothing in the header moves memory.
// Its length is the sender's choice.
func (r *Ring) admitData(in *inlet) error {
	h, seq := &in.h, r.recvSeq.Load()
	c, at := &r.call, &r.incoming
	if seq == 0 || h.seq != seq {
		return fmt.Errorf("%w: data of operation %d, expected %d", ErrProtocol, h.seq, seq)
	}
	if seq == r.recvDone {
		return fmt.Errorf("%w: more data than operation %d has", ErrProtocol, seq)
	}
	left := at.end - at.lo
	n := c.frameElems(at.hop, int(h.length), left)
	if int(h.hop) != at.hop || h.offset != uint64(at.lo) || n < 0 || n > left || h.phase != c.phase(at.hop) ||
		h.step != c.op.Step || h.bucket != c.op.Bucket {
		return fmt.Errorf("%w: %v, hop %d, %d bytes at element %d of %v; expected %v, hop %d, up to %d bytes at %d of %v",
			ErrProtocol, h.phase, h.hop, h.length, h.offset, Op{h.step, h.bucket},
			c.phase(at.hop), at.hop, c.wire(at.hop, left), at.lo, c.op)
	}
	in.elems = n
	switch {
	case c.coded(at.hop):
		in.dst = r.landing(at.lo, n)
	case c.phase(at.hop) == phaseReduce:
		in.f = c.reduce
		if c.x.apart {
			in.own = c.x.input(at.lo, at.lo+n)
		}
		fallthrough
	default:
		in.dst = c.x.bytes(at.lo, at.lo+n)
	}
	r.see(&r.prev, seq)
	return nil
}

// settleData: a whole frame has come, and may be sent on. Parts of it may not, although they could: what awaitSent says
// would no longer be so.
func (r *Ring) settleData(in *inlet) {
	c, at := &r.call, &r.incoming
	if c.coded(at.hop) {
		r.takeUnit(in.elems)
	}
	r.taken.Add(int64(in.elems * elemSize))
	at.next(&c.timetable, in.elems)
	r.tallyFrame(r.now(), at)
	r.hopIn.Store(int64(at.hop))
	r.stir(true)
	if at.done {
		r.recvDone = in.h.seq
		r.sideDone()
	}
}

// stir tells whoever waits for progress: the caller, and send, where it may have something to do now. A caller that
// drives the operation sees by itself.
func (r *Ring) stir(send bool) {
	if r.driving {
		return
	}
	kick(r.stirred)
	if send {
		kick(r.sendKick)
	}
}

// awaitSent: a result that replaces a partial sum was made from it, so the partial sum has left this host long ago, in
// whole frames; but send may not have returned from its write yet, and until it has, the memory is its own. So this is
// a wait for another goroutine of this rank, never for the network: the reader never stops reading. Unless wait, it
// returns errNotNow.
func (r *Ring) awaitSent(in *inlet, wait bool) error {
	c, at := &r.call, &r.incoming
	if at.hop-r.world < c.first-1 {
		return nil // nothing that was here has been sent
	}
	// What has come is, lead later, what goes out, and one round before that lies the same place.
	need := r.taken.Load() + int64((in.elems+at.lead-at.size)*elemSize)
	for r.sent.Load() < need {
		if !wait {
			return errNotNow
		}
		select {
		case <-r.sentKick:
		case <-r.failed:
			return r.Err()
		}
	}
	return nil
}
