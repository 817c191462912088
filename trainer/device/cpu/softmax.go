package cpu

import (
	"fmt"
	"slices"

	"github.com/musterml/muster/internal/samebits"
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
	loss, together := s.lossOfMany, 0
	if p.Classes < manyClasses {
		loss, together = s.lossOfFew, fewTogether/p.Classes
	}
	var t device.Total
	for i := range p.N {
		if together > 0 && i%together == 0 {
			s.expsOfFew(logits[i*p.Classes:min(i+together, p.N)*p.Classes], p.Classes)
		}
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

// fewTogether is how many exponentials of rows of few classes are taken at a time: more than the processor sees of a row.
const fewTogether = 8 * manyClasses

// expsOfFew leaves e**(x - the row's largest) of some rows in s.exps, where lossOfFew takes them from.
func (s *stream) expsOfFew(x []float32, classes int) {
	all := grown(&s.few, fewTogether)[:len(x)]
	for i := 0; i < len(x); i += classes {
		row := x[i : i+classes]
		top := float64(slices.Max(row))
		for j, v := range row {
			all[i+j] = float64(v) - top
		}
	}
	samebits.Exps(all, all)
	s.exps = all
}

// manyClasses is from where on the float32 row kernels are used.
const manyClasses = 128

// lossOfFew is the loss of one row, whether its largest logit is the label, and in d, if it is not nil, the
// gradient. d may be row. The exponentials are the next of s.exps.
func (s *stream) lossOfFew(row []float32, label int, d []float32, scale float32) (loss float64, correct bool) {
	best := 0
	for j, v := range row {
		if v > row[best] {
			best = j
		}
	}
	top, sum := float64(row[best]), 0.0
	exps := s.exps[:len(row)]
	s.exps = s.exps[len(row):]
	for _, e := range exps {
		sum += e
	}
	loss = samebits.Log(sum) - (float64(row[label]) - top)
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
	return samebits.Log(float64(sum)) - (float64(at) - float64(top)), correct
}
