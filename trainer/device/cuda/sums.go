package cuda

import (
	"fmt"

	"github.com/musterml/muster/trainer/device"
)

// mostParts is how many parts a launch adds.
const mostParts = 8

// parts are the addresses of buffers, n elements each, as kernels take them: mostParts at a time.
func (s *stream) parts(op string, of []device.Buffer, n int) (at [mostParts]pointer) {
	for i, b := range of {
		at[i] = s.floats(op, "Parts", b, n)
	}
	return at
}

// eachParts calls launch with mostParts of the parts at a time: whether they are the first, and the last.
func (s *stream) eachParts(op string, of []device.Buffer, launch func(some []device.Buffer, first, last bool)) {
	if len(of) == 0 {
		s.fail(fmt.Errorf("%s of no parts", op))
	}
	for i := 0; i < len(of) && s.err == nil; i += mostParts {
		to := min(i+mostParts, len(of))
		launch(of[i:to], i == 0, to == len(of))
	}
}

// eachBlock is the grid of a kernel with a block of threads for each block of elements.
func eachBlock(n, block int) [3]int { return [3]int{min(ceil(n, block), mostBlocks), 1, 1} }

// Magnitudes implements device.Ops.
func (s *stream) Magnitudes(p device.Magnitudes) {
	const op = "magnitudes"
	if !s.sized(op, p.N, p.Block) {
		return
	}
	y := s.floats(op, "Y", p.Y, ceil(p.N, p.Block))
	s.eachParts(op, p.Parts, func(some []device.Buffer, first, _ bool) {
		launch(s, "magnitudes", eachBlock(p.N, p.Block), blockThreads, struct {
			y                     pointer
			x                     [mostParts]pointer
			parts, more, n, block int64
		}{y, s.parts(op, some, p.N), int64(len(some)), flag(!first), int64(p.N), int64(p.Block)})
	})
}

// ExactSum implements device.Ops.
func (s *stream) ExactSum(p device.ExactSum) {
	const op = "exact sum"
	if !s.sized(op, p.N, p.Block) {
		return
	}
	y, exponents := s.floats(op, "Y", p.Y, p.N), s.want(op, "Exponents", p.Exponents, ceil(p.N, p.Block), device.Int32)
	add := func(parts []device.Buffer, words, isFirst, isLast bool) {
		s.eachParts(op, parts, func(some []device.Buffer, first, last bool) {
			launch(s, "exact_sum", eachBlock(p.N, p.Block), blockThreads, struct {
				y                                          pointer
				x                                          [mostParts]pointer
				exponents                                  pointer
				parts, words, first, last, n, block, width int64
			}{
				y, s.parts(op, some, p.N), exponents, int64(len(some)), flag(words), flag(isFirst && first), flag(isLast && last && !p.Open),
				int64(p.N), int64(p.Block), int64(p.Width),
			})
		})
	}
	if len(p.Parts) > 0 || len(p.Words) == 0 {
		add(p.Parts, false, true, len(p.Words) == 0)
	}
	if len(p.Words) > 0 {
		add(p.Words, true, len(p.Parts) == 0, true)
	}
}

// Squares implements device.Ops.
func (s *stream) Squares(p device.Squares) {
	const op = "squares"
	if s.sized(op, p.N, p.Block) {
		launch(s, "squares", each(16*ceil(p.N, p.Block)), blockThreads, struct {
			y, x     pointer
			n, block int64
		}{s.floats(op, "Y", p.Y, 2*ceil(p.N, p.Block)), s.floats(op, "X", p.X, p.N), int64(p.N), int64(p.Block)})
	}
}
