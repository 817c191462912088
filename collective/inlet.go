package collective

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// inlet is where frames come in: over a connection or a lane. Whoever holds its role reads: a goroutine of the ring,
// or the caller of an operation. Reading can stop anywhere in a frame and be taken up by the other.
type inlet struct {
	role role

	conn *bufio.Reader // small: a header and a short payload in one read; long payloads go past its buffer
	lane *lane         // instead of conn

	head  [headerSize]byte
	got   int    // bytes of head that have come
	h     header // of the current frame
	open  bool   // the current frame is admitted, its payload has not come to its end
	dst   []byte // what is left of the payload's place
	f     Reduce // how it gets there; 0: it is copied
	own   []byte // what it is added to, where that is not in dst: as much as is left of dst
	elems int    // data: of the vector, in the frame
	part  int    // bytes in Ring.scratch of an element whose rest has not come yet
	text  []byte // an abort's payload
	ended bool   // the peer's last frame has come
}

func newInlet(from io.Reader) inlet {
	return inlet{role: newRole(), conn: bufio.NewReaderSize(from, readBuffer)}
}

// role is a lock. A channel and not a mutex: who waits for it may wait long, and testing/synctest sees that it waits.
type role chan struct{}

func newRole() role    { return make(role, 1) }
func (r role) Lock()   { r <- struct{}{} }
func (r role) Unlock() { <-r }
func (r role) TryLock() bool {
	select {
	case r <- struct{}{}:
		return true
	default:
		return false
	}
}

const readBuffer = 4 << 10

// errLast ends a reader: the peer's last frame has come and has been dealt with.
var errLast = errors.New("last frame")

// readHeader reads the next frame's header. Interrupted it may be called again and goes on.
func (in *inlet) readHeader() error {
	for in.got < headerSize {
		n, err := in.read(in.head[in.got:])
		in.got += n
		if err != nil && in.got < headerSize {
			if err == io.EOF && in.got > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	in.got = 0
	return in.h.parse(&in.head)
}

func (in *inlet) read(p []byte) (int, error) {
	if in.lane == nil {
		return in.conn.Read(p)
	}
	v, err := in.lane.view()
	if err == nil && len(v) == 0 {
		err = errNotNow
	}
	if err != nil {
		return 0, err
	}
	n := copy(p, v)
	in.lane.consume(n)
	return n, nil
}

// absorb takes in one frame, as much of it as has come: all of it, or it returns errNotNow where the stream can be
// asked and has no more. Unless wait, it also returns errNotNow where a result's place is still being sent from.
func (r *Ring) absorb(l *link, in *inlet, wait bool) error {
	if in.ended {
		return errLast
	}
	if !in.open {
		err := in.readHeader()
		if in.lane != nil && in.lane.callWriter() {
			if err := l.ring(); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		if err := r.check(l, &in.h); err != nil {
			return err
		}
		if err := r.admit(l, in); err != nil {
			return err
		}
		in.open = true
	}
	if err := r.fill(l, in, wait); err != nil {
		return err
	}
	in.open = false
	err := r.settle(l, in)
	in.ended = err == errLast
	return err
}

// absorbAll returns when there is nothing more to take in, with errNotNow, or with what ended the stream.
func (r *Ring) absorbAll(l *link, in *inlet) error {
	for {
		select {
		case <-r.failed:
			return r.Err()
		default:
		}
		if err := r.absorb(l, in, true); err != nil {
			return err
		}
	}
}

// admit says where the payload of the current frame goes, if the frame may come at all.
func (r *Ring) admit(l *link, in *inlet) error {
	in.dst, in.f, in.own, in.part, in.elems = nil, 0, nil, 0, 0
	bulk := in == l.bulk
	switch k := in.h.kind; {
	case k == kindData && bulk && l == &r.prev:
		return r.admitData(in)
	case k == kindWhole && bulk && r.whole.limit >= 0:
		return r.admitWhole(l, in)
	case k == kindAbort && in == &l.control:
		in.text = make([]byte, in.h.length)
		in.dst = in.text
		return nil
	case k == kindCall && bulk && l == &r.next, k == kindBeat, k == kindWake && l.lane != nil, k == kindBye && in == &l.control:
		return nil
	default:
		return fmt.Errorf("%w: unexpected %v", ErrProtocol, k)
	}
}

// fill moves what has come of the payload to its place, and reduces it there bit by bit: what was just read is still
// in the cache.
func (r *Ring) fill(l *link, in *inlet, wait bool) error {
	if len(in.dst) == 0 {
		return nil
	}
	data := in.h.kind == kindData
	if data && in.f == 0 {
		if err := r.awaitSent(in, wait); err != nil {
			return err
		}
	}
	for len(in.dst) > 0 {
		var n int
		var err error
		switch {
		case in.lane != nil:
			n, err = in.fillFromLane(l)
		case in.f != 0:
			n, err = in.reduceFromConn(r.scratch)
		default:
			n, err = in.conn.Read(in.dst)
		}
		in.dst = in.dst[n:]
		if data && n > 0 {
			now := r.now()
			r.tally.wait(l.peer.Node, now-r.moved.Load())
			r.moved.Store(now)
		}
		if err != nil && len(in.dst) > 0 {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// fillFromLane reduces or copies right out of the memory that the peer has written.
func (in *inlet) fillFromLane(l *link) (int, error) {
	v, err := in.lane.view()
	if err != nil {
		return 0, err
	}
	n := min(len(v), len(in.dst), lanePiece) &^ (elemSize - 1)
	if n == 0 {
		return 0, errNotNow
	}
	if in.f != 0 {
		in.reduce(v[:n])
	} else {
		copy(in.dst[:n], v[:n])
	}
	in.lane.consume(n)
	if in.lane.callWriter() {
		err = l.ring()
	}
	return n, err
}

// reduce adds what has come to this rank's contribution, where dst begins.
func (in *inlet) reduce(came []byte) {
	dst := in.dst[:len(came)]
	if in.own != nil {
		in.own = in.own[copy(dst, in.own):]
	}
	in.f.apply(dst, came)
}

// reduceFromConn returns the bytes of dst that are reduced: whole elements.
func (in *inlet) reduceFromConn(scratch []byte) (int, error) {
	n, err := in.conn.Read(scratch[in.part:min(len(in.dst), len(scratch))])
	n += in.part
	in.part = n % elemSize
	n -= in.part
	in.reduce(scratch[:n])
	copy(scratch, scratch[n:n+in.part])
	return n, err
}

// settle acts on a frame that has come completely.
func (r *Ring) settle(l *link, in *inlet) error {
	h := &in.h
	switch h.kind {
	case kindData:
		r.settleData(in)
	case kindWhole:
		return r.settleWhole(l, h)
	case kindCall:
		return r.takeCall(h)
	case kindWake:
		l.woken()
	case kindAbort:
		n, err := decodeNotice(in.text)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		_ = r.fail(&AbortError{Origin: n.origin, Suspect: n.suspect, Reason: n.reason}, nil)
		return errLast
	case kindBye:
		if l.lane == nil {
			return r.takeBye(l, h)
		}
		l.byeHeader = *h
		l.bye.Store(true) // what it has left in the lane comes before it
		kick(l.laneKick)
		return errLast
	}
	return nil
}
