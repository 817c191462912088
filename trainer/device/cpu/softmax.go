package cpu

import (
	"fmt"
	"math"

	"github.com/musterml/muster/trainer/device"
)

// SoftmaxCrossEntropy implements device.Ops. It works in float64: rows are short beside the
// products that made them, and the loss is then good to its last printed digit.
func (s *stream) SoftmaxCrossEntropy(p device.SoftmaxCrossEntropy) {
	const op = "softmax cross-entropy"
	if !s.sized(op, p.N, p.Classes) {
		return
	}
	logits := s.floats(op, "Logits", p.Logits, p.N*p.Classes)
	labels := s.ints(op, "Labels", p.Labels, p.N)
	grad := s.optional(op, "DLogits", p.DLogits, p.N*p.Classes)
	if s.err == nil && p.Total == nil {
		s.fail(fmt.Errorf("%s: no place for the total", op))
	}
	if s.err != nil {
		return
	}
	if len(s.exps) < p.Classes {
		s.exps = make([]float64, p.Classes)
	}
	var t device.Total
	for i := range p.N {
		label := int(labels[i])
		if label < 0 || label >= p.Classes {
			s.fail(fmt.Errorf("%s: label %d of sample %d is not within [0, %d)", op, label, i, p.Classes))
			return
		}
		row := logits[i*p.Classes : (i+1)*p.Classes]
		best := 0
		for j, v := range row {
			if v > row[best] {
				best = j
			}
		}
		if best == label {
			t.Correct++
		}
		top, sum := float64(row[best]), 0.0
		exps := s.exps[:p.Classes]
		for j, v := range row {
			exps[j] = exp(float64(v) - top)
			sum += exps[j]
		}
		t.Loss += logarithm(sum) - (float64(row[label]) - top)
		if grad == nil {
			continue
		}
		scale := float64(p.Scale)
		for j, e := range exps {
			q := float64(e / sum)
			if j == label {
				q -= 1
			}
			grad[i*p.Classes+j] = float32(float64(q * scale))
		}
	}
	*p.Total = t
}

// exp and logarithm are our own because package math's differ in their last bits between
// processors (assembly here, fused multiply-add there). Every product is converted, see the
// package's comment. Relative errors are below 1e-14.

// exp is e**x for x <= 0 (and NaN).
func exp(x float64) float64 {
	if x != x {
		return x
	}
	if x < -700 {
		return 0
	}
	const (
		log2e = 1.44269504088896338700
		ln2Hi = 6.93147180369123816490e-01 // the upper bits of ln 2, so that k*ln2Hi is exact
		ln2Lo = 1.90821492927058770002e-10
	)
	k := math.Floor(float64(x*log2e) + 0.5)
	r := float64(x-float64(k*ln2Hi)) - float64(k*ln2Lo)
	// Taylor; |r| <= ln(2)/2, so the 13th term is below 2e-16.
	y := 1.0
	for i := 13; i >= 1; i-- {
		y = 1 + float64(float64(r*y)/float64(i))
	}
	return math.Ldexp(y, int(k))
}

// logarithm is ln x for finite x >= 1 (and NaN, +Inf).
func logarithm(x float64) float64 {
	if x != x || x > math.MaxFloat64 {
		return x
	}
	m, e := math.Frexp(x) // x = m * 2**e, 0.5 <= m < 1
	if m < math.Sqrt2/2 {
		m, e = m*2, e-1
	}
	// ln m = 2 artanh(t), t = (m-1)/(m+1), |t| < 0.172: t**22/23 is below 1e-18.
	t := (m - 1) / (m + 1)
	t2 := float64(t * t)
	sum := 0.0
	for i := 21; i >= 1; i -= 2 {
		sum = 1/float64(i) + float64(t2*sum)
	}
	return float64(2*float64(t*sum)) + float64(float64(e)*math.Ln2)
}
