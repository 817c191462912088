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

// exp is e**x for x <= 0 and NaN; below expLowest it is 0.
func (v isa) exp(x reg.VecVirtual) reg.VecVirtual {
	c, k, power, y := v.reg(), v.reg(), v.reg(), v.reg()
	VMOVUPS(constant(expLowest), c)
	VMAXPS(x, c, c) // a NaN passes
	VMOVUPS(constant(log2e), k)
	VFMADD213PS(constant(shifter), c, k)
	VPSLLD(Imm(23), k, power) // 2**k
	VSUBPS(constant(shifter), k, k)
	VFNMADD231PS(constant(ln2Hi), k, c)
	VFNMADD231PS(constant(ln2Lo), k, c) // c is r now
	v.polynomial(expPolynomial, c, y)
	VFMADD213PS(constant(1), c, y)
	VFMADD213PS(constant(1), c, y)
	VMULPS(power, y, y)
	if v.lanes == 16 {
		m := K()
		VCMPPS(Imm(nltPredicate), constant(expLowest), x, m)
		VMOVAPS_Z(y, m, y)
	} else {
		VCMPPS(Imm(nltPredicate), constant(expLowest), x, c)
		VANDPS(c, y, y)
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
	zero := v.reg()
	v.zero(zero)
	if v.lanes == 16 {
		negative := K()
		VCMPPS(Imm(ltPredicate), zero, x, negative)
		VMOVAPS(q, negative, phi)
	} else {
		VCMPPS(Imm(ltPredicate), zero, x, zero)
		VBLENDVPS(zero, q, phi, phi)
	}
	return phi, e
}

func (v isa) abs(x, y reg.VecVirtual) {
	bits := constantBits(0x7fffffff)
	if v.lanes == 16 {
		VPANDD(bits, x, y)
	} else {
		VANDPS(bits, x, y)
	}
}
