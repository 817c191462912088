package cpu

import (
	"fmt"
	"math"

	"github.com/musterml/muster/internal/samebits"
	"github.com/musterml/muster/trainer/device"
)

// Apply implements device.Ops.
func (s *stream) Apply(yb, xb device.Buffer, n int, f device.Function) {
	const op = "function"
	if !s.sized(op, n) || !s.knows(op, f) {
		return
	}
	y, x := s.floats(op, "Y", yb, n), s.floats(op, "X", xb, n)
	if s.err != nil {
		return
	}
	if f == device.Rectifier {
		s.mask(y, x, x)
		return
	}
	q := s.k.quickRow(n)
	if q > 0 {
		s.k.rowApply[f](&y[0], &x[0], q)
	}
	for i := q; i < n; i++ {
		v, _ := valueAndSlope(f, float64(x[i]))
		y[i] = float32(v)
	}
}

// ApplyBackward implements device.Ops.
func (s *stream) ApplyBackward(dxb, dyb, xb device.Buffer, n int, f device.Function) {
	const op = "function backward"
	if !s.sized(op, n) || !s.knows(op, f) {
		return
	}
	dx, dy, x := s.floats(op, "DX", dxb, n), s.floats(op, "DY", dyb, n), s.floats(op, "X", xb, n)
	if s.err != nil {
		return
	}
	if f == device.Rectifier {
		s.mask(dx, dy, x)
		return
	}
	q := s.k.quickRow(n)
	if q > 0 {
		s.k.rowApplyBack[f](&dx[0], &dy[0], &x[0], q)
	}
	for i := q; i < n; i++ {
		_, slope := valueAndSlope(f, float64(x[i]))
		dx[i] = float32(float64(dy[i]) * slope)
	}
}

func (s *stream) knows(op string, f device.Function) bool {
	if f >= device.Functions {
		s.fail(fmt.Errorf("%s: there is no function %d", op, f))
	}
	return s.err == nil
}

// valueAndSlope is f(x) and f'(x). The products are converted, see the package's comment.
func valueAndSlope(f device.Function, x float64) (y, slope float64) {
	switch f {
	case device.GELU:
		phi, density := normal(x)
		return x * phi, phi + float64(x*density)
	case device.SiLU:
		y := sigmoid(x)
		return x * y, y + float64(float64(y*x)*(1-y))
	case device.Tanh:
		y := tanh(x)
		return y, 1 - float64(y*y)
	default:
		y := sigmoid(x)
		return y, y * (1 - y)
	}
}

func sigmoid(x float64) float64 {
	e := samebits.Exp(-math.Abs(x))
	if x < 0 {
		return e / (1 + e)
	}
	return 1 / (1 + e)
}

func tanh(x float64) float64 {
	t := math.Abs(x)
	if t < 1e-3 { // where 1-e would lose too much; the next term is below 1e-15
		return x - float64(float64(float64(x*x)*x)/3)
	}
	e := samebits.Exp(-2 * t)
	return math.Copysign((1-e)/(1+e), x)
}

// normal is the normal law at x: its distribution and its density. The polynomial and its error (6e-8) are
// those of the assembly (asm/exp.go).
func normal(x float64) (phi, density float64) {
	t := math.Abs(x)
	e := samebits.Exp(float64(t*t) * -0.5)
	u := 1 / (1 + float64(0.3*t))
	p := 0.0
	for i := len(tail) - 1; i >= 0; i-- {
		p = tail[i] + float64(p*u)
	}
	phi = float64(e * p)
	if !(x < 0) {
		phi = 1 - phi
	}
	return phi, e * 0.3989422804014327
}

var tail = [...]float64{
	6.593181296921102e-06, 0.11949746310710907, 0.12185091525316238, 0.09495405852794647, 0.1419021040201187,
	-0.07559153437614441, 0.22786171734333038, -0.1687803566455841, 0.038299061357975006,
}
