package data

import (
	"fmt"
	"testing"

	"github.com/musterml/muster/internal/id"
)

// staircase is a sparse Dataset for regression: sample i has i%4 entries, (0, i), (1, i)
// and so on, and the target -i.
type staircase int

func (n staircase) Len() int       { return int(n) }
func (n staircase) Form() Form     { return Form{Kind: Sparse, Shape: []int{10}, Entries: 3} }
func (n staircase) Digest() Digest { return Digest{} }
func (n staircase) Sample(i int, into Batch) {
	v := float32(i)
	into.SetEntries([]int32{0, 1, 2}[:i%4], []float32{v, v, v}[:i%4])
	into.Targets[0] = -v
}

// rows prints the samples of a sparse Batch.
func rows(b Batch) []string {
	var list []string
	for i := range b.Len() {
		from, to := b.Starts[i], b.Starts[i+1]
		list = append(list, fmt.Sprint(b.Targets[i], b.Columns[from:to], b.Values[from:to]))
	}
	return list
}

func TestSparseBatch(t *testing.T) {
	want := func(i int) string {
		v := float32(i)
		return fmt.Sprint(-v, []int32{0, 1, 2}[:i%4], []float32{v, v, v}[:i%4])
	}
	const n = 50
	b := Batches{7, 2}
	loader, room := NewLoader(staircase(n), 3, b), NewBatch(staircase(n), b.MaxSlice())
	for step := range b.Steps(2, n) {
		for shard := range id.LogicalShard(2) {
			first, count := b.Slice(step, shard)
			in := loader.Fill(step, []id.LogicalShard{shard}, room)
			if in.Len() != count || len(in.Starts) != count+1 || in.Starts[0] != 0 || len(in.Columns) != int(in.Starts[count]) || len(in.Values) != len(in.Columns) || in.Labels != nil || in.X != nil {
				t.Fatalf("%v of %v: %+v", step, shard, in)
			}
			for i, got := range rows(in) {
				if w := want(Order(3, n).Sample(first + Position(i))); got != w {
					t.Errorf("%v of %v, sample %d: %s, want %s", step, shard, i, got, w)
				}
			}
		}
	}
	held := NewHeldOut(staircase(n), 3)
	for shard := range id.LogicalShard(3) {
		at := int(shard)
		for in := range held.Chunks(shard, room) {
			for _, got := range rows(in) {
				if w := want(at); got != w {
					t.Errorf("held out of %v: %s, want %s", shard, got, w)
				}
				at += 3
			}
		}
		if at != int(shard)+3*held.Len(shard) {
			t.Errorf("%v: ends at %d", shard, at)
		}
	}
}
