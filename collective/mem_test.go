package collective

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/pacing"
)

// memPipe is one direction of an in-memory connection: a bounded buffer, like a socket's. Everything waits on one
// condition variable, which testing/synctest understands.
type memPipe struct {
	mu            sync.Mutex
	cond          *sync.Cond
	buf           []byte
	limit         int
	frozen        bool // nothing arrives; the sender's kernel takes what it has room for
	gap           bool // what arrives cannot be read: something before it is lost
	state         pacing.State
	eof           bool  // the writer has closed
	broken        error // both ends fail
	readDeadline  memDeadline
	writeDeadline memDeadline
}

type memDeadline struct {
	timer   *time.Timer
	expired bool
	turn    int
}

func newMemPipe(limit int) *memPipe {
	p := &memPipe{limit: limit}
	p.cond = sync.NewCond(&p.mu)
	return p
}

func (p *memPipe) set(d *memDeadline, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.turn++
	d.expired = false
	if !t.IsZero() {
		if wait := time.Until(t); wait <= 0 {
			d.expired = true
		} else {
			turn := d.turn
			d.timer = time.AfterFunc(wait, func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				if d.turn == turn {
					d.expired = true
					p.cond.Broadcast()
				}
			})
		}
	}
	p.cond.Broadcast()
}

func (p *memPipe) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.cond.Broadcast()
}

func (p *memPipe) read(b []byte, wait bool) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.broken != nil:
			return 0, p.broken
		case p.readDeadline.expired:
			return 0, os.ErrDeadlineExceeded
		case p.frozen || p.gap:
		case len(p.buf) > 0:
			n := copy(b, p.buf)
			p.buf = p.buf[:copy(p.buf, p.buf[n:])]
			p.cond.Broadcast()
			return n, nil
		case p.eof:
			return 0, io.EOF
		}
		if !wait {
			return 0, errNotNow
		}
		p.cond.Wait()
	}
}

func (p *memPipe) write(b []byte, wait bool) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.broken != nil:
			return n, p.broken
		case p.eof:
			return n, net.ErrClosed
		case len(b) == 0:
			return n, nil
		case p.writeDeadline.expired:
			return n, os.ErrDeadlineExceeded
		case len(p.buf) < p.limit:
			k := min(len(b), p.limit-len(p.buf))
			if !p.frozen {
				p.state.Arrived++
			}
			p.buf = append(p.buf, b[:k]...)
			b, n = b[k:], n+k
			p.cond.Broadcast()
			continue
		}
		if !wait {
			return n, errNotNow
		}
		p.cond.Wait()
	}
}

// memConn is one end of a connection.
type memConn struct {
	in, out *memPipe
	net     *memNet
	owner   id.Node
}

func memPair(limit int) (a, b *memConn) {
	x, y := newMemPipe(limit), newMemPipe(limit)
	return &memConn{in: x, out: y}, &memConn{in: y, out: x}
}

func (c *memConn) Read(b []byte) (int, error)  { return c.in.read(b, true) }
func (c *memConn) Write(b []byte) (int, error) { return c.write(b, true) }
func (c *memConn) write(b []byte, wait bool) (int, error) {
	if c.net != nil {
		c.net.mu.Lock()
		hook := c.net.onWrite
		c.net.mu.Unlock()
		if hook != nil {
			b = hook(c.owner, b)
		}
	}
	return c.out.write(b, wait)
}

// observe is what a kernel would know.
func (c *memConn) observe() (s pacing.State, ok bool) {
	c.in.change(func() { s = c.in.state })
	return s, true
}

// Close acts like a socket's: bytes that were not read turn it into a reset.
func (c *memConn) Close() error {
	unread := false
	c.in.change(func() {
		unread = len(c.in.buf) > 0
		if c.in.broken == nil {
			c.in.broken = net.ErrClosed
		}
	})
	c.out.change(func() {
		c.out.eof = true
		if unread {
			c.out.buf, c.out.broken = nil, syscall.ECONNRESET
		}
	})
	return nil
}

func (c *memConn) LocalAddr() net.Addr                { return &net.TCPAddr{} }
func (c *memConn) RemoteAddr() net.Addr               { return &net.TCPAddr{} }
func (c *memConn) SetReadDeadline(t time.Time) error  { c.in.set(&c.in.readDeadline, t); return nil }
func (c *memConn) SetWriteDeadline(t time.Time) error { c.out.set(&c.out.writeDeadline, t); return nil }
func (c *memConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// memNet carries the connections of one test: an inbox per node, and the wires between them.
type memNet struct {
	limit   int
	small   int // Config.SmallBytes
	asked   bool
	locals  *Locals
	mu      sync.Mutex
	boxes   map[id.Node]*Inbox
	wires   []wire
	stripes int // Config.Stripes
	// onWrite is called before every write, a frame's header or its payload, and may give other bytes to be written.
	onWrite func(owner id.Node, b []byte) []byte
}

// wire is one connection; its end is the dialer's.
type wire struct {
	dialer, acceptor id.Node
	conn             *memConn
}

// way is how operations go.
type way struct {
	small bool // all the short way; else all the long way
	kind  string
}

// The kinds of a way.
const (
	waited  = "waited"  // connections must be waited for
	asked   = "asked"   // connections say what they have, so callers drive
	lanes   = "lanes"   // memory besides the connections
	striped = "striped" // several connections to each neighbour; they must be waited for
)

func (m *memNet) by(w way) *memNet {
	if w.small {
		m.small = 16 << 10
	}
	m.asked = w.kind == asked
	if w.kind == striped {
		m.stripes = 3
	}
	if w.kind == lanes {
		m.locals = &Locals{}
		m.limit = max(m.limit, 8<<10) // a socket always takes a bell, also one to a process that stands still
	}
	return m
}

// everyWay runs a test in every way.
func everyWay(t *testing.T, f func(t *testing.T, w way)) {
	for _, kind := range []string{waited, asked, lanes, striped} {
		t.Run("long/"+kind, func(t *testing.T) { f(t, way{false, kind}) })
		if kind != striped { // which differs from waited below the ring only
			t.Run("short/"+kind, func(t *testing.T) { f(t, way{true, kind}) })
		}
	}
}

// askedConn is a connection that can be asked.
type askedConn struct{ *memConn }

func (c askedConn) tryRead(b []byte) (int, error) { return c.in.read(b, false) }

func (c askedConn) tryWrite(a, b []byte) (int, error) {
	n, err := c.write(a, false)
	if err == nil && len(b) > 0 {
		var k int
		k, err = c.write(b, false)
		n += k
	}
	return n, err
}

func (c askedConn) whenReadable(f func() bool) error {
	for !f() {
		if err := c.in.await(); err != nil {
			return err
		}
	}
	return nil
}

func (p *memPipe) await() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.broken == nil && (p.frozen || p.gap || len(p.buf) == 0 && !p.eof) {
		if p.readDeadline.expired {
			return os.ErrDeadlineExceeded
		}
		p.cond.Wait()
	}
	return nil
}

func newMemNet(limit int) *memNet {
	return &memNet{limit: limit, small: -1, boxes: map[id.Node]*Inbox{}}
}

func (m *memNet) box(n id.Node) *Inbox {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.boxes[n] == nil {
		m.boxes[n] = NewInbox(0, 0)
	}
	return m.boxes[n]
}

func (m *memNet) dial(from, to id.Node, key string) net.Conn {
	a, b := memPair(m.limit)
	var x, y net.Conn = a, b
	if m.asked {
		x, y = askedConn{a}, askedConn{b}
	}
	a.net, a.owner, b.net, b.owner = m, from, m, to
	m.mu.Lock()
	m.wires = append(m.wires, wire{from, to, a})
	m.mu.Unlock()
	m.box(to).Deliver(key, y)
	return x
}

// wire is one of the connections that one node has opened to another: the first, or counted on from it.
func (m *memNet) wire(from, to id.Node, i int) *memConn {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []*memConn
	for _, w := range m.wires {
		if w.dialer == from && w.acceptor == to {
			all = append(all, w.conn)
		}
	}
	return all[i%len(all)]
}

// each calls f for both directions of every wire of the node.
func (m *memNet) each(n id.Node, f func(*memPipe)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.wires {
		if c := w.conn; w.dialer == n || w.acceptor == n {
			c.in.change(func() { f(c.in) })
			c.out.change(func() { f(c.out) })
		}
	}
}

// kill resets every connection of the node, as its kernel does when the process dies.
func (m *memNet) kill(n id.Node) {
	m.each(n, func(p *memPipe) { p.buf, p.broken = nil, syscall.ECONNRESET })
}

// freeze stops every byte to and from the node, without a word.
func (m *memNet) freeze(n id.Node) { m.each(n, func(p *memPipe) { p.frozen = true }) }

// cut stops every byte that one node sends to another, and none that it hears.
func (m *memNet) cut(from, to id.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.wires {
		c := w.conn
		if w.dialer == from && w.acceptor == to {
			c.out.change(func() { c.out.frozen = true })
		} else if w.dialer == to && w.acceptor == from {
			c.in.change(func() { c.in.frozen = true })
		}
	}
}

func (m *memNet) hook(f func(owner id.Node, b []byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onWrite = f
}

func nodeName(rank int) id.Node { return id.Node(fmt.Sprintf("n%d", rank)) }

func (m *memNet) config(rank, world int) Config {
	cfg := Config{Run: "test", View: 7, Rank: rank, ChunkBytes: 64, SmallBytes: m.small, Locals: m.locals, laneBytes: 256, Stripes: m.stripes, drivePolls: 4, Log: zerolog.Nop()}
	for i := range world {
		cfg.Peers = append(cfg.Peers, Peer{Node: nodeName(i), Addr: "mem"})
	}
	self := nodeName(rank)
	cfg.Dial = func(_ context.Context, to Peer) (net.Conn, error) {
		return m.dial(self, to.Node, InboxKey(cfg.Run, cfg.View)), nil
	}
	cfg.Accept = func(ctx context.Context) (net.Conn, error) {
		return m.box(self).Accept(ctx, InboxKey(cfg.Run, cfg.View))
	}
	return cfg
}

// joinAll makes a whole ring; the rings close with the test.
func joinAll(t testing.TB, world int, config func(rank int) Config) []*Ring {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	rings, errs := make([]*Ring, world), make([]error, world)
	var wg sync.WaitGroup
	for i := range world {
		wg.Go(func() { rings[i], errs[i] = Join(ctx, config(i)) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		for _, r := range rings {
			if r != nil {
				r.Abort(err)
			}
		}
		t.Fatal(err)
	}
	return rings
}

func closeAll(rings []*Ring) {
	var wg sync.WaitGroup
	for _, r := range rings {
		wg.Go(func() { _ = r.Close() })
	}
	wg.Wait()
}

// onAll runs f on every rank at once.
func onAll(rings []*Ring, f func(rank int, r *Ring) error) []error {
	errs := make([]error, len(rings))
	var wg sync.WaitGroup
	for i, r := range rings {
		wg.Go(func() { errs[i] = f(i, r) })
	}
	wg.Wait()
	return errs
}

// tcpConfigs gives every rank a listener on loopback.
func tcpConfigs(t testing.TB, world int) func(rank int) Config {
	t.Helper()
	peers := make([]Peer, world)
	listeners := make([]net.Listener, world)
	for i := range world {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[i] = l
		peers[i] = Peer{Node: nodeName(i), Addr: l.Addr().String()}
		t.Cleanup(func() { _ = l.Close() })
	}
	return func(rank int) Config {
		return Config{
			Run: "tcp", View: 3, Rank: rank, Peers: peers, Log: zerolog.Nop(),
			Heartbeat: 100 * time.Millisecond, DeadAfter: 5 * time.Second, // the machine may be busy
			Dial: func(ctx context.Context, to Peer) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "tcp", to.Addr)
			},
			Accept: func(context.Context) (net.Conn, error) { return listeners[rank].Accept() },
		}
	}
}
