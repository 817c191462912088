package cpu

import (
	"fmt"
	"math"

	"github.com/musterml/muster/trainer/device"
)

// SoftmaxCrossEntropy implements device.Ops. The total is in float64. So is all of it for few classes, where
// rows are short beside the products that made them and the loss is then good to its last printed digit.
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
	loss := s.lossOfMany
	if p.Classes < manyClasses {
		loss = s.lossOfFew
	}
	var t device.Total
	for i := range p.N {
		label := int(labels[i])
		if label < 0 || label >= p.Classes {
			s.fail(fmt.Errorf("%s: label %d of row %d is not within [0, %d)", op, label, i, p.Classes))
			return
		}
		row := logits[i*p.Classes : (i+1)*p.Classes]
		var d []float32
		if grad != nil {
			d = grad[i*p.Classes : (i+1)*p.Classes]
		}
		l, correct := loss(row, label, d, p.Scale)
		t.Loss += l
		if correct {
			t.Correct++
		}
	}
	*p.Total = t
}

// manyClasses is from where on the float32 row kernels are used.
const manyClasses = 128

// lossOfFew is the loss of one row, whether its largest logit is the label, and in d, if it is not nil, the
// gradient. d may be row.
func (s *stream) lossOfFew(row []float32, label int, d []float32, scale float32) (loss float64, correct bool) {
	if len(s.exps) < len(row) {
		s.exps = make([]float64, manyClasses)
	}
	best := 0
	for j, v := range row {
		if v > row[best] {
			best = j
		}
	}
	top, sum := float64(row[best]), 0.0
	exps := s.exps[:len(row)]
	for j, v := range row {
		exps[j] = exp(float64(v) - top)
		sum += exps[j]
	}
	loss = logarithm(sum) - (float64(row[label]) - top)
	if d != nil {
		for j, e := range exps {
			q := float64(e / sum)
			if j == label {
				q -= 1
			}
			d[j] = float32(float64(q * float64(scale)))
		}
	}
	return loss, best == label
}

// lossOfMany is lossOfFew by the row kernels.
func (s *stream) lossOfMany(row []float32, label int, d []float32, scale float32) (loss float64, correct bool) {
	top, at := s.k.max(row), row[label]
	correct = at == top
	for j := 0; correct && j < label; j++ {
		correct = row[j] != top // the first of equals counts
	}
	e := d
	if e == nil {
		if len(s.row) < len(row) {
			s.row = make([]float32, len(row))
		}
		e = s.row[:len(row)]
	}
	sum := s.k.exps(e, row, 1, -top)
	if d != nil {
		own := float64(e[label])/float64(sum) - 1
		s.k.scale(d, e, scale/sum)
		d[label] = float32(own * float64(scale))
	}
	return logarithm(float64(sum)) - (float64(at) - float64(top)), correct
}

// exp and logarithm are our own because package math's differ in their last bits between
// processors (assembly here, fused multiply-add there). Every product is converted, see the
// package's comment. Relative errors are below 1e-14.

// exp is e**x for x <= 0, or hardly above (and NaN).
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
		y = 1 + float64(float64(r*y)*inverse[i])
	}
	return float64(y * math.Float64frombits(uint64(1023+int(k))<<52))
}

var inverse = [14]float64{0, 1, 1. / 2, 1. / 3, 1. / 4, 1. / 5, 1. / 6, 1. / 7, 1. / 8, 1. / 9, 1. / 10, 1. / 11, 1. / 12, 1. / 13}

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
