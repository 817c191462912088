package data

import (
	"iter"

	"github.com/musterml/muster/internal/id"
)

// HeldOut deals the held-out set to the logical shards: sample i belongs to shard
// i mod LogicalShards, so evaluation splits the same way however many trainers share it.
type HeldOut struct {
	data   Dataset
	shards int
	width  int
}

// NewHeldOut splits a held-out set over a number of logical shards, at least 1.
func NewHeldOut(d Dataset, logicalShards int) *HeldOut {
	return &HeldOut{data: d, shards: logicalShards, width: Width(d)}
}

// Len is the number of samples of a shard; 0 for the last shards of a very small set.
func (h *HeldOut) Len(shard id.LogicalShard) int {
	return (h.data.Len() - int(shard) + h.shards - 1) / h.shards
}

// Fill loads samples of a shard from its from-th on: as many as labels has room for
// and the shard holds. x is (n, C*H*W). It returns n, which is 0 at the end.
func (h *HeldOut) Fill(shard id.LogicalShard, from int, x []float32, labels []int32) (n int) {
	n = max(min(len(labels), h.Len(shard)-from), 0)
	for i := range n {
		index := int(shard) + (from+i)*h.shards
		labels[i] = h.data.Sample(index, x[i*h.width:(i+1)*h.width])
	}
	return n
}

// Chunks goes through a shard, filling x and labels anew for every chunk and yielding the
// number of samples in it, always at least 1:
//
//	for n := range held.Chunks(shard, x, labels) {
//		loss, correct := replica.Loss(w, x, labels, n)
//	}
func (h *HeldOut) Chunks(shard id.LogicalShard, x []float32, labels []int32) iter.Seq[int] {
	return func(yield func(int) bool) {
		for from := 0; ; {
			n := h.Fill(shard, from, x, labels)
			if n == 0 || !yield(n) {
				return
			}
			from += n
		}
	}
}
