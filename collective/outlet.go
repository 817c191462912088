package collective

import (
	"bytes"
	"net"
	"sync/atomic"
)

// outlet is where frames go out: to a connection or a lane. Whoever holds its lock writes. A frame may be begun by one
// and ended by another, and nothing comes in between.
type outlet struct {
	role // whoever holds it writes

	conn   net.Conn
	prompt prompt // conn, when it can be asked
	lane   *lane  // instead of conn
	link   *link  // with lane: whose bell is rung

	header [headerSize]byte
	head   []byte // what is left to write of the current frame's header, in header
	body   []byte // and of its payload
	torn   error  // why the frame will never be ended
	sealed bool   // the last frame is written

	full atomic.Bool // a frame is begun that conn did not take all of; for awaitSockets

	parts   [2][]byte
	buffers net.Buffers
	ended   <-chan struct{} // with lane: the ring has ended
}

// begun: a frame is begun and not ended.
func (o *outlet) begun() bool { return len(o.head)+len(o.body) > 0 }

// write sends one frame, after the end of one that is begun.
func (o *outlet) write(h *header, payload []byte) error {
	o.Lock()
	defer o.Unlock()
	if o.sealed {
		return errSealed
	}
	if err := o.flush(true); err != nil {
		return err
	}
	return o.put(h, payload)
}

// put sends one frame. Like begin and flush it is called by the holder of the lock.
func (o *outlet) put(h *header, payload []byte) error {
	o.begin(h, payload)
	return o.flush(true)
}

// begin makes a frame the current one; flush sends it.
func (o *outlet) begin(h *header, payload []byte) {
	h.length = uint32(len(payload))
	h.put(&o.header)
	o.head, o.body = o.header[:], payload
}

// flush goes on with the current frame, to its end, or unless wait until it returns errNotNow. After another error the
// rest of the frame stays.
func (o *outlet) flush(wait bool) error {
	if o.torn != nil {
		return o.torn
	}
	for o.begun() {
		var n int
		var err error
		switch {
		case o.lane != nil:
			n, err = o.toLane(wait)
		case o.prompt != nil && !wait:
			n, err = o.prompt.tryWrite(o.head, o.body)
		default:
			n, err = o.toConn()
		}
		k := min(n, len(o.head))
		o.head, o.body = o.head[k:], o.body[min(n-k, len(o.body)):]
		o.full.Store(err == errNotNow)
		if err == errNotNow {
			return err
		}
		if err != nil && o.begun() {
			o.torn = err
			return err
		}
	}
	return nil
}

func (o *outlet) toConn() (int, error) {
	switch {
	case len(o.head) == 0:
		return o.conn.Write(o.body)
	case len(o.body) == 0:
		return o.conn.Write(o.head)
	}
	o.parts[0], o.parts[1] = o.head, o.body
	o.buffers = o.parts[:]
	n, err := o.buffers.WriteTo(o.conn)
	return int(n), err
}

func (o *outlet) toLane(wait bool) (int, error) {
	n := 0
	if len(o.head) > 0 {
		n = o.lane.write(o.head)
	}
	if n == len(o.head) {
		n += o.lane.write(o.body)
	}
	if n > 0 && o.lane.callReader() {
		if err := o.link.ring(); err != nil {
			return n, err
		}
	}
	if n == len(o.head)+len(o.body) {
		return n, nil
	}
	if !wait {
		return n, errNotNow
	}
	if o.lane.stuck() {
		select {
		case <-o.link.room:
		case <-o.ended:
			return n, ErrClosed
		}
	}
	return n, nil
}

// abandon gives the caller's memory back, when the ring has failed.
func (o *outlet) abandon() {
	o.Lock()
	defer o.Unlock()
	switch {
	case o.sealed:
	case o.lane != nil: // nobody reads on
		o.head = nil
		o.seal()
		o.body = nil
	default:
		o.body = bytes.Clone(o.body)
	}
}

// seal lets nothing but the farewell be written. What is left of an interrupted frame is copied, so that the frame can
// still be ended as it was meant: a receiver must never take for data what is none.
func (o *outlet) seal() {
	o.sealed = true
	o.body = bytes.Clone(o.body)
}
