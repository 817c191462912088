package data

import (
	"fmt"

	"github.com/musterml/muster/internal/id"
)

// Position is a place in the endless stream of samples that a run trains on: pass after
// pass over the data, each in its own order. Position p is sample p%n of pass p/n.
type Position uint64

// Sample is the index of the sample at a position of the stream.
func (p Permutation) Sample(at Position) int {
	n := uint64(p.n)
	return p.At(uint64(at)/n, int(uint64(at)%n))
}

// Batches cuts the stream into batches, and each batch into logical shards. Step s
// takes the positions [s*Size, (s+1)*Size). A batch may straddle two passes, so every
// batch is full: no last uneven batch, for which synchronous trainers would wait.
type Batches struct {
	Size          int // samples in a batch, over the whole run
	LogicalShards int // 1..Size; part of the job, never of the cluster
}

// Validate names everything that is wrong.
func (b Batches) Validate() []error {
	var faults []error
	if b.Size < 1 {
		faults = append(faults, fmt.Errorf("batch.size is %d: set it to 1 or more", b.Size))
	}
	if b.LogicalShards < 1 {
		faults = append(faults, fmt.Errorf("batch.logical_shards is %d: set it to 1 or more", b.LogicalShards))
	}
	if b.Size >= 1 && b.LogicalShards > b.Size {
		faults = append(faults, fmt.Errorf("batch.logical_shards is %d but batch.size is %d, so some shards would have no sample: lower the one or raise the other",
			b.LogicalShards, b.Size))
	}
	return faults
}

// Slice is the part of a step's batch that belongs to a logical shard: samples
// [l*B/L, (l+1)*B/L) of the batch. Shards differ by one sample at most.
func (b Batches) Slice(step id.Step, shard id.LogicalShard) (first Position, count int) {
	lo := int(shard) * b.Size / b.LogicalShards
	hi := (int(shard) + 1) * b.Size / b.LogicalShards
	return Position(uint64(step)*uint64(b.Size) + uint64(lo)), hi - lo
}

// MaxSlice is the largest count that Slice returns.
func (b Batches) MaxSlice() int { return (b.Size + b.LogicalShards - 1) / b.LogicalShards }

// Steps is the number of steps that cover n samples passes times; the last batch runs
// on into the following pass where it must.
func (b Batches) Steps(passes, n int) id.Step {
	return id.Step((uint64(passes)*uint64(n) + uint64(b.Size) - 1) / uint64(b.Size))
}

// Loader fills a trainer's buffers. It holds no state that changes, so one
// Loader serves any number of goroutines.
type Loader struct {
	data    Dataset
	order   Permutation
	batches Batches
}

// NewLoader loads a data set in the order of a seed. The batches must be valid.
func NewLoader(d Dataset, seed uint64, b Batches) *Loader {
	return &Loader{data: d, order: Order(seed, d.Len()), batches: b}
}

// Fill loads the samples of logical shards of a step, one shard after the other, into a Batch that has room for
// MaxSlice of them for each shard, and returns the part that it filled. It allocates nothing.
func (l *Loader) Fill(step id.Step, shards []id.LogicalShard, b Batch) Batch {
	at := 0
	for _, shard := range shards {
		first, n := l.batches.Slice(step, shard)
		for i := range n {
			l.data.Sample(l.order.Sample(first+Position(i)), b.part(at, at+1))
			at++
		}
	}
	return b.first(at)
}
