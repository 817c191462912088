package cpu

import (
	"fmt"
	"math"

	"github.com/musterml/muster/internal/samebits"
	"github.com/musterml/muster/trainer/device"
)

// BinaryCrossEntropy implements device.Ops.
func (s *stream) BinaryCrossEntropy(p device.BinaryCrossEntropy) {
	const op = "binary cross-entropy"
	if !s.sized(op, p.N) {
		return
	}
	logits, grad := s.floats(op, "Logits", p.Logits, p.N), s.optional(op, "DLogits", p.DLogits, p.N)
	var labels []int32
	var targets []float32
	if m := p.Targets.Mem; m != nil && m.Kind() == device.Int32 {
		labels = s.ints(op, "Targets", p.Targets, p.N)
	} else {
		targets = s.floats(op, "Targets", p.Targets, p.N)
	}
	if !s.totalled(op, p.Total) {
		return
	}
	var total device.Total
	for i, v := range logits {
		var t float64
		if labels != nil {
			t = float64(labels[i])
		} else {
			t = float64(targets[i])
		}
		if !(t >= 0 && t <= 1) {
			s.fail(fmt.Errorf("%s: target %v at place %d is not within [0, 1]", op, t, i))
			return
		}
		x := float64(v)
		e := samebits.Exp(-math.Abs(x))
		total.Loss += max(x, 0) - float64(x*t) + logOnePlus(e)
		if (x > 0) == (t > 0.5) {
			total.Correct++
		}
		if grad != nil {
			grad[i] = float32(float64(sigmoid(x)-t) * float64(p.Scale))
		}
	}
	*p.Total = total
}

// logOnePlus is ln(1+e) for e in [0, 1], also where 1+e would lose e.
func logOnePlus(e float64) float64 {
	if e > 0.25 || e != e {
		return samebits.Log(1 + e)
	}
	// 2 artanh(t), t = e/(2+e) <= 1/9: t**20/21 is below 1e-20.
	t := e / (2 + e)
	t2 := float64(t * t)
	sum := 0.0
	for i := 19; i >= 1; i -= 2 {
		sum = 1/float64(i) + float64(t2*sum)
	}
	return float64(2 * float64(t*sum))
}

// SquaredError implements device.Ops.
func (s *stream) SquaredError(p device.SquaredError) {
	const op = "squared error"
	if !s.sized(op, p.N) {
		return
	}
	y, targets := s.floats(op, "Y", p.Y, p.N), s.floats(op, "Targets", p.Targets, p.N)
	grad := s.optional(op, "DY", p.DY, p.N)
	if !s.totalled(op, p.Total) {
		return
	}
	var total device.Total
	for i, v := range y {
		d := float64(v) - float64(targets[i])
		total.Loss += float64(d * d)
		if grad != nil {
			grad[i] = float32(float64(2*d) * float64(p.Scale))
		}
	}
	*p.Total = total
}

// totalled refuses a loss without a place for its total.
func (s *stream) totalled(op string, t *device.Total) bool {
	if s.err == nil && t == nil {
		s.fail(fmt.Errorf("%s: no place for the total", op))
	}
	return s.err == nil
}
