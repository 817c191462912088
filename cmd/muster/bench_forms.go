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
		return func(ring *collective.Ring, n int) benchSum { return &plainSum{ring: ring, x: huge.Float32s(n)} }
	case "bf16":
		return func(ring *collective.Ring, n int) benchSum {
			return &halfSum{collective.NewBF16(n), ring, huge.Float32s(n)}
		}
	case "exact":
		return func(ring *collective.Ring, n int) benchSum {
			s := &exactSum{ring: ring, x: huge.Float32s(n), sum: huge.Int32s(n)}
			s.Exact = collective.Exact{BlockSize: 16384, Shards: 8} // as in a run
			s.exps = make([]int32, s.Blocks(n))
			return s
		}
	}
	return nil
}

func benchForms() []string { return []string{"float32", "bf16", "exact"} }

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

// halfSum sends bf16, with error feedback: from float32 to float32.
type halfSum struct {
	*collective.BF16
	ring *collective.Ring
	x    []float32
}

func (s *halfSum) fill(v float32) { fillWith(s.x, v) }

func (s *halfSum) reduce(ctx context.Context) error {
	return s.AllReduce(ctx, s.ring, collective.Op{}, s.x)
}

func (s *halfSum) check(want float32) error { return checkAll(s.x, want) }

// exactSum is all that sum: exact does: exponents, their maximum, integers, their sum, and float32 again.
type exactSum struct {
	collective.Exact
	ring *collective.Ring
	x    []float32
	sum  []int32
	exps []int32
}

func (s *exactSum) fill(v float32) {
	fillWith(s.x, v)
	clear(s.sum)
	for i := range s.exps {
		s.exps[i] = collective.ZeroBlock
	}
}

func (s *exactSum) reduce(ctx context.Context) error {
	s.Exponents(s.exps, s.x)
	if err := s.ring.AllReduce(ctx, collective.Op{}, collective.Int32s(s.exps), collective.MaxInt32); err != nil {
		return err
	}
	s.Add(s.sum, s.x, s.exps)
	if err := s.ring.AllReduce(ctx, collective.Op{}, collective.Int32s(s.sum), collective.SumInt32); err != nil {
		return err
	}
	s.Value(s.x, s.sum, s.exps)
	return nil
}

func (s *exactSum) check(want float32) error { return checkAll(s.x, want) }

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
