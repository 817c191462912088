package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The polynomials are minimax fits of ours (Lawson's iteration in float64, then rounded).
var (
	// (e**r - 1 - r) / r**2 for |r| <= ln(2)/2, to 3e-9.
	expPolynomial = []float32{0.5, 0.166665181517601, 0.04166620597243309, 0.008368954062461853, 0.0013950599823147058}
	// Phi(-t) * e**(t*t/2) as a polynomial in u = 1/(1+0.3t), for 0 <= t <= 13.2, to 6e-8 relative.
	tailPolynomial = []float32{6.593181296921102e-06, 0.11949746310710907, 0.12185091525316238, 0.09495405852794647, 0.1419021040201187,
		-0.07559153437614441, 0.22786171734333038, -0.1687803566455841, 0.038299061357975006}
)

const (
	expLowest = -87 // e**x is taken for 0 below
	log2e     = 1.44269504088896338700
	ln2Hi     = 0.693145751953125 // 16 bits: k*ln2Hi is exact
	ln2Lo     = 1.42860677e-06
	// Added to k it leaves k+127 in the low bits: 1.5 * 2**23 + 127.
	shifter = 12582912 + 127
)

// split is e**x = power + power*y for x <= 0 (where it is below expLowest, for that) and NaN: power is a
// power of two, and y as precise as a float32 can be, however small.
func (v isa) split(x reg.VecVirtual) (power, y reg.VecVirtual) {
	c, k := v.reg(), v.reg()
	power, y = v.reg(), v.reg()
	VMOVUPS(constant(expLowest), c)
	VMAXPS(x, c, c) // a NaN passes
	VMOVUPS(constant(log2e), k)
	VFMADD213PS(constant(shifter), c, k)
	VPSLLD(Imm(23), k, power)
	VSUBPS(constant(shifter), k, k)
	VFNMADD231PS(constant(ln2Hi), k, c)
	VFNMADD231PS(constant(ln2Lo), k, c) // c is r now
	v.polynomial(expPolynomial, c, y)
	VFMADD213PS(constant(1), c, y)
	VMULPS(c, y, y)
	return power, y
}

// exp is e**x for x <= 0 and NaN; below expLowest it is 0.
func (v isa) exp(x reg.VecVirtual) reg.VecVirtual {
	power, y := v.split(x)
	VFMADD213PS(power, power, y)
	if v.lanes == 16 {
		m := K()
		VCMPPS(Imm(nltPredicate), constant(expLowest), x, m)
		VMOVAPS_Z(y, m, y)
	} else {
		m := v.reg()
		VCMPPS(Imm(nltPredicate), constant(expLowest), x, m)
		VANDPS(m, y, y)
	}
	return y
}

// polynomial is y = sum of p[i] * x**i.
func (v isa) polynomial(p []float32, x, y reg.VecVirtual) {
	VMOVUPS(constant(p[len(p)-1]), y)
	for i := len(p) - 2; i >= 0; i-- {
		VFMADD213PS(constant(p[i]), x, y)
	}
}

// normal is Phi(x), the normal distribution, and e**(-x*x/2).
func (v isa) normal(x reg.VecVirtual) (phi, e reg.VecVirtual) {
	t, u, d, q := v.reg(), v.reg(), v.reg(), v.reg()
	VMULPS(x, x, t)
	VMULPS(constant(-0.5), t, t)
	e = v.exp(t)
	v.abs(x, t)
	VMOVUPS(constant(1), d)
	VFMADD132PS(constant(0.3), d, t) // 1 + 0.3|x|
	VDIVPS(t, d, u)
	v.polynomial(tailPolynomial, u, q)
	VMULPS(e, q, q) // Phi(-|x|)
	phi = v.reg()
	VSUBPS(q, d, phi)
	v.whereNegative(x, q, phi)
	return phi, e
}

// sigmoid is 1/(1+e**-x).
func (v isa) sigmoid(x reg.VecVirtual) reg.VecVirtual {
	t, one, y := v.reg(), v.reg(), v.reg()
	v.abs(x, t)
	VSUBPS(t, v.zeroed(), t)
	e := v.exp(t)
	VMOVUPS(constant(1), one)
	VADDPS(e, one, t)
	VDIVPS(t, one, y) // of |x|
	VMULPS(y, e, e)   // of -|x|
	v.whereNegative(x, e, y)
	return y
}

// tanh is (1-e)/(1+e) with the sign of x, e = e**(-2|x|).
func (v isa) tanh(x reg.VecVirtual) reg.VecVirtual {
	t, one := v.reg(), v.reg()
	v.abs(x, t)
	VMULPS(constant(-2), t, t)
	power, y := v.split(t)
	VMOVUPS(constant(1), one)
	VSUBPS(power, one, one)
	VFNMADD213PS(one, power, y) // 1-e, however small
	d := v.reg()
	VMOVUPS(constant(2), d)
	VSUBPS(y, d, d)
	VDIVPS(d, y, y)
	sign := constantBits(1 << 31)
	if v.lanes == 16 {
		VPANDD(sign, x, t)
		VPORD(t, y, y)
	} else {
		VANDPS(sign, x, t)
		VORPS(t, y, y)
	}
	return y
}

func (v isa) zeroed() reg.VecVirtual {
	z := v.reg()
	v.zero(z)
	return z
}

// whereNegative overwrites y with q where x < 0.
func (v isa) whereNegative(x, q, y reg.VecVirtual) {
	m := v.zeroed()
	if v.lanes == 16 {
		negative := K()
		VCMPPS(Imm(ltPredicate), m, x, negative)
		VMOVAPS(q, negative, y)
	} else {
		VCMPPS(Imm(ltPredicate), m, x, m)
		VBLENDVPS(m, q, y, y)
	}
}

func (v isa) abs(x, y reg.VecVirtual) {
	bits := constantBits(0x7fffffff)
	if v.lanes == 16 {
		VPANDD(bits, x, y)
	} else {
		VANDPS(bits, x, y)
	}
}
