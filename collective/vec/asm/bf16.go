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
	v                isa
	bias, one, upper reg.VecVirtual
	canonical        reg.VecVirtual
}

func (v isa) half() half {
	return half{v: v, bias: v.constant(0x7fff), one: v.constant(1), upper: v.constant(0xffff0000), canonical: v.constant(0x7fc00000)}
}

// round makes patterns of float32 those of the nearest bf16, ties to even, with garbage in the lower half; every NaN becomes
// the same one.
func (h half) round(u reg.VecVirtual) reg.VecVirtual {
	const unordered = 3
	r, t := h.v.reg(), h.v.reg()
	VPSRLD(Imm(16), u, t)
	h.v.and(h.one, t, t)
	VPADDD(h.bias, u, r)
	VPADDD(t, r, r)
	if h.v.lanes == 16 {
		nan := K()
		VCMPPS(Imm(unordered), u, u, nan)
		VMOVDQA32(h.canonical, nan, r)
	} else {
		VCMPPS(Imm(unordered), u, u, t)
		VBLENDVPS(t, h.canonical, r, r)
	}
	return r
}

// store writes words of which lo are the lower halves and hi the upper ones.
func (h half) store(lo, hi reg.VecVirtual, m Mem) {
	lo, hi = h.round(lo), h.round(hi)
	VPSRLD(Imm(16), lo, lo)
	if h.v.lanes == 16 {
		const either = 0xea // (a & b) | c
		VPTERNLOGD(Imm(either), lo, h.upper, hi)
	} else {
		h.v.and(h.upper, hi, hi)
		h.v.or(lo, hi, hi)
	}
	h.v.load(hi, m)
}

// encodeBF16 rounds what is to be sent.
func encodeBF16(v isa) {
	name := "encodeBF16" + v.suffix
	begin(name, "func(dst *int32, lo *float32, hi *float32, n int)", name+" rounds lo and hi into words of two bf16, for i < n.")
	dst, lo, hi, n := load("dst"), load("lo"), load("hi"), load("n")
	h := v.half()
	v.loop(name, n, []reg.GPVirtual{dst, lo, hi}, func(disp int) {
		a, b := v.reg(), v.reg()
		v.load(Mem{Base: lo, Disp: disp}, a)
		v.load(Mem{Base: hi, Disp: disp}, b)
		h.store(a, b, Mem{Base: dst, Disp: disp})
	})
	end()
}

// addBF16 adds float32 to bf16 that came, and rounds.
func addBF16(v isa) {
	name := "addBF16" + v.suffix
	begin(name, "func(dst *int32, src *int32, lo *float32, hi *float32, n int)",
		name+" adds lo and hi to the bf16 of src and rounds the sums into dst, for i < n.")
	dst, src, lo, hi, n := load("dst"), load("src"), load("lo"), load("hi"), load("n")
	h := v.half()
	v.loop(name, n, []reg.GPVirtual{dst, src, lo, hi}, func(disp int) {
		a, b := v.reg(), v.reg()
		v.load(Mem{Base: src, Disp: disp}, b)
		VPSLLD(Imm(16), b, a)
		v.and(h.upper, b, b)
		VADDPS(Mem{Base: lo, Disp: disp}, a, a)
		VADDPS(Mem{Base: hi, Disp: disp}, b, b)
		h.store(a, b, Mem{Base: dst, Disp: disp})
	})
	end()
}

// sumBF16 adds bf16 to float32.
func sumBF16(v isa) {
	name := "sumBF16" + v.suffix
	begin(name, "func(lo *float32, hi *float32, src *int32, n int)", name+" adds the bf16 of src to lo and hi, for i < n.")
	lo, hi, src, n := load("lo"), load("hi"), load("src"), load("n")
	upper := v.constant(0xffff0000)
	v.loop(name, n, []reg.GPVirtual{lo, hi, src}, func(disp int) {
		s, t := v.reg(), v.reg()
		v.load(Mem{Base: src, Disp: disp}, s)
		VPSLLD(Imm(16), s, t)
		v.and(upper, s, s)
		VADDPS(Mem{Base: lo, Disp: disp}, t, t)
		VADDPS(Mem{Base: hi, Disp: disp}, s, s)
		v.load(t, Mem{Base: lo, Disp: disp})
		v.load(s, Mem{Base: hi, Disp: disp})
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
