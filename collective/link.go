package collective

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/musterml/muster/internal/pacing"
)

// link is one of the two neighbours of a rank, and the ways to it: a connection, and between processes of one host a
// lane in each direction besides, which then carries the operations (data, contributions and calls), while signs of
// life, aborts and byes go over the connection as ever, and its end is still the peer's.
type link struct {
	peer Peer
	rank int // of the peer

	conn    net.Conn // set before up
	lane    *passage // nil: everything goes over the connection
	prompt  prompt   // the connection, when it can be asked; set before up
	waiting bool     // reads wait, although the connection could be asked; the reader's
	up      bool     // the link is at work; under Ring.mu

	clock   func() int64 // the ring's; stamps what is heard
	heard   atomic.Int64 // when bytes last came in, by the ring's clock
	left    atomic.Bool  // the peer said bye; set under Ring.mu
	garbled atomic.Bool  // what comes cannot be understood
	hungUp  atomic.Bool  // a write has failed
	dead    atomic.Bool  // the connection is of no more use: nothing is worth writing

	seen atomic.Uint64 // latest operation that the peer has begun, as frames on this link tell
	came atomic.Uint64 // contributions that came the short way: operation<<16 | how many of them
	refs atomic.Int32  // reader and writer; the last one closes conn

	control inlet   // what comes over the connection
	bulk    *inlet  // what operations bring: over the lane, else over the connection
	out     *outlet // to the connection
	bulkOut *outlet // to the lane, else to the connection

	bye       atomic.Bool // with a lane: the peer has said bye, which is dealt with when its lane is empty
	byeHeader header
	laneKick  chan struct{} // something is in the lane, or there is nothing more to come
	room      chan struct{} // the lane has room again
	wake      header        // a bell
}

func (l *link) init(conn net.Conn, clock func() int64) {
	l.conn, l.clock = conn, clock
	l.lane, l.prompt, l.waiting = nil, nil, true
	l.control = newInlet(stampReader{l})
	l.bulk = &l.control
	l.out = &outlet{role: newRole(), conn: conn}
	l.bulkOut = l.out
	l.heard.Store(clock())
	pacing.Unpace(conn)
	l.refs.Store(2)
}

// addLane lets operations go through memory.
func (l *link) addLane(p *passage, wake header) {
	l.lane, l.wake = p, wake
	l.bulk = &inlet{role: newRole(), lane: p.in}
	l.bulkOut = &outlet{role: newRole(), lane: p.out, link: l}
	l.laneKick, l.room = make(chan struct{}, 1), make(chan struct{}, 1)
}

// over names the way that data take.
func (l *link) over() string {
	if l.lane != nil && l.lane.in.segment.local {
		return "memory"
	}
	if l.lane != nil {
		return "shared memory"
	}
	conn, stripes := l.conn, ""
	if b, ok := conn.(*bundle); ok {
		conn, stripes = b.Conn, fmt.Sprintf("%d stripes of ", len(b.conns))
	}
	if _, ok := conn.(interface{ NetConn() net.Conn }); ok {
		return stripes + "tls"
	}
	return stripes + conn.RemoteAddr().Network()
}

// ring wakes the peer: its reader, to whom something has been sent, or its writer, for whom there is room.
func (l *link) ring() error {
	err := l.out.write(&l.wake, nil)
	if err == errSealed { // the ring has ended; nobody needs be woken
		return nil
	}
	return err
}

// woken: the peer has rung.
func (l *link) woken() {
	kick(l.laneKick)
	kick(l.room)
}

// stampReader notes every sign of life, also in the middle of a long chunk on a slow network.
type stampReader struct{ l *link }

func (s stampReader) Read(p []byte) (n int, err error) {
	if s.l.waiting {
		n, err = s.l.conn.Read(p)
	} else {
		n, err = s.l.prompt.tryRead(p)
	}
	if n > 0 {
		s.l.heard.Store(s.l.clock())
	}
	return n, err
}

// drain reads and forgets until the peer's last frame. A socket closed with unread bytes in it is reset, and a reset
// may take from the peer what it has not read yet: our own last frame, which says why.
//
// What cannot be understood is read to the end of the connection: the peer closes it once it has read our last frame.
func (l *link) drain(until time.Time) {
	in := &l.control
	in.role.Lock()
	defer in.role.Unlock()
	l.waiting = true
	_ = l.conn.SetReadDeadline(until)
	if l.garbled.Load() {
		_, _ = io.Copy(io.Discard, in.conn)
		return
	}
	rest := 0
	if in.open {
		rest = len(in.dst) - in.part
	}
	for {
		if _, err := in.conn.Discard(rest); err != nil {
			return
		}
		if in.ended || in.readHeader() != nil || in.h.kind == kindBye || in.h.kind == kindAbort {
			return
		}
		rest = int(in.h.length)
	}
}

// write sends one frame over the connection.
func (l *link) write(h *header, payload []byte) error { return l.out.write(h, payload) }

// farewell seals the connection's outlet, ends an interrupted frame and writes the last one. Whoever has locked the
// outlet before has ended; whoever comes later finds it sealed, and need not wait for this.
func (l *link) farewell(last *header, payload []byte, until time.Time) {
	o := l.out
	o.Lock()
	sealed := o.sealed
	o.seal()
	o.Unlock()
	if sealed {
		return
	}
	if l.dead.Load() {
		until = time.Now().Add(atOnce)
	}
	_ = l.conn.SetWriteDeadline(until)
	o.torn = nil // it has more time now
	if err := o.flush(true); err == nil {
		_ = o.put(last, payload)
	}
}

// atOnce is enough to write what the kernel has room for.
const atOnce = time.Millisecond

// release is called once by the reader and once by the writer, when they are done with the connection.
func (l *link) release() {
	if l.refs.Add(-1) > 0 {
		return
	}
	closeAtOnce(l.conn)
}

func closeAtOnce(conn net.Conn) {
	// TLS would try for five seconds to say goodbye to a peer that no longer reads. Our own last frame has said it.
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		_ = c.NetConn().Close()
	}
	_ = conn.Close()
}

var errSealed = errors.New("nothing is written after the last frame")

// check says whether a frame is of this ring and from the peer at the other end.
func (r *Ring) check(l *link, h *header) error {
	switch {
	case h.run != r.run:
		return fmt.Errorf("%w: %v of another run", ErrProtocol, h.kind)
	case h.view != r.cfg.View:
		return fmt.Errorf("%w: %v of %v, this ring is of %v", ErrProtocol, h.kind, h.view, r.cfg.View)
	case int(h.rank) != l.rank:
		return fmt.Errorf("%w: %v of rank %d, which is %d here", ErrProtocol, h.kind, h.rank, l.rank)
	}
	return nil
}
