package cpu

import (
	"fmt"

	"github.com/musterml/muster/trainer/device"
)

// sized refuses sizes below one.
func (s *stream) sized(op string, sizes ...int) bool {
	for _, n := range sizes {
		if n < 1 {
			s.fail(fmt.Errorf("%s: sizes must be at least 1", op))
		}
	}
	return s.err == nil
}

// ReLUBackward implements device.Ops.
func (s *stream) ReLUBackward(dxb, dyb, yb device.Buffer, n int) {
	const op = "ReLU backward"
	if !s.sized(op, n) {
		return
	}
	dx, dy, y := s.floats(op, "DX", dxb, n), s.floats(op, "DY", dyb, n), s.floats(op, "Y", yb, n)
	if s.err != nil {
		return
	}
	s.mask(dx, dy, y)
}

// mask is dx = 0 where y <= 0, else dy: a ReLU's backward pass, and with dy = y the ReLU itself.
func (s *stream) mask(dx, dy, y []float32) {
	i, n := 0, len(y)
	if s.k.lanes > 0 && n >= s.k.lanes {
		i = n / s.k.lanes * s.k.lanes
		s.k.mask(&dx[0], &dy[0], &y[0], i)
	}
	for ; i < n; i++ {
		if y[i] <= 0 { // false for NaN
			dx[i] = 0
		} else {
			dx[i] = dy[i]
		}
	}
}

// SumRows implements device.Ops.
func (s *stream) SumRows(ob, xb device.Buffer, rows, cols int) {
	const op = "sum of rows"
	if !s.sized(op, rows, cols) {
		return
	}
	out, x := s.floats(op, "Out", ob, cols), s.floats(op, "X", xb, rows*cols)
	if s.err != nil {
		return
	}
	clear(out)
	s.addRows(out, x, rows)
}

// addRows adds the rows of x (rows, len(out)) to out, which must be zero, in their order.
func (s *stream) addRows(out, x []float32, rows int) {
	cols, quick := len(out), 0
	if s.k.lanes > 0 {
		quick = cols / s.k.lanes * s.k.lanes
	}
	if quick > 0 {
		s.k.sumRows(&out[0], &x[0], cols, rows, quick)
	}
	if quick == cols {
		return
	}
	for i := range rows {
		row := x[i*cols : (i+1)*cols]
		for j := quick; j < cols; j++ {
			out[j] += row[j]
		}
	}
}

// Add implements device.Ops.
func (s *stream) Add(yb, ab, bb device.Buffer, n int, act device.Activation) {
	const op = "sum"
	if !s.sized(op, n) {
		return
	}
	y, a, b := s.floats(op, "Y", yb, n), s.floats(op, "A", ab, n), s.floats(op, "B", bb, n)
	if s.err == nil {
		s.k.add(y, a, b, floorOf(act))
	}
}

// Finite implements device.Ops.
func (s *stream) Finite(xb device.Buffer, n int, ok *bool) {
	const op = "finite"
	if !s.sized(op, n) {
		return
	}
	x := s.floats(op, "X", xb, n)
	*ok = s.err == nil
	for _, v := range x {
		if v-v != 0 { // NaN for either
			*ok = false
		}
	}
}

// ToNHWC implements device.Ops.
func (s *stream) ToNHWC(y, x device.Buffer, n, c, h, w int) {
	if s.sized("to NHWC", n, c, h, w) {
		s.transposeAll("to NHWC", y, x, n, c, h*w)
	}
}

// ToNCHW implements device.Ops.
func (s *stream) ToNCHW(y, x device.Buffer, n, c, h, w int) {
	if s.sized("to NCHW", n, c, h, w) {
		s.transposeAll("to NCHW", y, x, n, h*w, c)
	}
}

// transposeAll is y (n, cols, rows) = x (n, rows, cols).
func (s *stream) transposeAll(op string, yb, xb device.Buffer, n, rows, cols int) {
	m := rows * cols
	y, x := s.floats(op, "Y", yb, n*m), s.floats(op, "X", xb, n*m)
	if s.err != nil {
		return
	}
	for i := range n {
		s.transpose(y[i*m:(i+1)*m], rows, x[i*m:(i+1)*m], rows, cols)
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
