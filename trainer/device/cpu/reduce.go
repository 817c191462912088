package cpu

import (
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/internal/optim/vec"
	"github.com/musterml/muster/trainer/device"
)

// Multiply implements device.Ops.
func (s *stream) Multiply(yb, ab, bb device.Buffer, n int) {
	const op = "product"
	if !s.sized(op, n) {
		return
	}
	y, a, b := s.floats(op, "Y", yb, n), s.floats(op, "A", ab, n), s.floats(op, "B", bb, n)
	if s.err != nil {
		return
	}
	for i, v := range a {
		y[i] = v * b[i]
	}
}

// Scale implements device.Ops.
func (s *stream) Scale(yb, xb device.Buffer, n int, a float32) {
	const op = "scaling"
	if !s.sized(op, n) {
		return
	}
	y, x := s.floats(op, "Y", yb, n), s.floats(op, "X", xb, n)
	if s.err == nil {
		s.k.scale(y, x, a)
	}
}

// Sum implements device.Ops.
func (s *stream) Sum(xb device.Buffer, n int, total *float64) {
	const op = "sum"
	if !s.sized(op, n) {
		return
	}
	x := s.floats(op, "X", xb, n)
	if s.err != nil {
		return
	}
	var p vec.Partials
	for i, v := range x {
		p[i%len(p)] += float64(v)
	}
	*total = p.Total()
}

// SumSquares implements device.Ops, by the kernel with which trainers find the norm of a gradient.
func (s *stream) SumSquares(xb device.Buffer, n int, total *float64) {
	const op = "sum of squares"
	if !s.sized(op, n) {
		return
	}
	x := s.floats(op, "X", xb, n)
	if s.err == nil {
		*total = optim.SumSquares(x)
	}
}
