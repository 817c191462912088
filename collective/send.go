package collective

import "time"

// sendLoop is the send goroutine: data and heartbeats to the next rank.
func (r *Ring) sendLoop() {
	defer r.wg.Done()
	l := &r.next
	beat := time.NewTicker(r.cfg.Heartbeat)
	defer beat.Stop()
	for run := true; run; {
		var err error
		select {
		case <-r.failed:
			run = false
		case <-beat.C:
			err = r.beat(l)
		case <-r.sendKick:
			run, err = r.pump(true)
		}
		if err != nil {
			r.loseWriting(l, err)
			<-r.failed
			run = false
		}
	}
	l.out.abandon()
	l.bulkOut.abandon()
	r.letGo()
	r.sayLast(l)
	l.release()
}

// pump sends what may be sent now: the next rank has begun the operation, and it is of the own part or has come in. It
// returns false when the next rank has left and needs nothing more. Unless wait, it returns where it would have to.
func (r *Ring) pump(wait bool) (run bool, err error) {
	if wait {
		r.sending.Lock()
	} else if !r.sending.TryLock() {
		return true, nil
	}
	defer r.sending.Unlock()
	l := &r.next
	for {
		left := l.left.Load() // before sendSeq: an operation begun after it was set fails at once
		seq := r.sendSeq.Load()
		if seq == r.sendDone {
			return !left, nil
		}
		if left {
			return false, ErrLeft
		}
		select {
		case <-r.failed:
			return false, nil
		default:
		}
		n := r.frame
		if n == 0 {
			if n = r.ready(seq); n == 0 {
				return true, nil
			}
		}
		if err := r.sendFrame(n, wait); err != nil {
			if err == errNotNow {
				return true, nil
			}
			return false, err
		}
		out := &r.outgoing
		r.sentBytes.Add(uint64(r.call.wire(out.hop, n)))
		r.decodeSent(out.lo, n)
		out.next(&r.call.timetable, n)
		r.hopOut.Store(int64(out.hop))
		r.sent.Add(int64(n * elemSize))
		if wait {
			kick(r.sentKick)
		}
		if out.done {
			r.sendDone = seq
			r.sideDone()
		}
	}
}

// ready is how many elements go out in the next frame; 0: none yet. A frame is a piece at least, but for a segment's
// end: what has come goes on while the rest is on its way.
func (r *Ring) ready(seq uint64) int {
	if r.credited.Load() < seq {
		return 0
	}
	c, out := &r.call, &r.outgoing
	left := out.end - out.lo
	n := left
	if out.hop > c.first { // it must have come
		n = min(n, out.lead+int(r.taken.Load()-r.sent.Load())/elemSize)
	}
	if c.coded(out.hop) {
		if unit := cut(left, c.unit); n >= unit {
			return unit
		}
		return 0
	}
	if n < left && n < c.piece/elemSize {
		return 0
	}
	return min(n, cut(left, 2*c.piece/elemSize))
}

// cut is how many elements go next of those that are left, usual as a rule: a small rest goes with the last ones.
func cut(left, usual int) int {
	if left <= usual+usual/restShare {
		return left
	}
	return usual
}

const restShare = 64

// sendFrame begins a frame of n elements, or goes on with it.
func (r *Ring) sendFrame(n int, wait bool) error {
	o := r.next.bulkOut
	if wait {
		o.Lock()
	} else if !o.TryLock() {
		return errNotNow
	}
	defer o.Unlock()
	if o.sealed {
		return errSealed
	}
	if r.frame == 0 {
		if err := o.flush(wait); err != nil { // somebody else's
			return err
		}
		c, out := &r.call, &r.outgoing
		h := r.header(kindData)
		h.step, h.bucket, h.seq = c.op.Step, c.op.Bucket, c.seq
		h.phase, h.hop, h.offset = c.phase(out.hop), uint16(out.hop), uint64(out.lo)
		r.encodeUnit(out.lo, n)
		o.begin(&h, c.outgoing(out.hop, out.lo, n))
		r.frame = n
	}
	err := o.flush(wait)
	if err == nil {
		r.frame = 0
	}
	return err
}

// answerLoop is the answer goroutine: heartbeats to the previous rank. (Calls are written by the caller itself.)
func (r *Ring) answerLoop() {
	defer r.wg.Done()
	l := &r.prev
	beat := time.NewTicker(r.cfg.Heartbeat)
	defer beat.Stop()
	for run := true; run; {
		select {
		case <-r.failed:
			run = false
		case <-r.answerKick:
			run = false
		case <-beat.C:
			if err := r.beat(l); err != nil {
				r.loseWriting(l, err)
				<-r.failed
			}
		}
	}
	r.sayLast(l)
	l.release()
}

// beat gives a sign of life, after the end of a frame that somebody else has begun and has no time for.
func (r *Ring) beat(l *link) error {
	h := r.header(kindBeat)
	return l.write(&h, nil)
}

// sayLast ends this direction of a link: with bye where the peer has left, else with what the ring ended with.
func (r *Ring) sayLast(l *link) {
	last, text := r.header(kindBye), []byte(nil)
	select {
	case <-r.failed:
		<-r.kicked
		r.mu.Lock()
		last, text = r.last, r.lastText
		r.mu.Unlock()
	default:
	}
	l.farewell(&last, text, time.Now().Add(r.linger()))
}

// piece is how many bytes are worth a frame of their own while more are to come; a frame has at most two. On lanes it is
// so few that what was just reduced is still in the cache, on sockets so many that calls of the kernel do not count.
func (r *Ring) piece() int {
	if r.next.lane != nil {
		return lanePiece
	}
	return socketPiece
}

// socketPiece: a frame of two, with its header, just fills four of the segments that TCP cuts on loopback. With 128 KiB a
// fifth segment of a few bytes went with every frame, and took as long as a full one: 16 MiB took 6 % longer.
const (
	loopbackSegment = 65483
	socketPiece     = (4*loopbackSegment - headerSize) / 2 / cacheLine * cacheLine
	cacheLine       = 64
)
