package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/reg"
)

// names is a list of arguments.
func names(n ...string) []string { return n }

// rows writes the row kernels. What each does is said once, in the first line; see type kernels
// for the whole list in Go.
func rows(v isa) {
	rowKernel(v, "rowSum", "returns the sum of x[i].", names("x"), nil, 1, func(r *row) {
		r.add(0, r.load("x"))
	})
	rowKernel(v, "rowSquares", "returns the sum of (x[i]-mean)^2.", names("x"), names("mean"), 1, func(r *row) {
		d := r.load("x")
		VSUBPS(r.scalars["mean"], d, d)
		r.fma(d, d, r.sums[0][r.half])
	})
	rowKernel(v, "rowDot", "returns the sum of x[i]*y[i].", names("x", "y"), nil, 1, func(r *row) {
		x := r.load("x")
		VFMADD231PS(r.mem("y"), x, r.sums[0][r.half])
	})
	rowKernel(v, "rowScale", "writes y[i] = a*x[i].", names("y", "x"), names("a"), 0, func(r *row) {
		x := r.load("x")
		VMULPS(r.scalars["a"], x, x)
		r.store(x, "y")
	})
	rowKernel(v, "rowAdd", "writes y[i] = max(floor, a[i]+b[i]).", names("y", "a", "b"), names("floor"), 0, func(r *row) {
		x := r.load("a")
		VADDPS(r.mem("b"), x, x)
		VMAXPS(x, r.scalars["floor"], x)
		r.store(x, "y")
	})
	exponentials(v)
	functions(v)
	layerNorm(v)
	batchNorm(v)
}

func (r *row) fma(a, b, sum reg.VecVirtual) { VFMADD231PS(a, b, sum) }

func exponentials(v isa) {
	rowKernel(v, "rowExp", "writes y[i] = e**(a*x[i]+b), of which the exponent must not be above 0, and returns the sum.",
		names("y", "x"), names("a", "b"), 1, func(r *row) {
			x := r.load("x")
			VFMADD213PS(r.scalars["b"], r.scalars["a"], x)
			y := v.exp(x)
			r.add(0, y)
			r.store(y, "y")
		})
	rowKernel(v, "rowSoftmaxBack", "writes dx[i] = a*y[i]*(dy[i]-mean).", names("dx", "dy", "y"), names("mean", "a"), 0, func(r *row) {
		d := r.load("dy")
		VSUBPS(r.scalars["mean"], d, d)
		VMULPS(r.mem("y"), d, d)
		VMULPS(r.scalars["a"], d, d)
		r.store(d, "dx")
	})
}

// functions are pairs: y[i] = f(x[i]), and dx[i] = dy[i]*f'(x[i]).
func functions(v isa) {
	pair := func(name, f string, forward, slope func(x reg.VecVirtual) reg.VecVirtual) {
		rowKernel(v, "row"+name, "writes y[i] = "+f+".", names("y", "x"), nil, 0, func(r *row) {
			r.store(forward(r.load("x")), "y")
		})
		rowKernel(v, "row"+name+"Back", "writes dx[i] = dy[i] times the slope of "+f+".", names("dx", "dy", "x"), nil, 0, func(r *row) {
			d := slope(r.load("x"))
			VMULPS(r.mem("dy"), d, d)
			r.store(d, "dx")
		})
	}
	one := func() reg.VecVirtual {
		y := v.reg()
		VMOVUPS(constant(1), y)
		return y
	}
	pair("GELU", "x[i]*Phi(x[i])", func(x reg.VecVirtual) reg.VecVirtual {
		phi, _ := v.normal(x)
		VMULPS(phi, x, x)
		return x
	}, func(x reg.VecVirtual) reg.VecVirtual { // Phi + x*phi
		phi, e := v.normal(x)
		VMULPS(constant(0.3989422804014327), e, e)
		VFMADD231PS(e, x, phi)
		return phi
	})
	pair("SiLU", "x[i]*sigmoid(x[i])", func(x reg.VecVirtual) reg.VecVirtual {
		VMULPS(v.sigmoid(x), x, x)
		return x
	}, func(x reg.VecVirtual) reg.VecVirtual { // s + s*x*(1-s)
		s, c := v.sigmoid(x), one()
		VSUBPS(s, c, c)
		VMULPS(x, c, c)
		VFMADD213PS(s, s, c)
		return c
	})
	pair("Tanh", "tanh(x[i])", v.tanh, func(x reg.VecVirtual) reg.VecVirtual { // 1 - y*y
		y, c := v.tanh(x), one()
		VFNMADD231PS(y, y, c)
		return c
	})
	pair("Sigmoid", "sigmoid(x[i])", v.sigmoid, func(x reg.VecVirtual) reg.VecVirtual { // s - s*s
		s := v.sigmoid(x)
		c := v.reg()
		VMULPS(s, s, c)
		VSUBPS(c, s, c)
		return c
	})
}

func layerNorm(v isa) {
	// normed is (x - mean) * rstd.
	normed := func(r *row) reg.VecVirtual {
		x := r.load("x")
		VSUBPS(r.scalars["mean"], x, x)
		VMULPS(r.scalars["rstd"], x, x)
		return x
	}
	rowKernel(v, "rowNormalise", "writes y[i] = (x[i]-mean)*rstd*gamma[i] + beta[i].",
		names("y", "x", "gamma", "beta"), names("mean", "rstd"), 0, func(r *row) {
			x, g := normed(r), r.load("gamma")
			VFMADD213PS(r.mem("beta"), g, x)
			r.store(x, "y")
		})
	rowKernel(v, "rowNormSums", "returns the sums of g[i] = dy[i]*gamma[i] and of g[i]*(x[i]-mean)*rstd.",
		names("dy", "gamma", "x"), names("mean", "rstd"), 2, func(r *row) {
			x, g := normed(r), r.load("dy")
			VMULPS(r.mem("gamma"), g, g)
			r.add(0, g)
			r.fma(g, x, r.sums[1][r.half])
		})
	rowKernel(v, "rowNormBack", "writes dx[i] = rstd*(dy[i]*gamma[i] - m0 - z*m1), z = (x[i]-mean)*rstd, and adds dy[i]*z to dgamma[i], dy[i] to dbeta[i].",
		names("dx", "dy", "gamma", "x", "dgamma", "dbeta"), names("mean", "rstd", "m0", "m1"), 0, func(r *row) {
			z, dy := normed(r), r.load("dy")
			s := r.load("dgamma")
			r.fma(dy, z, s)
			r.store(s, "dgamma")
			VADDPS(r.mem("dbeta"), dy, s)
			r.store(s, "dbeta")
			VMULPS(r.mem("gamma"), dy, dy)
			VSUBPS(r.scalars["m0"], dy, dy)
			VFNMADD231PS(r.scalars["m1"], z, dy)
			VMULPS(r.scalars["rstd"], dy, dy)
			r.store(dy, "dx")
		})
}

// batchNorm is by channel, so what are scalars for a layer's norm are rows here.
func batchNorm(v isa) {
	rowKernel(v, "rowAddSquares", "adds (x[i]-mean[i])^2 to sum[i].", names("sum", "x", "mean"), nil, 0, func(r *row) {
		d, s := r.load("x"), r.load("sum")
		VSUBPS(r.mem("mean"), d, d)
		r.fma(d, d, s)
		r.store(s, "sum")
	})
	rowKernel(v, "rowAddProducts", "adds dy[i] to s0[i], dy[i]*(x[i]-mean[i]) to s1[i].", names("s0", "s1", "dy", "x", "mean"), nil, 0, func(r *row) {
		d, dy := r.load("x"), r.load("dy")
		s := r.load("s1")
		VSUBPS(r.mem("mean"), d, d)
		r.fma(d, dy, s)
		r.store(s, "s1")
		VADDPS(r.mem("s0"), dy, dy)
		r.store(dy, "s0")
	})
	rowKernel(v, "rowAffine", "writes y[i] = max(floor, x[i]*a[i] + b[i]).", names("y", "x", "a", "b"), names("floor"), 0, func(r *row) {
		x, a := r.load("x"), r.load("a")
		VFMADD213PS(r.mem("b"), a, x)
		VMAXPS(x, r.scalars["floor"], x)
		r.store(x, "y")
	})
	rowKernel(v, "rowAffine2", "writes y[i] = u[i]*a[i] + (x[i]*b[i] + c[i]).", names("y", "u", "a", "x", "b", "c"), nil, 0, func(r *row) {
		x, b := r.load("x"), r.load("b")
		VFMADD213PS(r.mem("c"), b, x)
		u := r.load("u")
		VFMADD231PS(r.mem("a"), u, x)
		r.store(x, "y")
	})
}
