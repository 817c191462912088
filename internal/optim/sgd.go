package optim

import (
	"fmt"

	"github.com/musterml/muster/internal/id"
)

// sgd is torch.optim.SGD: g += wd*w; buf = m*buf + g; w -= lr*buf. PyTorch starts with
// buf = g at the first step; from a buffer of zeros the formula gives the same value.
type sgd struct {
	k                   *vectors
	lr, momentum, decay float32
}

func newSGD(c Config) (Optimizer, []string) {
	var wrong []string
	if !(c.Momentum >= 0 && c.Momentum < 1) {
		wrong = append(wrong, fmt.Sprintf("momentum is %v, must be in [0, 1)", c.Momentum))
	}
	return &sgd{k: available()[0], lr: float32(c.LR), momentum: float32(c.Momentum), decay: float32(c.WeightDecay)}, wrong
}

func (o *sgd) Slots() int {
	if o.momentum == 0 {
		return 0
	}
	return 1
}

func (o *sgd) Update(step id.Step, w, grad []float32, slots [][]float32) {
	o.UpdateTo(step, w, slots, w, grad, slots)
}

func (o *sgd) UpdateTo(_ id.Step, dstW []float32, dstSlots [][]float32, w, grad []float32, slots [][]float32) {
	if o.momentum == 0 {
		n := o.k.updatePlain(dstW, w, grad, o.lr, o.decay)
		sgdPlain(dstW[n:], w[n:], grad[n:], o.lr, o.decay)
		return
	}
	dm, m := dstSlots[0], slots[0]
	n := o.k.updateMomentum(dstW, dm, w, grad, m, o.lr, o.momentum, o.decay)
	sgdMomentum(dstW[n:], dm[n:], w[n:], grad[n:], m[n:], o.lr, o.momentum, o.decay)
}

func sgdPlain(dw, w, g []float32, lr, decay float32) {
	n := len(w)
	dw, g = dw[:n], g[:n]
	for i, x := range w {
		d := g[i] + float32(decay*x)
		dw[i] = x - float32(lr*d)
	}
}

func sgdMomentum(dw, dm, w, g, m []float32, lr, momentum, decay float32) {
	n := len(w)
	dw, dm, g, m = dw[:n], dm[:n], g[:n], m[:n]
	if decay == 0 {
		// A loop of its own for the usual case: it is bound by memory, not by arithmetic.
		for i, x := range w {
			b := float32(momentum*m[i]) + g[i]
			dm[i] = b
			dw[i] = x - float32(lr*b)
		}
		return
	}
	for i, x := range w {
		d := g[i] + float32(decay*x)
		b := float32(momentum*m[i]) + d
		dm[i] = b
		dw[i] = x - float32(lr*b)
	}
}
