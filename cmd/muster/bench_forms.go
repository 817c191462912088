package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/internal/huge"
)

// benchSum is what is timed: one way to add up vectors of float32.
type benchSum interface {
	fill(v float32)
	reduce(ctx context.Context) error
	check(want float32) error
}

// benchForm makes the sum of that name for n elements; nil where there is none.
func benchForm(name string) func(ring *collective.Ring, n int) benchSum {
	switch name {
	case "float32":
		return func(ring *collective.Ring, n int) benchSum { return &plainSum{ring, huge.Float32s(n)} }
	case "bf16":
		return func(ring *collective.Ring, n int) benchSum {
			return &formSum{plainSum{ring, huge.Float32s(n)}, collective.BF16{}, func() {}}
		}
	case "int8":
		return func(ring *collective.Ring, n int) benchSum {
			form := collective.NewInt8(n)
			return &formSum{plainSum{ring, huge.Float32s(n)}, form, form.Commit}
		}
	case "exact":
		return func(ring *collective.Ring, n int) benchSum {
			e := collective.Exact{BlockSize: 16384, Shards: 8} // as in a run
			return &exactSum{plainSum{ring, huge.Float32s(n)}, e, make([]int32, e.Blocks(n)), make([][]float32, 1)}
		}
	}
	return nil
}

func benchForms() []string { return []string{"float32", "bf16", "int8", "exact"} }

// plainSum is the sum of mode sum: fast.
type plainSum struct {
	ring *collective.Ring
	x    []float32
}

func (s *plainSum) fill(v float32) { fillWith(s.x, v) }

func (s *plainSum) reduce(ctx context.Context) error {
	return s.ring.AllReduce(ctx, collective.Op{}, collective.Float32s(s.x), collective.SumFloat32)
}

func (s *plainSum) check(want float32) error { return checkAll(s.x, want) }

// formSum is a sum in a form of less bytes: from float32 to float32.
type formSum struct {
	plainSum
	form   collective.Form
	commit func() // ends the step
}

func (s *formSum) reduce(ctx context.Context) error {
	defer s.commit()
	return s.ring.Sum(ctx, collective.Op{}, collective.Float32s(s.x), s.form)
}

// exactSum is all that sum: exact does, in buckets of a run's size: exponents, their maximum, integers, their sum, and float32
// again.
type exactSum struct {
	plainSum
	exact collective.Exact
	exps  []int32
	parts [][]float32
}

const benchBucket = 1 << 20 // elements, as in a run

func (s *exactSum) reduce(ctx context.Context) error {
	for lo := 0; lo < len(s.x); lo += benchBucket {
		s.parts[0] = s.x[lo:min(lo+benchBucket, len(s.x))]
		form := collective.ExactSum{Exact: s.exact, Exps: s.exps[lo/s.exact.BlockSize:][:s.exact.Blocks(len(s.parts[0]))], Parts: s.parts}
		for i := range form.Exps {
			form.Exps[i] = collective.ZeroBlock
		}
		form.Exponents(form.Exps, s.parts[0])
		if err := s.ring.AllReduce(ctx, collective.Op{}, collective.Int32s(form.Exps), collective.MaxInt32); err != nil {
			return err
		}
		if err := s.ring.Sum(ctx, collective.Op{}, collective.Float32s(s.parts[0]), &form); err != nil {
			return err
		}
	}
	return nil
}

func fillWith(x []float32, v float32) {
	for i := range x {
		x[i] = v
	}
}

func checkAll(x []float32, want float32) error {
	if i := slices.IndexFunc(x, func(v float32) bool { return v != want }); i >= 0 {
		return fmt.Errorf("wrong sum: element %d is %v, not %v", i, x[i], want)
	}
	return nil
}

// congestion is the TCP congestion control in force, which counts even on loopback.
func congestion() string {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}
