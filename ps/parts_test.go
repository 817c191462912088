package ps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	pb "github.com/musterml/muster/proto"
)

// naiveParts is one block as the promise has it: the optimizer does what comes, each (step, part) once.
type naiveParts struct {
	opt    optim.Optimizer
	w      []float32
	slots  [][]float32
	clocks []id.Step
}

func (n *naiveParts) push(step id.Step, of []id.LogicalShard, grad []float32) pb.ParamAnswer_Status {
	done, now := 0, 0
	for _, p := range of {
		switch {
		case n.clocks[p] > step:
			done++
		case n.clocks[p] == step:
			now++
		default:
			return pb.ParamAnswer_GAP
		}
	}
	switch {
	case now == 0:
		return pb.ParamAnswer_OK
	case done > 0:
		return pb.ParamAnswer_SPLIT
	}
	r := n.opt.Share(step, float64(len(of))/float64(len(n.clocks)))
	r.Apply(n.w, n.slots, n.w, grad, n.slots)
	for _, p := range of {
		n.clocks[p]++
	}
	return pb.ParamAnswer_OK
}

// Pushes of any logical shards at any step on any blocks, repeated, too early and overlapping: a state does with each what the
// naive blocks do, over snapshots, and changes nothing where one of the blocks refuses.
func TestRandomParts(t *testing.T) {
	l := Layout{Params: 1003, BlockSize: 32, Shards: 2, Parts: 5}
	const shard, steps = id.ParamShard(1), id.Step(4)
	for name, c := range optimizers() {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(3, 5))
			s := testState(t, l, shard, c)
			o := newOracle(t, c, l.Params)
			all := id.Block(l.Blocks())
			s.apply(1, put(0, 0, 0, all), part(l, shard, 0, all, append([][]float32{o.w}, o.slots...)...))
			var naive []*naiveParts
			for i := range l.own(shard) {
				lo, hi := l.Range(l.block(shard, i))
				n := &naiveParts{opt: o.opt, w: slices.Clone(o.w[lo:hi]), clocks: make([]id.Step, l.Parts)}
				for _, slot := range o.slots {
					n.slots = append(n.slots, slices.Clone(slot[lo:hi]))
				}
				naive = append(naive, n)
			}
			seen := map[pb.ParamAnswer_Status]int{}
			index := uint64(1)
			for slices.ContainsFunc(naive, func(n *naiveParts) bool { return slices.Min(n.clocks) < steps }) {
				index++
				of := randomParts(r, l.Parts)
				first := id.Block(r.IntN(int(all)))
				last := first + 1 + id.Block(r.IntN(int(all-first)))
				i0, i1 := l.local(shard, first, last)
				if i0 == i1 {
					continue
				}
				step := min(steps-1, naive[i0].clocks[of[0]]+id.Step(r.IntN(10)/9)) // mostly one that is due
				g := gradient(step+100*id.Step(index), l.Params)
				e := push(step, first, last)
				e.parts = newPartSet(l.Parts, of)
				want := pb.ParamAnswer_OK
				for i := i0; i < i1 && want == pb.ParamAnswer_OK; i++ {
					probe := &naiveParts{opt: o.opt, w: slices.Clone(naive[i].w), clocks: slices.Clone(naive[i].clocks)}
					for _, slot := range naive[i].slots {
						probe.slots = append(probe.slots, slices.Clone(slot))
					}
					lo, hi := l.Range(l.block(shard, i))
					want = probe.push(step, of, g[lo:hi])
				}
				if got := s.apply(index, e, part(l, shard, first, last, g)); got.status != want {
					t.Fatalf("push of step %d of %v on [%d, %d): %v (%s), want %v", step, of, first, last, got.status, got.message, want)
				}
				seen[want]++
				if want == pb.ParamAnswer_OK {
					for i := i0; i < i1; i++ {
						lo, hi := l.Range(l.block(shard, i))
						naive[i].push(step, of, g[lo:hi])
					}
				}
				if index%50 == 0 {
					again := testState(t, l, shard, c)
					if err := again.restore(bytes.NewReader(snapshotBytes(t, s))); err != nil {
						t.Fatal(err)
					}
					s = again
				}
			}
			vs, _ := s.newest(nil, steps, 0, all)
			if len(vs) != l.own(shard) {
				t.Fatalf("%d blocks have done all steps, want %d", len(vs), l.own(shard))
			}
			for i, v := range vs {
				if want := l.number(steps); v.step != want {
					t.Errorf("block %d: number %d, want %d", i, v.step, want)
				}
				sameBits(t, fmt.Sprint("own block ", i), v.state(), slices.Concat(append([][]float32{naive[i].w}, naive[i].slots...)...))
			}
			for _, status := range []pb.ParamAnswer_Status{pb.ParamAnswer_OK, pb.ParamAnswer_GAP, pb.ParamAnswer_SPLIT} {
				if seen[status] == 0 {
					t.Errorf("no push came to %v; the test is worth less than it seems", status)
				}
			}
		})
	}
}

// randomParts is a set that is not empty, in order.
func randomParts(r *rand.Rand, parts int) []id.LogicalShard {
	var of []id.LogicalShard
	for len(of) == 0 {
		for p := range parts {
			if r.IntN(3) == 0 {
				of = append(of, id.LogicalShard(p))
			}
		}
	}
	return of
}

func TestPartSetsThatAreNone(t *testing.T) {
	for _, c := range []struct {
		set   partSet
		parts int
		ok    bool
	}{
		{nil, 0, true}, {partSet{1}, 0, false}, {nil, 3, false}, {partSet{0}, 3, false}, {partSet{7}, 3, true},
		{partSet{8}, 3, false}, {partSet{0, 1}, 9, true}, {partSet{0, 2}, 9, false}, {partSet{255}, 8, true}, {partSet{1, 0}, 8, false},
	} {
		if err := c.set.check(c.parts); (err == nil) != c.ok {
			t.Errorf("%v of %d: %v", []byte(c.set), c.parts, err)
		}
	}
}

// TestExactlyOnceInParts has two trainers push gradients as they come over a network that delays, tears and cuts, each
// with a twin that repeats it over connections of its own, and the logical shards change hands in the middle of a step. All
// numbers are small integers, so that their sum does not hang on the order: at the end it is that
// of every (step, logical shard) once, on every replica, and every clock is at the last step.
func TestExactlyOnceInParts(t *testing.T) { overSeeds(t, 20, exactlyOnceInParts) }

func exactlyOnceInParts(t *testing.T, seed uint64) (cuts int) {
	const parts, steps = 4, 6
	layout := Layout{Params: 100, BlockSize: 8, Shards: 2, Parts: parts}
	opt := optim.Config{Name: "sgd", LR: 1}
	u, all, client, stop := onUnruly(t, seed, layout, opt)
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // of the bubble's time
	defer cancel()
	// Of the set's share of the step, which the rate is multiplied by, each member's part is this vector.
	value := func(step id.Step, p id.LogicalShard, i int) float32 { return float32(int(step) + int(p) + i%3) }
	want := make([]float32, layout.Params)
	for i := range want {
		for step := range id.Step(steps) {
			for p := range id.LogicalShard(parts) {
				want[i] -= value(step, p, i)
			}
		}
	}
	var clients []*Client
	for range 4 {
		clients = append(clients, client(all...))
	}
	if err := clients[0].Put(ctx, 0, 0, 0, id.Block(layout.Blocks()), State{W: make([]float32, layout.Params)}); err != nil {
		t.Error(err)
	}
	push := func(c *Client, step id.Step, of ...id.LogicalShard) error {
		grad, w := make([]float32, layout.Params), make([]float32, layout.Params)
		for i := range grad {
			for _, p := range of {
				grad[i] += value(step, p, i)
			}
			grad[i] *= parts / float32(len(of))
		}
		all := id.Block(layout.Blocks())
		for _, b := range [][2]id.Block{{0, all / 3}, {all / 3, all}} {
			lo, hi := layout.span(b[0], b[1])
			if _, err := c.PushPart(ctx, step, of, b[0], b[1], grad[lo:hi], w[lo:hi]); err != nil {
				return err
			}
		}
		return nil
	}
	var trainers sync.WaitGroup
	for i, c := range clients {
		trainers.Go(func() {
			for step := range id.Step(steps) {
				of := []id.LogicalShard{0, 1}
				if i%2 == 1 {
					of = []id.LogicalShard{2, 3}
				}
				if (seed+uint64(step))%3 == 0 && i >= 2 { // a view in which they are owned crosswise: some blocks have one of each
					of = []id.LogicalShard{id.LogicalShard(i % 2), id.LogicalShard(i%2 + 2)}
				}
				for {
					err := push(c, step, of...)
					if errors.Is(err, ErrSplit) {
						if err = push(c, step, of[0]); err == nil {
							err = push(c, step, of[1])
						}
					}
					if errors.Is(err, ErrGap) { // the other has not come so far with one of them
						<-time.After(time.Millisecond)
						continue
					}
					if err != nil {
						t.Errorf("trainer %d, step %d: %v", i, step, err)
						return
					}
					break
				}
			}
		})
	}
	trainers.Wait()
	u.quiet()
	for _, r := range all {
		c, w := client(r), make([]float32, layout.Params)
		seen, err := c.PullNewest(ctx, steps, w)
		if err != nil || seen != (Seen{Clock: steps, Updates: parts * steps, blocks: seen.blocks}) {
			t.Errorf("%s: %+v, %v", r.Node, seen, err)
		} else {
			sameBits(t, string(r.Node), w, cutOff(halfOf(seed), want))
		}
		clients = append(clients, c)
	}
	clocks, ok, err := clients[0].Clocks(ctx)
	if err != nil || !ok || slices.Min(clocks) != steps || slices.Max(clocks) != steps || len(clocks) != parts {
		t.Errorf("clocks %v, %v, %v", clocks, ok, err)
	}
	for _, c := range clients {
		_ = c.Close()
	}
	return u.cuts
}
