package optim

import (
	"math"

	"github.com/musterml/muster/internal/optim/vec"
)

// The loops that are plain Go everywhere (the others are those of package vec); their formulas stand at Kind. Every product that feeds a sum is converted.

// NormBlock is how many elements of a tensor's norm, in LAMB, are added in one order (vec.Partials), by themselves, before the blocks are added in theirs: a GPU
// has many at a time.
const NormBlock = 16384

// lamb goes over the tensor twice: for the moments and the norms, and for the update.
func (r *Rule) lamb(k *vec.Set, dw, dm, dv, w, g, m, v []float32) {
	c := *r
	update := func(i int) float32 {
		return dm[i]/c.Bias1/(vec.Root(dv[i])/c.Root+c.Eps) + float32(c.Decay*w[i])
	}
	var weight, step float64 // squares
	for lo := 0; lo < len(g); lo += NormBlock {
		hi := min(lo+NormBlock, len(g))
		var squares vec.Partials
		for i := lo; i < hi; i++ {
			d := g[i]
			dm[i] = m[i] + float32(c.Keep1*(d-m[i]))
			dv[i] = float32(c.Beta2*v[i]) + float32(float32(c.Keep2*d)*d)
			u := float64(update(i))
			squares[(i-lo)%len(squares)] += float64(u * u)
		}
		weight += k.SumSquares(w[lo:hi])
		step += squares.Total()
	}
	trust := 1.0
	if weight != 0 && step != 0 {
		trust = math.Sqrt(weight) / math.Sqrt(step)
	}
	rate := float32(float64(c.LR) * trust)
	for i, x := range w {
		dw[i] = x - float32(rate*update(i))
	}
}

func (r *Rule) ftrl(dw, dz, dn, w, g, z, n []float32) {
	lr, l1, l2, beta := float64(r.LR), float64(r.L1), float64(r.L2), float64(r.Beta)
	for i, x := range w {
		d := float64(g[i])
		sum := float32(float64(n[i]) + float64(d*d))
		root := math.Sqrt(float64(sum))
		sigma := (root - math.Sqrt(float64(n[i]))) / lr
		rest := float32(float64(z[i]) + d - float64(sigma*float64(x)))
		dz[i], dn[i] = rest, sum
		if q := float64(rest); math.Abs(q) <= l1 {
			dw[i] = 0
		} else {
			dw[i] = float32((math.Copysign(l1, q) - q) / ((beta+root)/lr + l2))
		}
	}
}
