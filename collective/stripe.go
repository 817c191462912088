package collective

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/musterml/muster/internal/pacing"
)

// bundle is one connection made of several, its stripes, where a limit is set on every connection (Config.Stripes): a provider's, or
// the system's on a way so long that even pacing.Widen does not fill it. Elsewhere one is faster, as several overflow the queue
// before the link (bench/RESULTS-net.md). The ring knows nothing of it.
//
// What is written is cut into chunks, which are numbered. Each stripe has a goroutine that takes the next chunk when it is
// done with its last one; so a slow stripe carries less, and nothing is divided beforehand. On the other side each stripe has
// a goroutine that reads a chunk and keeps it until all before it have been taken. Within a stripe chunks are in order, so
// the chunk that is next is always the first one of some stripe, and none waits for another in a circle. What is early and
// has no place here lies in its stripe's socket.
//
// A chunk is copied on either side, which the speed of such links does not feel: so a slow stripe keeps nobody's memory.
//
// Rejected: frames that are taken out of turn and put where they belong. A rank may send on only what has come without
// gaps, so it would gain nothing, and the order of a connection is what byes, aborts and signs of life rely on.
type bundle struct {
	net.Conn // the first one; what is not defined here is its
	conns    []net.Conn
	alive    func() // called when bytes have come, on any stripe

	out struct {
		half
		work  *sync.Cond // for stripes: a chunk to be sent
		queue []*chunk
		free  []*chunk
		next  uint64 // number of the chunk that is cut next
	}
	in struct {
		half
		room  *sync.Cond // for stripes: a chunk has been taken
		first []*chunk   // of each stripe, the one that has come; nil: none has
		left  int        // stripes that have not come to their end
		next  uint64     // number of the chunk that is taken next

		// garbled: what no writer sends has come, and Read has said or will say so. From then on everything is read and
		// forgotten, as in link.drain: a socket closed with unread bytes in it is reset.
		garbled error
		told    bool
	}
	writers, readers sync.WaitGroup
}

// chunk is a piece of what is written: 8 bytes number, 4 bytes length, little-endian, and the bytes.
type chunk struct {
	number uint64
	rest   []byte // what has not been taken of it
	frame  [chunkHeader + chunkBytes]byte
}

const (
	chunkHeader = 12
	chunkBytes  = 64 << 10
	MaxStripes  = 32 // of a link
)

// half is one direction of a bundle.
type half struct {
	mu       sync.Mutex
	moved    *sync.Cond // for who reads or writes the bundle
	deadline time.Time
	alarm    *time.Timer
	err      error
	closed   bool
}

func newBundle(conns []net.Conn, alive func()) *bundle {
	b := &bundle{Conn: conns[0], conns: conns, alive: alive}
	b.out.moved, b.in.moved = sync.NewCond(&b.out.mu), sync.NewCond(&b.in.mu)
	b.out.work, b.in.room = sync.NewCond(&b.out.mu), sync.NewCond(&b.in.mu)
	b.in.first, b.in.left = make([]*chunk, len(conns)), len(conns)
	for range 2 * len(conns) {
		b.out.free = append(b.out.free, new(chunk))
	}
	b.out.queue = make([]*chunk, 0, len(b.out.free))
	for i, conn := range conns {
		b.writers.Go(func() { b.send(conn) })
		b.readers.Go(func() { b.receive(i, conn) })
	}
	return b
}

// wait returns when something has moved, or the error that ends reading or writing.
func (h *half) wait() error {
	switch {
	case h.closed:
		return net.ErrClosed
	case h.err != nil:
		return h.err
	}
	h.moved.Wait()
	return nil
}

func (h *half) expired() bool { return !h.deadline.IsZero() && !time.Now().Before(h.deadline) }

func (h *half) setDeadline(t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deadline = t
	if h.alarm != nil {
		h.alarm.Stop()
	}
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		h.alarm = time.AfterFunc(wait, h.look)
	}
	h.moved.Broadcast()
}

func (h *half) look() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.moved.Broadcast()
}

func (h *half) failLocked(err error) {
	if h.err == nil {
		h.err = err
	}
	h.moved.Broadcast()
}

// Write returns when p is cut into chunks; the last ones have not been sent yet.
func (b *bundle) Write(p []byte) (n int, err error) {
	o := &b.out
	o.mu.Lock()
	defer o.mu.Unlock()
	for n < len(p) {
		switch {
		case o.expired():
			return n, os.ErrDeadlineExceeded
		case len(o.free) == 0 || o.err != nil || o.closed:
			if err := o.wait(); err != nil {
				return n, err
			}
			continue
		}
		c := o.free[len(o.free)-1]
		o.free = o.free[:len(o.free)-1]
		k := copy(c.frame[chunkHeader:], p[n:])
		n += k
		binary.LittleEndian.PutUint64(c.frame[:], o.next)
		binary.LittleEndian.PutUint32(c.frame[8:], uint32(k))
		c.rest = c.frame[:chunkHeader+k]
		o.next++
		o.queue = append(o.queue, c)
		o.work.Signal()
	}
	return n, nil
}

// send is the goroutine that writes one stripe. It ends when the bundle is closed and all has been sent.
func (b *bundle) send(conn net.Conn) {
	o := &b.out
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		for len(o.queue) == 0 && !o.closed && o.err == nil {
			o.work.Wait()
		}
		if len(o.queue) == 0 || o.err != nil {
			return
		}
		c := o.queue[0]
		o.queue = o.queue[:copy(o.queue, o.queue[1:])]
		o.mu.Unlock()
		_, err := conn.Write(c.rest)
		o.mu.Lock()
		o.free = append(o.free, c)
		o.moved.Signal()
		if err != nil {
			o.failLocked(err)
			o.work.Broadcast()
		}
	}
}

// receive is the goroutine that reads one stripe.
func (b *bundle) receive(i int, conn net.Conn) {
	in := &b.in
	c, other := new(chunk), new(chunk)
	err := error(nil)
	for least := uint64(0); err == nil; least = other.number + 1 {
		err = b.readChunk(conn, c, least)
		if err = b.hold(i, c, err); err == errGarbled {
			_, _ = io.Copy(io.Discard, conn)
			err = io.EOF
		}
		c, other = other, c
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.left--; err != io.EOF {
		in.failLocked(err)
	}
	in.moved.Broadcast()
}

var errGarbled = errors.New("a stripe brings what no writer sends")

// hold waits until the chunk before this one of the same stripe has been taken, and shows it, unless it has come with an
// error.
func (b *bundle) hold(i int, c *chunk, err error) error {
	in := &b.in
	in.mu.Lock()
	defer in.mu.Unlock()
	if errors.Is(err, ErrProtocol) {
		b.garbleLocked(err)
	}
	for in.first[i] != nil && !in.closed && in.garbled == nil {
		in.room.Wait()
	}
	switch {
	case in.closed:
		return net.ErrClosed
	case in.garbled != nil:
		return errGarbled
	case err == nil:
		in.first[i] = c
		in.moved.Broadcast()
	}
	return err
}

// garbleLocked forgets what has come.
func (b *bundle) garbleLocked(err error) {
	in := &b.in
	if in.garbled == nil {
		in.garbled = err
	}
	clear(in.first)
	in.room.Broadcast()
	in.moved.Broadcast()
}

// readChunk reads one chunk.
func (b *bundle) readChunk(conn net.Conn, c *chunk, least uint64) error {
	from := aliveReader{conn, b.alive}
	if _, err := io.ReadFull(from, c.frame[:chunkHeader]); err != nil {
		return err
	}
	c.number = binary.LittleEndian.Uint64(c.frame[:])
	n := binary.LittleEndian.Uint32(c.frame[8:])
	if n == 0 || n > chunkBytes || c.number < least {
		return fmt.Errorf("%w: a stripe brings chunk %d of %d bytes, after chunk %d", ErrProtocol, c.number, n, int64(least)-1)
	}
	c.rest = c.frame[chunkHeader:][:n]
	_, err := io.ReadFull(from, c.rest)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

type aliveReader struct {
	net.Conn
	alive func()
}

func (r aliveReader) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if n > 0 {
		r.alive()
	}
	return n, err
}

// Read waits for the chunk that is next.
func (b *bundle) Read(p []byte) (int, error) {
	in := &b.in
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		if in.expired() {
			return 0, os.ErrDeadlineExceeded
		}
		if in.garbled != nil && !in.told {
			in.told = true
			return 0, in.garbled
		}
		held := 0
		for i, c := range in.first {
			if c == nil {
				continue
			}
			if held++; c.number != in.next {
				continue
			}
			n := copy(p, c.rest)
			if c.rest = c.rest[n:]; len(c.rest) == 0 {
				in.first[i] = nil
				in.next++
				in.room.Broadcast()
			}
			return n, nil
		}
		if held >= in.left && in.err == nil { // no stripe can bring it
			if held > 0 {
				b.garbleLocked(fmt.Errorf("%w: chunk %d is missing", ErrProtocol, in.next))
				continue
			}
			in.err = io.EOF
		}
		if err := in.wait(); err != nil {
			return 0, err
		}
	}
}

// Close sends what has been written, until the deadline for writing; where none was set, it does not wait for that.
func (b *bundle) Close() error {
	o, in := &b.out, &b.in
	o.mu.Lock()
	o.closed = true
	until := o.deadline
	o.work.Broadcast()
	o.moved.Broadcast()
	o.mu.Unlock()
	if until.IsZero() {
		until = time.Now()
	}
	for _, c := range b.conns {
		_ = c.SetWriteDeadline(until)
	}
	b.writers.Wait()
	for _, c := range b.conns {
		closeAtOnce(c)
	}
	in.mu.Lock()
	in.closed = true
	in.room.Broadcast()
	in.moved.Broadcast()
	in.mu.Unlock()
	b.readers.Wait()
	o.setDeadline(time.Time{}) // stops the alarms
	in.setDeadline(time.Time{})
	return nil
}

// observe: the chunk that is next comes on a stripe from which none is held. What comes on the others is no sign that it will.
func (b *bundle) observe() (all pacing.State, ok bool) {
	b.in.mu.Lock()
	defer b.in.mu.Unlock()
	for i, c := range b.conns {
		s, known := observe(c)
		all.RTT, all.Shortest = max(all.RTT, s.RTT), max(all.Shortest, s.Shortest)
		all.Busy, all.Rate = max(all.Busy, s.Busy), all.Rate+s.Rate
		if b.in.first[i] == nil {
			all.Arrived += s.Arrived
		}
		ok = ok || known
	}
	return all, ok
}

func (b *bundle) SetReadDeadline(t time.Time) error  { b.in.setDeadline(t); return nil }
func (b *bundle) SetWriteDeadline(t time.Time) error { b.out.setDeadline(t); return nil }
func (b *bundle) SetDeadline(t time.Time) error {
	b.in.setDeadline(t)
	b.out.setDeadline(t)
	return nil
}
