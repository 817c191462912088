// Package vec has the loops of package optim over whole vectors. Every function exists in plain Go, which is the
// oracle and the fallback, and in generated assembly for AVX-512 and AVX2; all of them give the same bits. In all
// functions the slices have the same length, and a destination is its source or does not overlap it.
package vec

// Set is one instruction set's kernels.
type Set struct {
	name string
	asm  bool // the assembly works on positive multiples of block elements

	sgd                func(dw, w, g *float32, n int, lr, decay float32)
	momentum, nesterov func(dw, dm, w, g, m *float32, n int, lr, momentum, decay float32)
	adagrad            func(dw, dm, w, g, m *float32, n int, lr, decay, eps float32)
	rmsprop            func(dw, dm, w, g, m *float32, n int, lr, decay, beta2, keep2, eps float32)
	rmspropMomentum    func(dw, dm, dv, w, g, m, v *float32, n int, lr, momentum, decay, beta2, keep2, eps float32)
	adam               func(dw, dm, dv, w, g, m, v *float32, n int, decay, shrink, keep1, beta2, keep2, root, eps, factor float32)
	scale              func(x *float32, n int, a float32)
	sumSquares         func(x *float32, n int) (sums [16]float64)
}

const block = 16

// Sets lists all sets that this processor has, the best first; plain Go is the last.
func Sets() []*Set { return available() }

// Name is "avx512", "avx2" or "go".
func (s *Set) Name() string { return s.name }

// whole is how many of n elements the assembly takes.
func (s *Set) whole(n int) int {
	if !s.asm {
		return 0
	}
	return n - n%block
}

// SGD is dw = w - lr*d, d = g + decay*w.
func (s *Set) SGD(dw, w, g []float32, lr, decay float32) {
	n := s.whole(len(w))
	if n > 0 {
		s.sgd(&dw[0], &w[0], &g[0], n, lr, decay)
	}
	sgd(dw[n:], w[n:], g[n:], lr, decay)
}

// Momentum is dm = momentum*m + d, d = g + decay*w, and dw = w - lr*dm.
func (s *Set) Momentum(dw, dm, w, g, m []float32, lr, momentum, decay float32) {
	n := s.whole(len(w))
	if n > 0 {
		s.momentum(&dw[0], &dm[0], &w[0], &g[0], &m[0], n, lr, momentum, decay)
	}
	momentumSGD(dw[n:], dm[n:], w[n:], g[n:], m[n:], lr, momentum, decay)
}

// Nesterov is dm = momentum*m + d, d = g + decay*w, and dw = w - lr*(d + momentum*dm).
func (s *Set) Nesterov(dw, dm, w, g, m []float32, lr, momentum, decay float32) {
	n := s.whole(len(w))
	if n > 0 {
		s.nesterov(&dw[0], &dm[0], &w[0], &g[0], &m[0], n, lr, momentum, decay)
	}
	nesterov(dw[n:], dm[n:], w[n:], g[n:], m[n:], lr, momentum, decay)
}

// Adagrad is dm = m + d*d, d = g + decay*w, and dw = w - lr*d/(sqrt(dm) + eps).
func (s *Set) Adagrad(dw, dm, w, g, m []float32, lr, decay, eps float32) {
	n := s.whole(len(w))
	if n > 0 {
		s.adagrad(&dw[0], &dm[0], &w[0], &g[0], &m[0], n, lr, decay, eps)
	}
	adagrad(dw[n:], dm[n:], w[n:], g[n:], m[n:], lr, decay, eps)
}

// RMSProp is the scalars of Set.RMSProp and Set.RMSPropMomentum.
type RMSProp struct {
	LR       float32
	Momentum float32
	Decay    float32 // times the weight is added to the gradient
	Beta2    float32 // weight of the old mean of squares
	Keep2    float32 // weight of the new square
	Eps      float32
}

// RMSProp is dm = Beta2*m + Keep2*d*d, d = g + Decay*w, and dw = w - LR*d/(sqrt(dm) + Eps).
func (s *Set) RMSProp(dw, dm, w, g, m []float32, f *RMSProp) {
	n := s.whole(len(w))
	if n > 0 {
		s.rmsprop(&dw[0], &dm[0], &w[0], &g[0], &m[0], n, f.LR, f.Decay, f.Beta2, f.Keep2, f.Eps)
	}
	rmsprop(dw[n:], dm[n:], w[n:], g[n:], m[n:], f)
}

// RMSPropMomentum is dm as RMSProp has it, dv = Momentum*v + d/(sqrt(dm) + Eps), and dw = w - LR*dv.
func (s *Set) RMSPropMomentum(dw, dm, dv, w, g, m, v []float32, f *RMSProp) {
	n := s.whole(len(w))
	if n > 0 {
		s.rmspropMomentum(&dw[0], &dm[0], &dv[0], &w[0], &g[0], &m[0], &v[0], n, f.LR, f.Momentum, f.Decay, f.Beta2, f.Keep2, f.Eps)
	}
	rmspropMomentum(dw[n:], dm[n:], dv[n:], w[n:], g[n:], m[n:], v[n:], f)
}

// Adam is the scalars of Set.Adam.
type Adam struct {
	Decay  float32 // times the weight is added to the gradient
	Shrink float32 // multiplies the weight
	Keep1  float32 // weight of the new gradient in the mean
	Beta2  float32 // weight of the old mean of squares
	Keep2  float32 // weight of the new square
	Root   float32 // divides the root of the mean of squares
	Eps    float32 // is added to that
	Factor float32 // multiplies the mean
}

// Adam is dm = m + Keep1*(d-m), d = g + Decay*w, dv = Beta2*v + Keep2*d*d, and
// dw = Shrink*w - Factor*dm/(sqrt(dv)/Root + Eps).
func (s *Set) Adam(dw, dm, dv, w, g, m, v []float32, f *Adam) {
	n := s.whole(len(w))
	if n > 0 {
		s.adam(&dw[0], &dm[0], &dv[0], &w[0], &g[0], &m[0], &v[0], n, f.Decay, f.Shrink, f.Keep1, f.Beta2, f.Keep2, f.Root, f.Eps, f.Factor)
	}
	adam(dw[n:], dm[n:], dv[n:], w[n:], g[n:], m[n:], v[n:], f)
}

// Scale is x = a*x.
func (s *Set) Scale(x []float32, a float32) {
	n := s.whole(len(x))
	if n > 0 {
		s.scale(&x[0], n, a)
	}
	for i := n; i < len(x); i++ {
		x[i] *= a
	}
}

// Partials are sixteen partial sums: element i of a vector goes to the one numbered i mod 16.
type Partials [block]float64

// Total adds the partial sums: k and k+8, then k and k+4, k+2, k+1.
func (p *Partials) Total() float64 {
	for half := len(p) / 2; half > 0; half /= 2 {
		for k := range half {
			p[k] += p[k+half]
		}
	}
	return p[0]
}

// SumSquares is the sum of the squares of x, in the order of Partials, in float64, where the squares are exact.
func (s *Set) SumSquares(x []float32) float64 {
	var p Partials
	n := s.whole(len(x))
	if n > 0 {
		p = s.sumSquares(&x[0], n)
	}
	for i := n; i < len(x); i++ {
		p[i%block] += float64(x[i]) * float64(x[i])
	}
	return p.Total()
}
