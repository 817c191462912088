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
}

// NewHeldOut splits a held-out set over a number of logical shards, at least 1.
func NewHeldOut(d Dataset, logicalShards int) *HeldOut {
	return &HeldOut{data: d, shards: logicalShards}
}

// Len is the number of samples of a shard; 0 for the last shards of a very small set.
func (h *HeldOut) Len(shard id.LogicalShard) int {
	return (h.data.Len() - int(shard) + h.shards - 1) / h.shards
}

// Fill loads samples of a shard from its from-th on: as many as the Batch has room for
// and the shard holds. It returns the part that it filled, which is empty at the end.
func (h *HeldOut) Fill(shard id.LogicalShard, from int, b Batch) Batch {
	n := max(min(b.Len(), h.Len(shard)-from), 0)
	for i := range n {
		h.data.Sample(int(shard)+(from+i)*h.shards, b.part(i, i+1))
	}
	return b.first(n)
}

// Chunks goes through a shard, filling the Batch anew for every chunk and yielding the part
// that it filled, of at least one sample:
//
//	for in := range held.Chunks(shard, batch) {
//		result, err := loss(replica, w, in)
//	}
func (h *HeldOut) Chunks(shard id.LogicalShard, b Batch) iter.Seq[Batch] {
	return func(yield func(Batch) bool) {
		for from := 0; ; {
			filled := h.Fill(shard, from, b)
			if filled.Len() == 0 || !yield(filled) {
				return
			}
			from += filled.Len()
		}
	}
}
