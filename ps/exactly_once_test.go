package ps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/internal/raftgroup"
)

// unruly is a network in memory that delays every write, hands over only part of some,
// and cuts connections in the middle of them.
type unruly struct {
	mu       sync.Mutex
	random   *rand.Rand
	calm     bool
	handlers map[string]port.Handler // by address, protocol and topic
	cuts     int
}

// host is the network as one node sees it; it implements port.Network.
type host struct {
	net  *unruly
	addr string
}

func key(addr string, proto port.Protocol, topic string) string {
	return fmt.Sprint(addr, "/", proto, "/", topic)
}

func (h host) Handle(proto port.Protocol, topic string, handle port.Handler) (remove func()) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	k := key(h.addr, proto, topic)
	h.net.handlers[k] = handle
	return func() {
		h.net.mu.Lock()
		defer h.net.mu.Unlock()
		delete(h.net.handlers, k)
	}
}

func (h host) Dial(ctx context.Context, addr string, proto port.Protocol, topic string) (net.Conn, error) {
	u := h.net
	u.mu.Lock()
	handle := u.handlers[key(addr, proto, topic)]
	u.mu.Unlock()
	if handle == nil || ctx.Err() != nil {
		return nil, errors.New("nobody there")
	}
	near, far := net.Pipe()
	go handle(u.conn(far), port.Peer{Topic: topic})
	return u.conn(near), nil
}

// fate decides about a write: how long it is on its way, and how much of it arrives
// before the connection is cut; all of n where it is not.
func (u *unruly) fate(n int) (delay time.Duration, arrives int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.calm {
		return 0, n
	}
	switch p := u.random.IntN(100); {
	case p < 2:
		u.cuts++
		return 0, u.random.IntN(n + 1)
	case p < 30:
		return time.Duration(u.random.IntN(20_000)) * time.Microsecond, n
	}
	return time.Duration(u.random.IntN(200)) * time.Microsecond, n
}

// unrulyConn is one end of a pipe. As on TCP, a write returns before it has arrived.
type unrulyConn struct {
	net.Conn
	net    *unruly
	once   sync.Once
	closed chan struct{}
	queued chan struct{} // capacity 1

	mu    sync.Mutex
	queue [][]byte
}

func (u *unruly) conn(c net.Conn) *unrulyConn {
	w := &unrulyConn{Conn: c, net: u, closed: make(chan struct{}), queued: make(chan struct{}, 1)}
	go w.deliver()
	return w
}

func (c *unrulyConn) Write(b []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	c.mu.Lock()
	c.queue = append(c.queue, bytes.Clone(b))
	c.mu.Unlock()
	poke(c.queued)
	return len(b), nil
}

func (c *unrulyConn) deliver() {
	defer func() { _ = c.Close() }()
	for {
		c.mu.Lock()
		queue := c.queue
		c.queue = nil
		c.mu.Unlock()
		for _, b := range queue {
			delay, n := c.net.fate(len(b))
			if delay > 0 { // a timer that has run out when it is asked can crash Go 1.26's race detector in a bubble of synctest
				select {
				case <-time.After(delay):
				case <-c.closed:
					return
				}
			}
			if _, err := c.Conn.Write(b[:n]); err != nil || n < len(b) {
				return
			}
		}
		select {
		case <-c.queued:
		case <-c.closed:
			return
		}
	}
}

func (c *unrulyConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// A write never waits, so its deadline is that of the reading side's patience.
func (c *unrulyConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *unrulyConn) SetWriteDeadline(time.Time) error { return nil }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }

func (*unrulyConn) LocalAddr() net.Addr  { return memoryAddr{} }
func (*unrulyConn) RemoteAddr() net.Addr { return memoryAddr{} }

// TestExactlyOnce trains over a network that delays, tears and cuts what trainers, servers
// and replicas say to each other, and has every gradient pushed twice over connections of its own, so
// that requests and answers come in any order, late and again. Whatever
// happens, the state on every replica is to the bit that of an undisturbed run.
//
// MUSTER_SEEDS=n makes it n seeds.
func TestExactlyOnce(t *testing.T) { overSeeds(t, 60, exactlyOnce) }

// overSeeds runs a test over an unruly network for so many seeds, or as many as MUSTER_SEEDS says.
func overSeeds(t *testing.T, seeds int, test func(t *testing.T, seed uint64) (cuts int)) {
	if s := os.Getenv("MUSTER_SEEDS"); s != "" {
		var err error
		if seeds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	if testing.Short() {
		seeds = min(seeds, 10)
	}
	cuts := 0
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) { cuts += test(t, uint64(seed)) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d seeds, %d connections cut in the middle of a message", seeds, cuts)
	if cuts < seeds {
		t.Error("hardly anything was disturbed")
	}
}

// onUnruly starts three servers on an unruly network, and gives clients of some of them; stop ends the servers.
func onUnruly(t *testing.T, seed uint64, layout Layout, opt optim.Config) (u *unruly, all []raftgroup.Replica, client func(of ...raftgroup.Replica) *Client, stop func()) {
	u = &unruly{random: rand.New(rand.NewPCG(seed, 3)), handlers: map[string]port.Handler{}}
	for _, name := range []id.Node{"a", "b", "c"} {
		all = append(all, raftgroup.Replica{Node: name, Incarnation: id.Incarnation(name) + "1", Addr: string(name) + ":1"})
	}
	var servers []*Server
	for _, r := range all {
		s, err := NewServer(ServerConfig{
			Self: r, Layout: layout, Optimizer: testOptimizer(t, opt), Dir: t.TempDir(), Port: host{u, r.Addr}, Log: zerolog.Nop(), Half: upperHalves{},
			LogLimit: 4000, // so that the log is cut and states are sent, too
		})
		if err != nil {
			t.Fatal(err)
		}
		for shard := range layout.Shards {
			if err := s.Start(id.ParamShard(shard), all); err != nil {
				t.Fatal(err)
			}
		}
		servers = append(servers, s)
	}
	client = func(of ...raftgroup.Replica) *Client {
		c, err := NewClient(ClientConfig{
			Layout: layout, OptimizerSlots: testOptimizer(t, opt).Slots(), Half: halfOf(seed), MaxRequest: 600, // several requests a shard
			Replicas: func(id.ParamShard) (addrs []string) {
				for _, r := range of {
					addrs = append(addrs, r.Addr)
				}
				return addrs
			},
			Dial: func(ctx context.Context, addr, topic string) (net.Conn, error) {
				return host{u, "trainer:1"}.Dial(ctx, addr, port.Params, topic)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return u, all, client, func() {
		for _, s := range servers {
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
		}
	}
}

// halfOf has values travel in half the bytes with every second seed.
func halfOf(seed uint64) Half {
	if seed%2 == 0 {
		return nil
	}
	return upperHalves{}
}

// quiet ends what the network does to messages.
func (u *unruly) quiet() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.calm = true
}

func exactlyOnce(t *testing.T, seed uint64) (cuts int) {
	layout := Layout{Params: 100, BlockSize: 8, Shards: 2}
	opt := optim.Config{Name: "adam", LR: 0.01}
	u, all, client, stop := onUnruly(t, seed, layout, opt)
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // of the bubble's time
	defer cancel()
	one, two := client(all...), client(all...)
	o := newOracle(t, opt, layout.Params)
	blocks := id.Block(layout.Blocks())
	if err := one.Put(ctx, 0, 0, 0, blocks, o.state()); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		grad := gradient(o.step, layout.Params)
		var pushes sync.WaitGroup
		got := [2][]float32{make([]float32, layout.Params), make([]float32, layout.Params)}
		for i, c := range []*Client{one, two} {
			pushes.Go(func() {
				if err := c.Push(ctx, o.step, 0, blocks, grad, got[i]); err != nil {
					t.Errorf("push of step %d: %v", o.step, err)
				}
			})
		}
		pushes.Wait()
		if t.Failed() {
			break
		}
		o.push(cutOff(halfOf(seed), grad))
		sameBits(t, "the one answer", got[0], cutOff(halfOf(seed), o.w))
		sameBits(t, "the other answer", got[1], cutOff(halfOf(seed), o.w))
	}
	u.quiet()
	for _, r := range all {
		c, state := client(r), emptyState(layout.Params, 2)
		if err := c.Pull(ctx, o.step, 0, blocks, state); err != nil {
			t.Errorf("%s: %v", r.Node, err)
		} else {
			sameBits(t, string(r.Node), state.W, o.w)
			sameBits(t, string(r.Node)+"'s first slot", state.Slots[0], o.slots[0])
			sameBits(t, string(r.Node)+"'s second slot", state.Slots[1], o.slots[1])
		}
		_ = c.Close()
	}
	_ = one.Close()
	_ = two.Close()
	return u.cuts
}
