package optim

import (
	"math"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim/vec"
	"github.com/musterml/muster/internal/samebits"
)

// Kind is the formula of a Rule. In the formulas w is a weight, g its gradient, d = g + Decay*w, and m and v are its
// slots 0 and 1, those to the left of = the new ones. All arithmetic is in float32, each operation
// rounded by itself, in the order in which it is written, unless something else is said.
type Kind uint8

const (
	// SGD is w = w - LR*d.
	SGD Kind = iota
	// Momentum is m = Momentum*m + d, w = w - LR*m. PyTorch starts with m = d at the first step; from zero the
	// formula gives the same.
	Momentum
	// Nesterov is m = Momentum*m + d, w = w - LR*(d + Momentum*m).
	Nesterov
	// Adagrad is m = m + d*d, w = w - LR*d/(sqrt(m) + Eps).
	Adagrad
	// RMSProp is m = Beta2*m + (Keep2*d)*d, w = w - LR*d/(sqrt(m) + Eps).
	RMSProp
	// RMSPropMomentum is m = Beta2*m + (Keep2*d)*d, v = Momentum*v + d/(sqrt(m) + Eps), w = w - LR*v.
	RMSPropMomentum
	// Adam is m = m + Keep1*(d-m), v = Beta2*v + (Keep2*d)*d, w = Shrink*w - LR*m/(sqrt(v)/Root + Eps): Kingma and
	// Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1, with the bias corrections folded into Root
	// and LR as PyTorch does; and with Shrink, Loshchilov and Hutter, "Decoupled weight decay regularization", 2019.
	Adam
	// LAMB is m and v as in Adam but of g itself, u = (m/Bias1)/(sqrt(v)/Root + Eps) + Decay*w, and w = w - (LR*|w|/|u|)*u, where
	// |w| and |u| are the roots of the sums of squares over the tensor, in float64: of NormBlock elements in the order of vec.Partials, and
	// of these sums in theirs (and the quotient 1 where either is zero): You et al., "Large batch optimization for deep learning", 2020,
	// algorithm 2, with the identity for phi.
	LAMB
	// FTRL is FTRL-Proximal: McMahan et al., "Ad click prediction: a view from the trenches", 2013, algorithm 1,
	// with z = m and n = v: n = n + g*g, s = (sqrt(n) - sqrt(n before))/LR, z = z + g - s*w, and w = 0 where
	// |z| <= L1, else (sign(z)*L1 - z)/((Beta + sqrt(n))/LR + L2). In float64, z, n and w rounded to float32 at
	// once. A weight's initial value counts until its first update.
	FTRL

	// Kinds is how many there are.
	Kinds
)

// Slots is how many values are kept for each parameter.
func (k Kind) Slots() int {
	return [...]int{SGD: 0, Momentum: 1, Nesterov: 1, Adagrad: 1, RMSProp: 1, RMSPropMomentum: 2, Adam: 2, LAMB: 2, FTRL: 2}[k]
}

// Rule is the update of one step: a formula and its scalars, each computed in float64 and rounded once. Scalars that
// the formula does not name mean nothing.
type Rule struct {
	Kind Kind

	LR       float32 // the rate of the step; of Adam with the correction of the mean's bias
	Decay    float32
	Shrink   float32
	Momentum float32
	Keep1    float32 // 1-beta1: the weight of a new gradient
	Beta2    float32 // the weight of the old mean of squares (alpha of rmsprop)
	Keep2    float32 // 1-Beta2
	Bias1    float32 // 1-beta1^t, the mean's bias at step t-1
	Root     float32 // sqrt(1-beta2^t)
	Eps      float32
	L1, L2   float32
	Beta     float32
}

// descent is the rule of sgd, momentum and nesterov.
func descent(c *Config, lr float64, _ id.Step) Rule {
	return Rule{LR: float32(lr), Momentum: float32(c.Momentum), Decay: float32(c.WeightDecay)}
}

// scaled is the rule of adagrad and rmsprop.
func scaled(c *Config, lr float64, _ id.Step) Rule {
	return Rule{LR: float32(lr), Momentum: float32(c.Momentum), Decay: float32(c.WeightDecay),
		Beta2: float32(c.Alpha), Keep2: float32(1 - c.Alpha), Eps: float32(c.Epsilon)}
}

// moments is what adam, adamw and lamb have in common.
func moments(c *Config, step id.Step) (r Rule, bias1 float64) {
	t := uint64(step) + 1
	// The conversions keep the products apart from the subtractions (no fusing).
	bias1 = 1 - float64(samebits.Power(c.Beta1, t))
	bias2 := 1 - float64(samebits.Power(c.Beta2, t))
	return Rule{
		Keep1: float32(1 - c.Beta1), Beta2: float32(c.Beta2), Keep2: float32(1 - c.Beta2),
		Bias1: float32(bias1), Root: float32(math.Sqrt(bias2)), Eps: float32(c.Epsilon),
	}, bias1
}

func adam(c *Config, lr float64, step id.Step) Rule {
	r, bias := moments(c, step)
	r.LR, r.Decay, r.Shrink = float32(lr/bias), float32(c.WeightDecay), 1
	return r
}

func adamW(c *Config, lr float64, step id.Step) Rule {
	r, bias := moments(c, step)
	r.LR, r.Shrink = float32(lr/bias), float32(1-float64(lr*c.WeightDecay))
	return r
}

func lamb(c *Config, lr float64, step id.Step) Rule {
	r, _ := moments(c, step)
	r.LR, r.Decay = float32(lr), float32(c.WeightDecay)
	return r
}

func ftrl(c *Config, lr float64, _ id.Step) Rule {
	return Rule{LR: float32(lr), L1: float32(c.L1), L2: float32(c.L2), Beta: float32(c.Beta)}
}

// kernels is the best set that this processor has; all of them give the same bits.
var kernels = vec.Sets()[0]

// Apply reads w, grad and slots and writes dstW and dstSlots; all vectors have the same length, and a destination is its
// source or does not overlap it. There are Kind.Slots slots. For LAMB the vectors are one whole tensor.
func (r *Rule) Apply(dstW []float32, dstSlots [][]float32, w, grad []float32, slots [][]float32) {
	r.apply(kernels, dstW, dstSlots, w, grad, slots)
}

func (r *Rule) apply(k *vec.Set, dw []float32, ds [][]float32, w, g []float32, s [][]float32) {
	switch r.Kind {
	case SGD:
		k.SGD(dw, w, g, r.LR, r.Decay)
	case Momentum:
		k.Momentum(dw, ds[0], w, g, s[0], r.LR, r.Momentum, r.Decay)
	case Nesterov:
		k.Nesterov(dw, ds[0], w, g, s[0], r.LR, r.Momentum, r.Decay)
	case Adagrad:
		k.Adagrad(dw, ds[0], w, g, s[0], r.LR, r.Decay, r.Eps)
	case RMSProp:
		k.RMSProp(dw, ds[0], w, g, s[0], r.rmsprop())
	case RMSPropMomentum:
		k.RMSPropMomentum(dw, ds[0], ds[1], w, g, s[0], s[1], r.rmsprop())
	case Adam:
		k.Adam(dw, ds[0], ds[1], w, g, s[0], s[1], &vec.Adam{Decay: r.Decay, Shrink: r.Shrink, Keep1: r.Keep1,
			Beta2: r.Beta2, Keep2: r.Keep2, Root: r.Root, Eps: r.Eps, Factor: r.LR})
	case LAMB:
		r.lamb(k, dw, ds[0], ds[1], w, g, s[0], s[1])
	case FTRL:
		r.ftrl(dw, ds[0], ds[1], w, g, s[0], s[1])
	}
}

func (r *Rule) rmsprop() *vec.RMSProp {
	return &vec.RMSProp{LR: r.LR, Momentum: r.Momentum, Decay: r.Decay, Beta2: r.Beta2, Keep2: r.Keep2, Eps: r.Eps}
}
