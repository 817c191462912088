package cpu

import (
	"fmt"
	"math"
	"slices"
	"unsafe"

	sums "github.com/musterml/muster/collective/vec"
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/trainer/device"
)

// addends are the slices of buffers, n elements each; none after an error.
func (s *stream) addends(op string, of []device.Buffer, n int) [][]float32 {
	s.added = s.added[:0]
	for _, b := range of {
		s.added = append(s.added, s.floats(op, "Parts", b, n))
	}
	if s.err == nil && len(of) == 0 {
		s.fail(fmt.Errorf("%s of no parts", op))
	}
	if s.err != nil {
		return nil
	}
	return s.added
}

// Magnitudes implements device.Ops.
func (s *stream) Magnitudes(p device.Magnitudes) {
	const op = "magnitudes"
	if !s.sized(op, p.N, p.Block) {
		return
	}
	y, parts := s.floats(op, "Y", p.Y, over(p.N, p.Block)), s.addends(op, p.Parts, p.N)
	if s.err != nil {
		return
	}
	for b := range y {
		lo, hi, most := b*p.Block, min((b+1)*p.Block, p.N), uint32(0)
		for _, x := range parts {
			most = max(most, sums.Best().Largest(x[lo:hi]))
		}
		y[b] = math.Float32frombits(most)
	}
	clear(s.added) // hold on to nobody's memory
}

// ExactSum implements device.Ops, by the kernels with which the ring adds.
func (s *stream) ExactSum(p device.ExactSum) {
	const op = "exact sum"
	if !s.sized(op, p.N, p.Block) {
		return
	}
	exps, y := s.ints(op, "Exponents", p.Exponents, over(p.N, p.Block)), s.floats(op, "Y", p.Y, p.N)
	all := s.addends(op, slices.Concat(p.Parts, p.Words), p.N)
	if s.err != nil {
		return
	}
	if len(s.multiples) < p.Block {
		s.multiples = make([]int32, p.Block)
	}
	for b, e := range exps {
		lo, hi := b*p.Block, min((b+1)*p.Block, p.N)
		m := s.multiples[:hi-lo]
		clear(m)
		if e != device.ZeroBlock && e != device.NonFinite {
			for _, x := range all[:len(p.Parts)] {
				sums.Best().AddRounded(m, m, x[lo:hi], p.Width-int(e))
			}
			for _, x := range all[len(p.Parts):] {
				sums.Best().AddInt32(m, words(x[lo:hi]))
			}
		}
		switch {
		case p.Open:
			copy(words(y[lo:hi]), m)
		case e == device.ZeroBlock:
			clear(y[lo:hi])
		case e == device.NonFinite:
			for i := lo; i < hi; i++ {
				y[i] = math.Float32frombits(0x7fc00000)
			}
		default:
			sums.Best().Unscale(y[lo:hi], m, int(e)-p.Width)
		}
	}
	clear(s.added)
}

// words are the integers that lie in the place of numbers.
func words(x []float32) []int32 {
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}

// Squares implements device.Ops.
func (s *stream) Squares(p device.Squares) {
	const op = "squares"
	if !s.sized(op, p.N, p.Block) {
		return
	}
	x, y := s.floats(op, "X", p.X, p.N), s.floats(op, "Y", p.Y, 2*over(p.N, p.Block))
	if s.err != nil {
		return
	}
	for b := range len(y) / 2 {
		bits := math.Float64bits(optim.SumSquares(x[b*p.Block : min((b+1)*p.Block, p.N)]))
		y[2*b], y[2*b+1] = math.Float32frombits(uint32(bits)), math.Float32frombits(uint32(bits>>32))
	}
}
