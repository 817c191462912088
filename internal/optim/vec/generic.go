package vec

import "math"

// The plain Go. Every product that feeds a sum is converted, which forbids the compiler to fuse the two.

func sgd(dw, w, g []float32, lr, decay float32) {
	n := len(w)
	dw, g = dw[:n], g[:n]
	for i, x := range w {
		d := g[i] + float32(decay*x)
		dw[i] = x - float32(lr*d)
	}
}

func momentumSGD(dw, dm, w, g, m []float32, lr, momentum, decay float32) {
	n := len(w)
	dw, dm, g, m = dw[:n], dm[:n], g[:n], m[:n]
	for i, x := range w {
		d := g[i] + float32(decay*x)
		b := float32(momentum*m[i]) + d
		dm[i] = b
		dw[i] = x - float32(lr*b)
	}
}

func nesterov(dw, dm, w, g, m []float32, lr, momentum, decay float32) {
	n := len(w)
	dw, dm, g, m = dw[:n], dm[:n], g[:n], m[:n]
	for i, x := range w {
		d := g[i] + float32(decay*x)
		b := float32(momentum*m[i]) + d
		dm[i] = b
		d += float32(momentum * b)
		dw[i] = x - float32(lr*d)
	}
}

func adagrad(dw, dm, w, g, m []float32, lr, decay, eps float32) {
	n := len(w)
	dw, dm, g, m = dw[:n], dm[:n], g[:n], m[:n]
	for i, x := range w {
		d := g[i] + float32(decay*x)
		s := m[i] + float32(d*d)
		dm[i] = s
		dw[i] = x - float32(lr*d)/(Root(s)+eps)
	}
}

func rmsprop(dw, dm, w, g, m []float32, f *RMSProp) {
	n := len(w)
	dw, dm, g, m = dw[:n], dm[:n], g[:n], m[:n]
	c := *f
	for i, x := range w {
		d := g[i] + float32(c.Decay*x)
		s := float32(c.Beta2*m[i]) + float32(float32(c.Keep2*d)*d)
		dm[i] = s
		dw[i] = x - float32(c.LR*d)/(Root(s)+c.Eps)
	}
}

func rmspropMomentum(dw, dm, dv, w, g, m, v []float32, f *RMSProp) {
	n := len(w)
	dw, dm, dv, g, m, v = dw[:n], dm[:n], dv[:n], g[:n], m[:n], v[:n]
	c := *f
	for i, x := range w {
		d := g[i] + float32(c.Decay*x)
		s := float32(c.Beta2*m[i]) + float32(float32(c.Keep2*d)*d)
		b := float32(c.Momentum*v[i]) + d/(Root(s)+c.Eps)
		dm[i], dv[i] = s, b
		dw[i] = x - float32(c.LR*b)
	}
}

func adam(dw, dm, dv, w, g, m, v []float32, f *Adam) {
	n := len(w)
	dw, dm, dv, g, m, v = dw[:n], dm[:n], dv[:n], g[:n], m[:n], v[:n]
	c := *f
	for i, x := range w {
		d := g[i] + float32(c.Decay*x)
		a := m[i] + float32(c.Keep1*(d-m[i]))
		b := float32(c.Beta2*v[i]) + float32(float32(c.Keep2*d)*d)
		dm[i], dv[i] = a, b
		dw[i] = float32(c.Shrink*x) - float32(c.Factor*a)/(Root(b)/c.Root+c.Eps)
	}
}

// Root is the correctly rounded root of x: that of a float32 taken in float64 and rounded back is, and the compiler
// makes it one instruction.
func Root(x float32) float32 { return float32(math.Sqrt(float64(x))) }
