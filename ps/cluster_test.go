package ps

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/internal/raftgroup"
)

// testNode is one life of a server process: a port and the shards on it.
type testNode struct {
	self   raftgroup.Replica
	port   *port.Port
	server *Server
}

// testCluster is a set of nodes on loopback. Every node hosts every shard.
type testCluster struct {
	t      testing.TB
	layout Layout
	opt    optim.Config
	key    []byte
	tweak  func(*ServerConfig)
	stop   func() // the reconciling goroutine

	mu    sync.Mutex
	lives int
	nodes map[id.Node]*testNode
	names []id.Node
}

func testOptimizer(t testing.TB, c optim.Config) optim.Optimizer {
	t.Helper()
	o, err := optim.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func newTestCluster(t testing.TB, n int, l Layout, opt optim.Config, tweak func(*ServerConfig)) *testCluster {
	t.Helper()
	return newKeyedCluster(t, n, l, opt, nil, tweak)
}

// newKeyedCluster is a cluster that talks TLS when there is a key.
func newKeyedCluster(t testing.TB, n int, l Layout, opt optim.Config, key []byte, tweak func(*ServerConfig)) *testCluster {
	t.Helper()
	c := &testCluster{t: t, layout: l, opt: opt, key: key, tweak: tweak, nodes: map[id.Node]*testNode{}}
	var found []raftgroup.Replica
	for i := range n {
		name := id.Node(fmt.Sprintf("node-%c", 'a'+i))
		c.names = append(c.names, name)
		found = append(found, c.up(name).self)
	}
	for _, name := range c.names {
		for s := range l.Shards {
			var f []raftgroup.Replica
			if name == c.names[0] {
				f = found
			}
			if err := c.nodes[name].server.Start(id.ParamShard(s), f); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				for _, s := range c.live() {
					s.server.Reconcile(func(id.ParamShard) []raftgroup.Replica { return c.want() })
				}
			}
		}
	}()
	c.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(func() {
		c.stop()
		for _, n := range c.live() {
			c.kill(n.self.Node)
		}
	})
	return c
}

// up makes a fresh life of a node without starting its shards.
func (c *testCluster) up(name id.Node) *testNode {
	c.t.Helper()
	log := zerolog.Nop()
	if testing.Verbose() {
		log = zerolog.New(zerolog.NewTestWriter(c.t)).Level(zerolog.WarnLevel)
	}
	p, err := port.Listen(port.Config{Listen: "127.0.0.1:0", Node: name, Cluster: "test", Job: [32]byte{1}, Key: c.key, Log: zerolog.Nop()})
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lives++
	n := &testNode{port: p, self: raftgroup.Replica{
		Node: name, Incarnation: id.Incarnation(fmt.Sprintf("life%d", c.lives)), Addr: p.Addr(),
	}}
	cfg := ServerConfig{
		Self: n.self, Layout: c.layout, Optimizer: testOptimizer(c.t, c.opt), Dir: c.t.TempDir(), Port: p, Log: log,
	}
	if c.tweak != nil {
		c.tweak(&cfg)
	}
	if n.server, err = NewServer(cfg); err != nil {
		c.t.Fatal(err)
	}
	c.nodes[name] = n
	return n
}

// restart brings a killed node back under a new incarnation, with an empty log.
func (c *testCluster) restart(name id.Node) {
	c.t.Helper()
	n := c.up(name)
	for s := range c.layout.Shards {
		if err := n.server.Start(id.ParamShard(s), nil); err != nil {
			c.t.Fatal(err)
		}
	}
}

// kill ends a node as a crash would; the others are told, as gossip would.
func (c *testCluster) kill(name id.Node) {
	c.mu.Lock()
	n := c.nodes[name]
	delete(c.nodes, name)
	c.mu.Unlock()
	if n == nil {
		return
	}
	if err := n.server.Stop(); err != nil {
		c.t.Errorf("stop %s: %v", name, err)
	}
	_ = n.port.Close()
	for _, other := range c.live() {
		other.server.LeaderGone(name)
	}
}

func (c *testCluster) live() []*testNode {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*testNode
	for _, name := range c.names {
		if n := c.nodes[name]; n != nil {
			all = append(all, n)
		}
	}
	return all
}

// want is the placement: every node, in its present life if it has one.
func (c *testCluster) want() []raftgroup.Replica {
	var all []raftgroup.Replica
	for _, n := range c.live() {
		all = append(all, n.self)
	}
	return all
}

func (c *testCluster) client(tweak func(*ClientConfig)) *Client {
	c.t.Helper()
	p, err := port.Listen(port.Config{Listen: "127.0.0.1:0", Node: "trainer", Cluster: "test", Job: [32]byte{1}, Key: c.key, Log: zerolog.Nop()})
	if err != nil {
		c.t.Fatal(err)
	}
	cfg := ClientConfig{
		Layout: c.layout, OptimizerSlots: testOptimizer(c.t, c.opt).Slots(),
		Replicas: func(id.ParamShard) []string {
			var a []string
			for _, n := range c.live() {
				a = append(a, n.self.Addr)
			}
			return a
		},
		Dial: func(ctx context.Context, addr, topic string) (net.Conn, error) {
			return p.Dial(ctx, addr, port.Params, topic)
		},
	}
	if tweak != nil {
		tweak(&cfg)
	}
	client, err := NewClient(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = client.Close(); _ = p.Close() })
	return client
}

// leader is the node that leads the shard, "" if none says so now.
func (c *testCluster) leader(shard id.ParamShard) id.Node {
	for _, n := range c.live() {
		for _, s := range n.server.Status() {
			if s.Shard == shard && s.Role == "leader" {
				return n.self.Node
			}
		}
	}
	return ""
}

// eventually polls a condition; the test fails when it does not come true in time.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

// oracle is the model as one machine would train it.
type oracle struct {
	opt   optim.Optimizer
	step  id.Step
	w     []float32
	slots [][]float32
}

func newOracle(t testing.TB, c optim.Config, params int) *oracle {
	o := &oracle{opt: testOptimizer(t, c), w: gradient(999, params)}
	for range o.opt.Slots() {
		o.slots = append(o.slots, make([]float32, params))
	}
	return o
}

func (o *oracle) state() State { return State{W: o.w, Slots: o.slots} }

func (o *oracle) push(grad []float32) {
	o.opt.Update(o.step, o.w, grad, o.slots)
	o.step++
}

// gradient is a pure function of the step, so that a repeated push is the same push.
func gradient(step id.Step, n int) []float32 {
	r := rand.New(rand.NewPCG(uint64(step), 7))
	g := make([]float32, n)
	for i := range g {
		g[i] = float32(r.NormFloat64())
	}
	return g
}

func sameBits(t testing.TB, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: value %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

func emptyState(params, slots int) State {
	s := State{W: make([]float32, params)}
	for range slots {
		s.Slots = append(s.Slots, make([]float32, params))
	}
	return s
}
