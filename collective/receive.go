package collective

import (
	"errors"
	"fmt"
	"time"
)

// errLast ends a reader: the peer's last frame has come and has been dealt with.
var errLast = errors.New("last frame")

// readLoop is the receive goroutine on the previous link and the listen goroutine on the next one.
func (r *Ring) readLoop(l *link) {
	defer r.wg.Done()
	var h header
	var err error
	for err == nil {
		select {
		case <-r.failed:
			err = r.Err()
			continue
		default:
		}
		if err = l.readHeader(&h); err == nil {
			if err = r.check(l, &h); err == nil {
				err = r.take(l, &h)
			}
		}
	}
	if err != errLast {
		r.lose(l, err) // does nothing where the ring has failed already, which is what interrupted us
	}
	if l == &r.prev {
		r.letGo()
	}
	if err != errLast && !l.dead.Load() {
		<-r.kicked
		l.drain(time.Now().Add(r.linger()), errors.Is(err, ErrProtocol))
	}
	l.release()
}

func (r *Ring) take(l *link, h *header) error {
	switch {
	case h.kind == kindBeat:
		return nil
	case h.kind == kindData && l == &r.prev:
		return r.takeData(l, h)
	case h.kind == kindCall && l == &r.next:
		return r.takeCall(h)
	case h.kind == kindWhole && r.whole.limit >= 0:
		return r.takeWhole(l, h)
	case h.kind == kindAbort:
		text := make([]byte, h.length)
		if err := l.readPayload(text); err != nil {
			return err
		}
		n, err := decodeNotice(text)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		r.fail(&AbortError{Origin: n.origin, Suspect: n.suspect, Reason: n.reason}, nil)
		return errLast
	case h.kind == kindBye:
		return r.takeBye(l, h)
	}
	return fmt.Errorf("%w: unexpected %v", ErrProtocol, h.kind)
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
		kick(r.sendKick)
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
	if l == &r.next {
		kick(r.sendKick) // send knows whether anything is left to send
		return errLast
	}
	kick(r.answerKick)
	return errLast
}

// takeData reads the next chunk. The timetable says which one that must be: nothing in the header moves memory.
func (r *Ring) takeData(l *link, h *header) error {
	seq := r.recvSeq.Load()
	c, in := &r.call, &r.incoming
	if seq == 0 || h.seq != seq {
		return fmt.Errorf("%w: data of operation %d, expected %d", ErrProtocol, h.seq, seq)
	}
	if seq == r.recvDone {
		return fmt.Errorf("%w: more data than operation %d has", ErrProtocol, seq)
	}
	hi := in.hi(&c.timetable)
	dst := c.x.bytes(in.lo, hi)
	if int(h.hop) != in.hop || h.offset != uint64(in.lo) || int(h.length) != len(dst) || h.phase != c.phase(in.hop) ||
		h.step != c.op.Step || h.bucket != c.op.Bucket {
		return fmt.Errorf("%w: %v, hop %d, %d bytes at element %d of %v; expected %v, hop %d, %d bytes at %d of %v",
			ErrProtocol, h.phase, h.hop, h.length, h.offset, Op{h.step, h.bucket},
			c.phase(in.hop), in.hop, len(dst), in.lo, c.op)
	}
	if c.phase(in.hop) == phaseReduce {
		if err := r.readReduced(l, dst, c.reduce); err != nil {
			return err
		}
	} else {
		if err := r.awaitSent(int64(c.lead + in.count - c.allChunks + 1)); err != nil {
			return err
		}
		if err := l.readPayload(dst); err != nil {
			return err
		}
	}
	r.see(&r.prev, seq)
	in.next(&c.timetable)
	now := l.heard.Load()
	r.tallyChunk(now, in.hop)
	r.moved.Store(now)
	r.hopIn.Store(int64(in.hop))
	r.taken.Store(int64(in.count))
	kick(r.sendKick)
	if in.done {
		r.recvDone = seq
		r.sideDone()
	}
	return nil
}

// readReduced reads a chunk and reduces it into dst bit by bit, as it comes: what was read is still in the cache.
func (r *Ring) readReduced(l *link, dst []byte, f Reduce) error {
	part := 0 // bytes of an element whose rest has not come yet
	for len(dst) > 0 {
		n, err := l.readSome(r.scratch[part:min(len(dst), len(r.scratch))])
		n += part
		part = n % elemSize
		f.apply(dst[:n-part], r.scratch[:n-part])
		dst = dst[n-part:]
		copy(r.scratch, r.scratch[n-part:n])
		if err != nil && len(dst) > 0 {
			return err
		}
	}
	return nil
}

// awaitSent returns when that many chunks have been sent. A result that replaces a partial sum was made from it, so
// the partial sum has left this host long ago; but send may not have returned from its write yet, and until it has,
// the memory is its own.
func (r *Ring) awaitSent(chunks int64) error {
	for r.sent.Load() < chunks {
		select {
		case <-r.sentKick:
		case <-r.failed:
			return r.Err()
		}
	}
	return nil
}
