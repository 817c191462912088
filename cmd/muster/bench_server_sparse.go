package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/ps/table"
)

// Mode sparse: a round is one batch of a trainer, as in a run. It pushes the gradients of 4096 rows of 16 values, whose keys are
// different and drawn by Zipf's law over a million, and at the same time asks for the rows of as many keys of the next batch, which
// the servers give when the step is done: committed and applied with Adagrad. All million rows are there before.
const (
	sparseRows  = 4096
	sparseDim   = 16
	sparseTable = 1_000_000
	sparseSkew  = 1.05
	sparseSets  = 64 // different batches
)

// tables are those of mode sparse; the others have none.
func (o *benchServer) tables() ([]table.Config, error) {
	if o.mode != "sparse" {
		return nil, nil
	}
	opt, err := optim.New(optim.Config{Name: "adagrad", LR: 0.05})
	return []table.Config{{Name: "bench", Dim: sparseDim, Optimizer: opt, Seed: 1, Scale: 0.05}}, err
}

// small has no more of a dense model than there must be.
func (o *benchServer) small() {
	if o.mode == "sparse" {
		o.blocks, o.blockBytes = max(o.shards, o.trainers), "4KiB"
	}
}

// benchSparse is a trainer of mode sparse.
type benchSparse struct {
	*benchTrainer
	shard id.LogicalShard
	sets  [][]uint64
	step  id.Step
	grads []float32
	rows  []float32
}

func newBenchSparse(ctx context.Context, t *benchTrainer, rank int) (*benchSparse, error) {
	s := &benchSparse{benchTrainer: t, shard: id.LogicalShard(rank), grads: make([]float32, sparseRows*sparseDim), rows: make([]float32, sparseRows*sparseDim)}
	r := rand.New(rand.NewPCG(uint64(rank), 1))
	zipf := rand.NewZipf(r, sparseSkew, 1, sparseTable-1)
	for range sparseSets {
		seen := map[uint64]bool{}
		for len(seen) < sparseRows {
			seen[zipf.Uint64()] = true
		}
		keys := make([]uint64, 0, len(seen))
		for k := range seen {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		s.sets = append(s.sets, keys)
	}
	for i := range s.grads {
		s.grads[i] = float32(r.NormFloat64())
	}
	var every []uint64 // its part of all rows
	for k := uint64(rank); k < sparseTable; k += uint64(t.o.trainers) {
		every = append(every, k)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	const pieces = 16 // steps that make all rows: one request takes no more than 64 MiB
	for i := range pieces {
		keys := every[i*len(every)/pieces : (i+1)*len(every)/pieces]
		if err := s.batch(ctx, keys, make([]float32, len(keys)*sparseDim)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// batch pushes gradients, and pulls what comes next.
func (s *benchSparse) batch(ctx context.Context, keys []uint64, grads []float32) error {
	next := s.sets[int(s.step+1)%sparseSets]
	var pulling sync.WaitGroup
	var pulled error
	pulling.Go(func() {
		pulled = s.client.PullRows(ctx, s.step+1, s.step+1, []table.Rows{{Keys: next, Values: s.rows}})
	})
	err := s.client.PushRows(ctx, s.step, s.step, []table.Part{{Shard: s.shard, Tables: []table.Rows{{Keys: keys, Values: grads}}}})
	pulling.Wait()
	if err == nil {
		err = pulled
	}
	s.step++
	return err
}

func (s *benchSparse) rounds(ctx context.Context, n int) ([]float64, error) {
	var times []float64
	for range n {
		begin := time.Now()
		if err := s.batch(ctx, s.sets[int(s.step)%sparseSets], s.grads); err != nil {
			return nil, fmt.Errorf("batch %d: %w", s.step, err)
		}
		times = append(times, time.Since(begin).Seconds()*1e3)
	}
	return times, nil
}
