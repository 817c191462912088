package ps

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/internal/raftgroup"
)

func optimizers() map[string]optim.Config {
	return map[string]optim.Config{
		"sgd":      {Name: "sgd", LR: 0.1},
		"momentum": {Name: "sgd", LR: 0.05, Momentum: 0.9, WeightDecay: 1e-3},
		"adam":     {Name: "adam", LR: 1e-2},
	}
}

func testContext(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// checkAll compares the servers' whole state at the oracle's step with the oracle, and
// the replicas with each other.
func checkAll(t testing.TB, c *testCluster, client *Client, o *oracle) {
	t.Helper()
	ctx := testContext(t, 10*time.Second)
	blocks := id.Block(c.layout.Blocks())
	got := emptyState(c.layout.Params, o.opt.Slots())
	if err := client.Pull(ctx, o.step, 0, blocks, got); err != nil {
		t.Fatal(err)
	}
	sameBits(t, "W", got.W, o.w)
	for k := range o.slots {
		sameBits(t, "slot", got.Slots[k], o.slots[k])
	}
	for s := range c.layout.Shards {
		shard := id.ParamShard(s)
		var first [32]byte
		for i, n := range c.live() {
			var sum [32]byte
			eventually(t, string(n.self.Node)+" holds the step", func() bool {
				var err error
				sum, err = n.server.Digest(shard, o.step)
				return err == nil
			})
			if i == 0 {
				first = sum
			}
			if sum != first {
				t.Fatalf("%v: digest of %s differs", shard, n.self.Node)
			}
		}
	}
}

func TestPushPullEqualsOracle(t *testing.T) {
	for name, conf := range optimizers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := Layout{Params: 10_007, BlockSize: 256, Shards: 3}
			var key []byte
			if name == "adam" {
				key = []byte("a key, so that one of the three goes over TLS")
			}
			c := newKeyedCluster(t, 3, l, conf, key, nil)
			client := c.client(func(c *ClientConfig) { c.MaxRequest = 8 << 10 })
			ctx := testContext(t, 20*time.Second)
			blocks := id.Block(l.Blocks())
			o := newOracle(t, conf, l.Params)
			if err := client.Put(ctx, 0, 0, 0, blocks, o.state()); err != nil {
				t.Fatal(err)
			}
			w := make([]float32, l.Params)
			for range 10 {
				g := gradient(o.step, l.Params)
				// Two trainers, each with its part of the blocks.
				mid := id.Block(17)
				_, cut := l.span(0, mid)
				var wg sync.WaitGroup
				for _, part := range []struct {
					first, last id.Block
					lo, hi      int
				}{{0, mid, 0, cut}, {mid, blocks, cut, l.Params}} {
					wg.Go(func() {
						if err := client.Push(ctx, o.step, part.first, part.last, g[part.lo:part.hi], w[part.lo:part.hi]); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				o.push(g)
				sameBits(t, "pushed", w, o.w)
			}
			// The step before is still held, and a repeated push changes nothing.
			if err := client.Pull(ctx, o.step-1, 0, blocks, State{W: w}); err != nil {
				t.Fatal(err)
			}
			if err := client.Push(ctx, o.step-1, 0, blocks, gradient(12345, l.Params), w); err != nil {
				t.Fatal(err)
			}
			sameBits(t, "repeated push", w, o.w)
			if step, ok, err := client.Complete(ctx); err != nil || !ok || step != o.step {
				t.Fatalf("complete: %v, %v, %v; want step %d", step, ok, err, o.step)
			}
			checkAll(t, c, client, o)
		})
	}
}

// TestPutKeeps is mode ring: the state is stored every few steps, and while a later one
// is stored in part the earlier one stays complete.
func TestPutKeeps(t *testing.T) {
	l := Layout{Params: 1000, BlockSize: 64, Shards: 2}
	conf := optimizers()["adam"]
	c := newTestCluster(t, 3, l, conf, nil)
	client := c.client(nil)
	ctx := testContext(t, 20*time.Second)
	if _, ok, err := client.Complete(ctx); err != nil || ok {
		t.Fatalf("an empty model is complete: %v, %v", ok, err)
	}
	blocks := id.Block(l.Blocks())
	a, b := newOracle(t, conf, l.Params), newOracle(t, conf, l.Params)
	b.push(gradient(1, l.Params))
	put := func(step, keep id.Step, first, last id.Block, o *oracle) {
		t.Helper()
		lo, hi := l.span(first, last)
		s := State{W: o.w[lo:hi]}
		for _, slot := range o.slots {
			s.Slots = append(s.Slots, slot[lo:hi])
		}
		if err := client.Put(ctx, step, keep, first, last, s); err != nil {
			t.Fatal(err)
		}
	}
	complete := func(want id.Step) {
		t.Helper()
		if step, ok, err := client.Complete(ctx); err != nil || !ok || step != want {
			t.Fatalf("complete: %v, %v, %v; want %v", step, ok, err, want)
		}
	}
	put(10, 0, 0, blocks, a)
	put(20, 10, 0, 5, b)
	complete(10)
	put(30, 10, 0, 5, b) // step 20 was given up
	complete(10)
	put(30, 10, 5, blocks, b)
	complete(30)
	put(20, 10, 0, blocks, a) // too late: ignored
	b.step = 30
	checkAll(t, c, client, b)
	if err := client.Pull(ctx, 20, 0, 1, State{W: make([]float32, 64)}); !errors.Is(err, ErrGone) {
		t.Fatalf("pull of a step given up: %v", err)
	}
}

func TestTypedRefusals(t *testing.T) {
	l := Layout{Params: 1000, BlockSize: 64, Shards: 2}
	conf := optimizers()["momentum"]
	c := newTestCluster(t, 1, l, conf, nil)
	client := c.client(nil)
	ctx := testContext(t, 10*time.Second)
	blocks := id.Block(l.Blocks())
	g, w := make([]float32, l.Params), make([]float32, l.Params)
	if err := client.Push(ctx, 0, 0, blocks, g, w); !errors.Is(err, ErrGap) {
		t.Fatalf("push before any state: %v", err)
	}
	o := newOracle(t, conf, l.Params)
	if err := client.Put(ctx, 5, 0, 0, blocks, o.state()); err != nil {
		t.Fatal(err)
	}
	err := client.Push(ctx, 7, 0, blocks, g, w)
	var gap *StepError
	if !errors.As(err, &gap) || !errors.Is(err, ErrGap) || gap.Newest != 5 || gap.Step != 7 {
		t.Fatalf("push beyond the state: %v", err)
	}
	if err := client.Push(ctx, 3, 0, blocks, g, w); !errors.Is(err, ErrGone) {
		t.Fatalf("push of long ago: %v", err)
	}
	for _, bad := range []error{
		client.Push(ctx, 5, 0, blocks+1, g, w),
		client.Push(ctx, 5, 3, 3, nil, nil),
		client.Push(ctx, 5, 0, blocks, g[1:], w),
		client.Pull(ctx, 5, 0, blocks, State{W: w, Slots: [][]float32{w[1:]}}),
		client.Put(ctx, 6, 5, 0, blocks, State{W: w}),
	} {
		if !errors.Is(bad, ErrRefused) {
			t.Errorf("bad call: %v", bad)
		}
	}
	// A client with another layout than the servers is refused by them.
	other := c.client(func(c *ClientConfig) { c.Layout.BlockSize = 32 })
	if err := other.Push(ctx, 5, 0, id.Block(other.cfg.Layout.Blocks()), g, w); !errors.Is(err, ErrRefused) {
		t.Errorf("client of another layout: %v", err)
	}
	checkAll(t, c, client, &oracle{opt: o.opt, step: 5, w: o.w, slots: o.slots})
}

// TestLeaderKills trains while leaders are killed at random moments and come back under
// a new incarnation with an empty log: nothing is lost and nothing done twice.
func TestLeaderKills(t *testing.T) {
	l := Layout{Params: 60_000, BlockSize: 1024, Shards: 2}
	conf := optimizers()["momentum"]
	c := newTestCluster(t, 3, l, conf, func(s *ServerConfig) { s.LogLimit = 1 << 20 })
	client := c.client(func(c *ClientConfig) { c.MaxRequest = 32 << 10 })
	ctx := testContext(t, 60*time.Second)
	blocks := id.Block(l.Blocks())
	o := newOracle(t, conf, l.Params)
	if err := client.Put(ctx, 0, 0, 0, blocks, o.state()); err != nil {
		t.Fatal(err)
	}
	killed := make(chan struct{})
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	go func() {
		defer close(killed)
		for i := range 4 {
			eventually(t, "three voters and a leader", func() bool { return c.whole() })
			select {
			case <-time.After(time.Duration(r.IntN(int(100 * time.Millisecond)))):
			case <-ctx.Done():
				return
			}
			name := c.leader(id.ParamShard(i % l.Shards))
			if name == "" {
				continue
			}
			c.kill(name)
			c.restart(name)
		}
	}()
	w := make([]float32, l.Params)
	var longest time.Duration
	for busy := true; busy; {
		select {
		case <-killed:
			busy = false
		default:
		}
		g := gradient(o.step, l.Params)
		t0 := time.Now()
		if err := client.Push(ctx, o.step, 0, blocks, g, w); err != nil {
			t.Fatal(err)
		}
		longest = max(longest, time.Since(t0))
		o.push(g)
		sameBits(t, "pushed", w, o.w)
	}
	eventually(t, "three voters again", func() bool { return c.whole() })
	checkAll(t, c, client, o)
	t.Logf("%d steps, the longest %v", o.step, longest)
}

// whole says that in every shard somebody leads, and that everybody knows that every
// node votes in its present life: what only the leader knows may not be agreed yet.
func (c *testCluster) whole() bool {
	want := c.want()
	leaders, agreed := 0, 0
	for _, n := range c.live() {
		for _, st := range n.server.Status() {
			if st.Role == "leader" {
				leaders++
			}
			if len(st.Learners) == 0 && len(st.Voters) == len(want) &&
				!slices.ContainsFunc(want, func(r raftgroup.Replica) bool { return !slices.Contains(st.Voters, r) }) {
				agreed++
			}
		}
	}
	shards := c.layout.Shards
	return len(want) == len(c.names) && leaders == shards && agreed == shards*len(want)
}

func TestNoMajority(t *testing.T) {
	l := Layout{Params: 1000, BlockSize: 64, Shards: 1}
	conf := optimizers()["sgd"]
	c := newTestCluster(t, 3, l, conf, nil)
	client := c.client(nil)
	ctx := testContext(t, 20*time.Second)
	blocks := id.Block(l.Blocks())
	o := newOracle(t, conf, l.Params)
	if err := client.Put(ctx, 0, 0, 0, blocks, o.state()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the survivor has it", func() bool {
		_, err := c.live()[2].server.Digest(0, 0)
		return err == nil
	})
	c.stop() // or the placement would shrink to the survivor
	c.kill("node-a")
	c.kill("node-b")
	short, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
	defer cancel()
	w := make([]float32, l.Params)
	asked := make(chan error, 1)
	go func() { asked <- client.Push(short, 0, 0, blocks, gradient(0, l.Params), w) }()
	eventually(t, "the wait has a name", func() bool {
		what, _, _, ok := client.Waiting()
		return ok && strings.Contains(what, "push of step 0") && strings.Contains(what, "shard-0")
	})
	err := <-asked
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("push without a majority: %v", err)
	}
	for _, want := range []string{"push of step 0", "shard-0", "leader", "last:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not mention %q", err, want)
		}
	}
	t.Log(err)
	// What was committed can still be read from the survivor.
	if err := client.Pull(ctx, 0, 0, blocks, State{W: w}); err != nil {
		t.Fatal(err)
	}
	sameBits(t, "survivor", w, o.w)
}
