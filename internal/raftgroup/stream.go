package raftgroup

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/musterml/muster/internal/port"
)

// stream is raft's StreamLayer: connections to and from the topics of replicas.
//
// It keeps count of every connection, because raft's transport does not: at the
// end it closes them all, which ends whatever reads and writes on them, and
// waits until raft has let go of each.
type stream struct {
	group string
	self  Replica
	port  port.Network
	dial  time.Duration        // for one connection
	find  func(Replica) string // nil: its address

	ctx      context.Context // ends when Close begins
	cancel   context.CancelFunc
	accepted chan net.Conn

	mu      sync.Mutex
	severed bool // only the replica itself is still connected
	conns   map[*tracked]struct{}
	wg      sync.WaitGroup // one for each of conns
}

func newStream(cfg *Config) *stream {
	ctx, cancel := context.WithCancel(context.Background())
	return &stream{
		group: cfg.Group, self: cfg.Self, port: cfg.Port, dial: cfg.Timing.DialTimeout, find: cfg.Locate,
		ctx: ctx, cancel: cancel,
		accepted: make(chan net.Conn),
		conns:    make(map[*tracked]struct{}),
	}
}

// tracked is a connection whose Close is noticed.
type tracked struct {
	net.Conn
	owner *stream
	once  sync.Once
	done  chan struct{} // closed by Close
}

// track takes conn over; it is closed at once when the stream is closed.
func (s *stream) track(conn net.Conn) (*tracked, error) {
	t := &tracked{Conn: conn, owner: s, done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil || s.severed && !isPipe(conn) {
		_ = conn.Close() // nothing was said on it
		return nil, net.ErrClosed
	}
	s.conns[t] = struct{}{}
	s.wg.Add(1)
	return t, nil
}

// Close may be called more than once, as raft does.
func (t *tracked) Close() error {
	err := t.Conn.Close()
	t.once.Do(func() {
		t.owner.mu.Lock()
		delete(t.owner.conns, t)
		t.owner.mu.Unlock()
		close(t.done)
		t.owner.wg.Done()
	})
	return err
}

// handle is the port's handler. It stays until raft has closed the connection,
// so that the port, too, knows of it for as long as it lives.
func (s *stream) handle(conn net.Conn, _ port.Peer) {
	t, err := s.track(conn)
	if err != nil {
		return
	}
	if s.offer(s.ctx, t) {
		<-t.done
	}
}

// offer hands t to Accept, or closes it when nobody takes it in time.
func (s *stream) offer(ctx context.Context, t *tracked) bool {
	select {
	case s.accepted <- t:
		return true
	case <-ctx.Done():
		_ = t.Close() // nothing was said on it
		return false
	}
}

// Accept implements net.Listener for raft's transport.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case conn := <-s.accepted:
		return conn, nil
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Dial implements raft.StreamLayer. The timeout that raft gives is that of a
// whole message; a connection that takes longer than ours is not worth waiting
// for.
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	to, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, min(s.dial, timeout))
	defer cancel()
	if to.ServerID() == s.self.ServerID() {
		return s.dialSelf(ctx)
	}
	addr := to.Addr
	if s.find != nil {
		addr = s.find(to)
	}
	conn, err := s.port.Dial(ctx, addr, port.Raft, topic(s.group, to))
	if err != nil {
		return nil, err
	}
	return s.track(conn)
}

// dialSelf connects the replica to itself without the network, which may not
// lead back here (address translation); Campaign comes this way.
func (s *stream) dialSelf(ctx context.Context) (net.Conn, error) {
	a, b := net.Pipe()
	near, err := s.track(a)
	if err != nil {
		return nil, err
	}
	far, err := s.track(b)
	if err != nil {
		_ = near.Close() // nothing was said on it
		return nil, err
	}
	if !s.offer(ctx, far) {
		_ = near.Close() // likewise
		return nil, fmt.Errorf("dial %s: %w", s.self, context.Cause(ctx))
	}
	return near, nil
}

func isPipe(conn net.Conn) bool { return conn.LocalAddr().Network() == "pipe" }

// sever ends every connection to others, now and from now on.
func (s *stream) sever() {
	s.mu.Lock()
	s.severed = true
	s.mu.Unlock()
	s.breakOff(func(t *tracked) bool { return !isPipe(t.Conn) })
}

// Close ends every connection and pending call. It does not wait.
func (s *stream) Close() error {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.breakOff(func(*tracked) bool { return true })
	return nil
}

// breakOff closes the connections below raft, which then lets go of them.
func (s *stream) breakOff(which func(*tracked) bool) {
	s.mu.Lock()
	var conns []*tracked
	for t := range s.conns {
		if which(t) {
			conns = append(conns, t)
		}
	}
	s.mu.Unlock()
	for _, t := range conns {
		// Only the far side could have something to say about how it ends.
		_ = t.Conn.Close()
	}
}

// Wait returns when raft has let go of every connection after Close.
func (s *stream) Wait() {
	s.wg.Wait()
}

// Addr implements net.Listener; raft takes its own ServerAddress from it.
func (s *stream) Addr() net.Addr { return address(s.self.ServerAddress()) }

type address raft.ServerAddress

func (a address) Network() string { return "muster" }
func (a address) String() string  { return string(a) }
