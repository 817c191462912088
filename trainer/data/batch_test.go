package data

import (
	"fmt"
	"testing"

	"github.com/musterml/muster/internal/id"
)

// numbered is a Dataset whose sample i is the number i itself.
type numbered int

func (n numbered) Len() int       { return int(n) }
func (n numbered) Form() Form     { return Form{Shape: []int{1, 1, 2}, Classes: 10} }
func (n numbered) Digest() Digest { return Digest{} }
func (n numbered) Sample(i int, into Batch) {
	into.X[0], into.X[1], into.Labels[0] = float32(i), -float32(i), int32(i)
}

// The slices of one batch after another must cover the stream without a gap, however
// many shards there are.
func TestSlicesCoverTheStream(t *testing.T) {
	for _, b := range []Batches{{1, 1}, {7, 3}, {8, 8}, {256, 8}, {100, 7}, {257, 64}} {
		next := Position(0)
		for step := range id.Step(5) {
			for l := range b.LogicalShards {
				first, count := b.Slice(step, id.LogicalShard(l))
				if first != next {
					t.Fatalf("%+v step %d shard %d: begins at %d, want %d", b, step, l, first, next)
				}
				if count < b.Size/b.LogicalShards || count > b.MaxSlice() {
					t.Errorf("%+v shard %d: %d samples", b, l, count)
				}
				next += Position(count)
			}
			if want := Position(uint64(step+1) * uint64(b.Size)); next != want {
				t.Fatalf("%+v step %d ends at %d, want %d", b, step, next, want)
			}
		}
	}
}

func TestSteps(t *testing.T) {
	for _, c := range []struct {
		batch, passes, n int
		want             id.Step
	}{{256, 3, 20000, 235}, {100, 1, 100, 1}, {100, 1, 101, 2}, {7, 2, 3, 1}, {128, 0, 50, 0}} {
		if got := (Batches{c.batch, 1}).Steps(c.passes, c.n); got != c.want {
			t.Errorf("batch %d, %d passes over %d: %d steps, want %d", c.batch, c.passes, c.n, got, c.want)
		}
	}
}

func TestBatchesValidate(t *testing.T) {
	for _, c := range []struct {
		b      Batches
		faults int
	}{{Batches{256, 8}, 0}, {Batches{0, 0}, 2}, {Batches{4, 8}, 1}, {Batches{-1, 8}, 1}} {
		if got := c.b.Validate(); len(got) != c.faults {
			t.Errorf("%+v: %v, want %d faults", c.b, got, c.faults)
		}
	}
}

// Whatever the batch and the shards, a pass gives every sample once, and the same ones at
// the same positions.
func TestLoaderGivesEverySampleOncePerPass(t *testing.T) {
	const n, passes = 60, 3
	var want []int32
	for _, b := range []Batches{{12, 1}, {12, 5}, {20, 20}, {60, 7}, {45, 4}} { // some straddle passes
		l := NewLoader(numbered(n), 5, b)
		batch := NewBatch(numbered(n), b.MaxSlice())
		var got []int32
		for step := range b.Steps(passes, n) {
			for shard := range b.LogicalShards {
				in := l.Fill(step, []id.LogicalShard{id.LogicalShard(shard)}, batch)
				for i, label := range in.Labels {
					if in.X[2*i] != float32(label) || in.X[2*i+1] != -float32(label) {
						t.Fatalf("%+v: sample %d has x %v", b, label, in.X[2*i:2*i+2])
					}
				}
				got = append(got, in.Labels...)
			}
		}
		if want == nil {
			want = got
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v: another order of samples", b)
		}
	}
	for pass := range passes {
		seen := [n]bool{}
		for _, i := range want[pass*n : (pass+1)*n] {
			if seen[i] {
				t.Fatalf("pass %d gives sample %d twice", pass, i)
			}
			seen[i] = true
		}
	}
}

func TestLoaderAllocatesNothing(t *testing.T) {
	for _, s := range []Source{{Source: Glyphs, Train: 500, Test: 100, Seed: 1}, textSource(t, alphabet(4000), 16, 500, 100)} {
		train, test := open(t, s)
		b := Batches{64, 4}
		l, h := NewLoader(train, 1, b), NewHeldOut(test, 4)
		batch := NewBatch(train, b.MaxSlice())
		step, shards := id.Step(0), []id.LogicalShard{1}
		if n := testing.AllocsPerRun(20, func() {
			l.Fill(step, shards, batch)
			h.Fill(2, int(step), batch)
			step++
		}); n != 0 {
			t.Errorf("%s: %v allocations per batch", s.Source, n)
		}
	}
}

func TestHeldOutDealsEverySampleOnce(t *testing.T) {
	for _, c := range []struct{ n, shards, chunk int }{{100, 8, 5}, {101, 8, 64}, {3, 8, 2}, {1, 1, 1}, {64, 8, 8}} {
		h := NewHeldOut(numbered(c.n), c.shards)
		batch := NewBatch(numbered(c.n), c.chunk)
		total := 0
		for shard := range id.LogicalShard(c.shards) {
			mine := 0
			for in := range h.Chunks(shard, batch) {
				for i, label := range in.Labels {
					if want := int(shard) + (mine+i)*c.shards; int(label) != want || in.X[2*i] != float32(want) {
						t.Fatalf("%+v shard %d: sample %d, want %d", c, shard, label, want)
					}
				}
				mine += in.Len()
			}
			if mine != h.Len(shard) {
				t.Errorf("%+v shard %d: %d samples, Len says %d", c, shard, mine, h.Len(shard))
			}
			total += mine
		}
		if total != c.n {
			t.Errorf("%+v: %d samples dealt", c, total)
		}
	}
}

func TestHeldOutChunksStopsEarly(t *testing.T) {
	h := NewHeldOut(numbered(10), 1)
	calls := 0
	for range h.Chunks(0, NewBatch(numbered(10), 2)) {
		calls++
		break
	}
	if calls != 1 {
		t.Errorf("%d calls", calls)
	}
}
