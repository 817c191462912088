package optim

import (
	"fmt"
	"math"

	"github.com/musterml/muster/internal/id"
)

// adam is torch.optim.Adam (Kingma and Ba, "Adam: a method for stochastic
// optimization", 2015, algorithm 1, with the bias corrections folded into two scalars
// as PyTorch does). Slot 0 is the mean of the gradient, slot 1 of its square.
type adam struct {
	k                     *vectors
	lr, beta1, beta2, eps float64
	decay                 float32
}

func newAdam(c Config) (Optimizer, []string) {
	orDefault := func(v, def float64) float64 {
		if v == 0 {
			return def
		}
		return v
	}
	o := &adam{
		k:     available()[0],
		lr:    c.LR,
		beta1: orDefault(c.Beta1, 0.9),
		beta2: orDefault(c.Beta2, 0.999),
		eps:   orDefault(c.Epsilon, 1e-8),
		decay: float32(c.WeightDecay),
	}
	var wrong []string
	for _, b := range []struct {
		name  string
		value float64
	}{{"beta1", o.beta1}, {"beta2", o.beta2}} {
		if !(b.value > 0 && b.value < 1) {
			wrong = append(wrong, fmt.Sprintf("%s is %v, must be in (0, 1)", b.name, b.value))
		}
	}
	if !(o.eps > 0) || math.IsInf(o.eps, 0) {
		wrong = append(wrong, fmt.Sprintf("epsilon is %v, must be a number above 0", o.eps))
	}
	return o, wrong
}

func (o *adam) Slots() int { return 2 }

func (o *adam) Update(step id.Step, w, grad []float32, slots [][]float32) {
	o.UpdateTo(step, w, slots, w, grad, slots)
}

// adamFactors are the scalars of one update, rounded once to float32.
type adamFactors struct {
	keep1  float32 // 1-beta1: weight of the new gradient in the mean
	beta2  float32
	keep2  float32 // 1-beta2
	root   float32 // sqrt(1-beta2^t), divides the root of the second mean
	eps    float32
	factor float32 // lr/(1-beta1^t)
	decay  float32
}

// factors computes the scalars for the update that makes the state at step+1.
func (o *adam) factors(step id.Step) adamFactors {
	t := uint64(step) + 1
	// The conversions keep the products apart from the subtractions (no fusing).
	bc1 := 1 - float64(power(o.beta1, t))
	bc2 := 1 - float64(power(o.beta2, t))
	return adamFactors{
		keep1:  float32(1 - o.beta1),
		beta2:  float32(o.beta2),
		keep2:  float32(1 - o.beta2),
		root:   float32(math.Sqrt(bc2)),
		eps:    float32(o.eps),
		factor: float32(o.lr / bc1),
		decay:  o.decay,
	}
}

func (o *adam) UpdateTo(step id.Step, dstW []float32, dstSlots [][]float32, w, grad []float32, slots [][]float32) {
	f := o.factors(step)
	dm, dv, m, v := dstSlots[0], dstSlots[1], slots[0], slots[1]
	n := o.k.updateAdam(dstW, dm, dv, w, grad, m, v, f)
	adamLoop(dstW[n:], dm[n:], dv[n:], w[n:], grad[n:], m[n:], v[n:], f)
}

func adamLoop(dw, dm, dv, w, g, m, v []float32, f adamFactors) {
	n := len(w)
	dw, dm, dv, g, m, v = dw[:n], dm[:n], dv[:n], g[:n], m[:n], v[:n]
	for i, x := range w {
		d := g[i]
		if f.decay != 0 {
			d += float32(f.decay * x)
		}
		a := m[i] + float32(f.keep1*(d-m[i]))
		b := float32(f.beta2*v[i]) + float32(float32(f.keep2*d)*d)
		dm[i], dv[i] = a, b
		// The root of a float32 taken in float64 and rounded back is the correctly
		// rounded float32 root; the compiler makes it one instruction.
		den := float32(math.Sqrt(float64(b)))/f.root + f.eps
		dw[i] = x - float32(f.factor*a)/den
	}
}
