package collective

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// link is one of the two connections of a ring. One goroutine reads it; whoever holds sem writes whole frames.
type link struct {
	peer Peer
	rank int // of the peer

	conn  net.Conn     // set before up
	up    bool         // the link is at work; under Ring.mu
	clock func() int64 // the ring's; stamps what is heard
	heard atomic.Int64 // when bytes last came in, by the ring's clock
	left  atomic.Bool  // the peer said bye; set under Ring.mu
	dead  atomic.Bool  // the connection is of no more use: nothing is worth writing

	seen atomic.Uint64 // latest operation that the peer has begun, as frames on this link tell
	came atomic.Uint64 // contributions that came the short way: operation<<16 | how many of them
	refs atomic.Int32  // reader and writer; the last one closes conn

	// Owned by the reader.
	in       *bufio.Reader // small: a header and a short payload in one read; long payloads go past its buffer
	inHeader [headerSize]byte
	inGot    int // bytes of inHeader that have come
	inRest   int // bytes of the current frame's payload that have not come yet

	// Owned by the holder of sem. A channel and not a mutex: its holder may wait for the network.
	sem       chan struct{}
	outHeader [headerSize]byte
	outParts  [2][]byte
	out       net.Buffers // what is left to write of the current frame
	torn      error       // why it is left
	sealed    bool        // the last frame is written
}

const readBuffer = 4 << 10

func (l *link) init(conn net.Conn, clock func() int64) {
	l.conn, l.clock = conn, clock
	l.in = bufio.NewReaderSize(stampReader{l}, readBuffer)
	l.sem = make(chan struct{}, 1)
	l.inGot, l.inRest = 0, 0
	l.heard.Store(clock())
	unpace(conn)
	l.refs.Store(2)
}

// stampReader notes every sign of life, also in the middle of a long chunk on a slow network.
type stampReader struct{ l *link }

func (s stampReader) Read(p []byte) (int, error) {
	n, err := s.l.conn.Read(p)
	if n > 0 {
		s.l.heard.Store(s.l.clock())
	}
	return n, err
}

// readHeader reads the next frame's header. Interrupted by a deadline it may be called again and goes on.
func (l *link) readHeader(h *header) error {
	for l.inGot < headerSize {
		n, err := l.in.Read(l.inHeader[l.inGot:])
		l.inGot += n
		if err != nil && l.inGot < headerSize {
			if err == io.EOF && l.inGot > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	l.inGot = 0
	if err := h.parse(&l.inHeader); err != nil {
		return err
	}
	l.inRest = int(h.length)
	return nil
}

// readPayload fills p from the current frame's payload.
func (l *link) readPayload(p []byte) error {
	for len(p) > 0 {
		n, err := l.readSome(p)
		if p = p[n:]; err != nil && len(p) > 0 {
			return err
		}
	}
	return nil
}

// readSome reads what there is of the current frame's payload, at most p.
func (l *link) readSome(p []byte) (int, error) {
	n, err := l.in.Read(p)
	l.inRest -= n
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// drain reads and forgets until the peer's last frame. A socket closed with unread bytes in it is reset, and a reset
// may take from the peer what it has not read yet: our own last frame, which says why.
//
// What cannot be understood is read to the end of the connection: the peer closes it once it has read our last frame.
func (l *link) drain(until time.Time, garbled bool) {
	_ = l.conn.SetReadDeadline(until)
	if garbled {
		_, _ = io.Copy(io.Discard, l.in)
		return
	}
	var h header
	for {
		for l.inRest > 0 {
			n, err := l.in.Discard(min(l.inRest, 1<<20))
			if l.inRest -= n; err != nil {
				return
			}
		}
		if l.readHeader(&h) != nil || h.kind == kindBye || h.kind == kindAbort {
			return
		}
	}
}

var errSealed = errors.New("nothing is written after the last frame")

// write sends one frame. After an error the rest of it stays in l.out.
func (l *link) write(h *header, payload []byte) error {
	l.sem <- struct{}{}
	defer func() { <-l.sem }()
	if err := l.closedLocked(); err != nil {
		return err
	}
	return l.writeLocked(h, payload)
}

// writeFrame sends a frame that is ready, header and payload in one. The memory is the ring's own.
func (l *link) writeFrame(frame []byte) error {
	l.sem <- struct{}{}
	defer func() { <-l.sem }()
	if err := l.closedLocked(); err != nil {
		return err
	}
	n, err := l.conn.Write(frame)
	if err != nil {
		l.outParts[0] = frame[n:]
		l.out, l.torn = l.outParts[:1], err
	}
	return err
}

// closedLocked: nothing may follow the last frame, or come between the halves of an interrupted one.
func (l *link) closedLocked() error {
	if l.sealed {
		return errSealed
	}
	if len(l.out) > 0 {
		return l.torn
	}
	return nil
}

func (l *link) writeLocked(h *header, payload []byte) error {
	h.length = uint32(len(payload))
	h.put(&l.outHeader)
	l.outParts[0], l.outParts[1] = l.outHeader[:], payload
	l.out = l.outParts[:2]
	if len(payload) == 0 {
		l.out = l.outParts[:1]
	}
	_, l.torn = l.out.WriteTo(l.conn)
	return l.torn
}

// saveRest copies what is left of an interrupted frame, so that the caller's memory can be given back at once and
// the frame still be ended as it was meant: a receiver must never take for data what is none.
func (l *link) saveRest() {
	l.sem <- struct{}{}
	for i := range l.out {
		l.out[i] = bytes.Clone(l.out[i])
	}
	<-l.sem
}

// farewell ends an interrupted frame, writes the last one and seals the link.
func (l *link) farewell(last *header, payload []byte, until time.Time) {
	l.sem <- struct{}{}
	defer func() { <-l.sem }()
	if l.sealed {
		return
	}
	l.sealed = true
	if l.dead.Load() {
		return
	}
	_ = l.conn.SetWriteDeadline(until)
	if len(l.out) > 0 {
		if _, err := l.out.WriteTo(l.conn); err != nil {
			return
		}
	}
	_ = l.writeLocked(last, payload)
}

// release is called once by the reader and once by the writer, when they are done with the connection.
func (l *link) release() {
	if l.refs.Add(-1) > 0 {
		return
	}
	// TLS would try for five seconds to say goodbye to a peer that no longer reads. Our own last frame has said it.
	if c, ok := l.conn.(interface{ NetConn() net.Conn }); ok {
		_ = c.NetConn().Close()
	}
	_ = l.conn.Close()
}

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
