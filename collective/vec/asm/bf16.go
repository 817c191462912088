package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func (v isa) and(a, b, dst Op) {
	if v.lanes == 16 {
		VPANDD(a, b, dst)
	} else {
		VPAND(a, b, dst)
	}
}

// andNot is dst = a &^ b.
func (v isa) andNot(a, b, dst Op) {
	if v.lanes == 16 {
		VPANDND(a, b, dst)
	} else {
		VPANDN(a, b, dst)
	}
}

func (v isa) or(a, b, dst Op) {
	if v.lanes == 16 {
		VPORD(a, b, dst)
	} else {
		VPOR(a, b, dst)
	}
}

func (v isa) constant(c uint32) reg.VecVirtual {
	g, x, r := GP32(), XMM(), v.reg()
	MOVL(U32(c), g)
	VMOVD(g, x)
	VPBROADCASTD(x, r)
	return r
}

// half holds the constants of rounding.
type half struct {
	v                  isa
	bias, one, upper   reg.VecVirtual
	sign, infinity     reg.VecVirtual
	largest, canonical reg.VecVirtual
}

func (v isa) half() half {
	return half{v: v, bias: v.constant(0x7fff), one: v.constant(1), upper: v.constant(0xffff0000)}
}

// round makes patterns of float32 those of the nearest bf16, ties to even, with garbage in the lower half.
func (h half) round(u reg.VecVirtual) {
	t := h.v.reg()
	VPSRLD(Imm(16), u, t)
	h.v.and(h.one, t, t)
	VPADDD(h.bias, u, u)
	VPADDD(t, u, u)
}

// addBF16 works on words of two bf16.
func addBF16(v isa) {
	name := "addBF16" + v.suffix
	begin(name, "func(dst *int32, src *int32, n int)", name+" adds both bf16 of each word of src to those of dst, for i < n.")
	dst, src, n := load("dst"), load("src"), load("n")
	h := v.half()
	v.loop(name, n, []reg.GPVirtual{dst, src}, func(disp int) {
		d, s, lo, t := v.reg(), v.reg(), v.reg(), v.reg()
		v.load(Mem{Base: dst, Disp: disp}, d)
		v.load(Mem{Base: src, Disp: disp}, s)
		VPSLLD(Imm(16), d, lo)
		VPSLLD(Imm(16), s, t)
		VADDPS(t, lo, lo)
		v.and(h.upper, d, d)
		v.and(h.upper, s, s)
		VADDPS(s, d, d)
		h.round(lo)
		h.round(d)
		VPSRLD(Imm(16), lo, lo)
		v.and(h.upper, d, d)
		v.or(lo, d, d)
		v.load(d, Mem{Base: dst, Disp: disp})
	})
	end()
}

// encodeBF16 rounds what is to be sent and keeps what the rounding took.
func encodeBF16(v isa) {
	name := "encodeBF16" + v.suffix
	begin(name, "func(dst *int32, lo *float32, hi *float32, restLo *float32, restHi *float32, nextLo *float32, nextHi *float32, n int)",
		name+" rounds lo+restLo and hi+restHi into words of two bf16, and writes what the rounding took to the nexts.")
	dst, lo, hi, n := load("dst"), load("lo"), load("hi"), load("n")
	restLo, restHi, nextLo, nextHi := load("restLo"), load("restHi"), load("nextLo"), load("nextHi")
	h := v.half()
	h.sign, h.infinity, h.largest, h.canonical = v.constant(0x7fffffff), v.constant(0x7f800000), v.constant(0x7f7fffff), v.constant(0x7fc00000)
	v.loop(name, n, []reg.GPVirtual{dst, lo, hi, restLo, restHi, nextLo, nextHi}, func(disp int) {
		one := func(x, rest, next reg.GPVirtual) reg.VecVirtual {
			sum, u, m, t := v.reg(), v.reg(), v.reg(), v.reg()
			VMOVUPS(Mem{Base: x, Disp: disp}, sum)
			VADDPS(Mem{Base: rest, Disp: disp}, sum, sum)
			v.and(h.sign, sum, t) // NaN: its magnitude is above infinity
			VPSUBD(t, h.infinity, m)
			VPSRAD(Imm(31), m, m)
			v.or(sum, sum, u)
			h.round(u)
			v.and(h.upper, u, u)
			v.andNot(u, m, u)
			v.and(h.canonical, m, m)
			v.or(m, u, u)
			v.and(h.sign, u, t) // infinite, or NaN: nothing is left
			VPSUBD(t, h.largest, m)
			VPSRAD(Imm(31), m, m)
			VSUBPS(u, sum, sum)
			v.andNot(sum, m, sum)
			VMOVUPS(sum, Mem{Base: next, Disp: disp})
			return u
		}
		a := one(lo, restLo, nextLo)
		VPSRLD(Imm(16), a, a)
		b := one(hi, restHi, nextHi)
		v.or(a, b, b)
		v.load(b, Mem{Base: dst, Disp: disp})
	})
	end()
}

func decodeBF16(v isa) {
	name := "decodeBF16" + v.suffix
	begin(name, "func(lo *float32, hi *float32, src *int32, n int)", name+" makes float32 of words of two bf16, for i < n.")
	lo, hi, src, n := load("lo"), load("hi"), load("src"), load("n")
	upper := v.constant(0xffff0000)
	v.loop(name, n, []reg.GPVirtual{lo, hi, src}, func(disp int) {
		s, t := v.reg(), v.reg()
		v.load(Mem{Base: src, Disp: disp}, s)
		VPSLLD(Imm(16), s, t)
		v.and(upper, s, s)
		v.load(t, Mem{Base: lo, Disp: disp})
		v.load(s, Mem{Base: hi, Disp: disp})
	})
	end()
}
