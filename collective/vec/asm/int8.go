package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The kernels of int8 work on words of four: byte j of word i is element i + j*quarter, so that no lane crosses another.
// n counts words, and so does quarter.

// quarters are pointers to the four elements of a word.
func quarters(x reg.GPVirtual, quarter reg.GPVirtual) [4]reg.GPVirtual {
	p := [4]reg.GPVirtual{x}
	for j := 1; j < 4; j++ {
		p[j] = GP64()
		LEAQ(Mem{Base: p[j-1], Index: quarter, Scale: 4}, p[j])
	}
	return p
}

// unpack makes float32 of byte j of words.
func (v isa) unpack(words reg.VecVirtual, j int) reg.VecVirtual {
	r := v.reg()
	if j < 3 {
		VPSLLD(Imm(uint64(24-8*j)), words, r)
		VPSRAD(Imm(24), r, r)
	} else {
		VPSRAD(Imm(24), words, r)
	}
	VCVTDQ2PS(r, r)
	return r
}

func addInt8(v isa) {
	name := "addInt8" + v.suffix
	begin(name, "func(dst *float32, src *int32, quarter int, n int, scale float32)",
		name+" adds the int8 of src, times scale, to dst, for n words.")
	dst, src, quarter, n := load("dst"), load("src"), load("quarter"), load("n")
	scale := v.broadcast("scale")
	d := quarters(dst, quarter)
	v.loop(name, n, []reg.GPVirtual{d[0], d[1], d[2], d[3], src}, func(disp int) {
		w := v.reg()
		v.load(Mem{Base: src, Disp: disp}, w)
		for j := range d {
			r := v.unpack(w, j)
			VMULPS(scale, r, r)
			VADDPS(Mem{Base: d[j], Disp: disp}, r, r)
			VMOVUPS(r, Mem{Base: d[j], Disp: disp})
		}
	})
	end()
}

func decodeInt8(v isa) {
	name := "decodeInt8" + v.suffix
	begin(name, "func(dst *float32, src *int32, quarter int, n int, scale float32)",
		name+" writes the int8 of src, times scale, to dst, for n words.")
	dst, src, quarter, n := load("dst"), load("src"), load("quarter"), load("n")
	scale := v.broadcast("scale")
	d := quarters(dst, quarter)
	v.loop(name, n, []reg.GPVirtual{d[0], d[1], d[2], d[3], src}, func(disp int) {
		w := v.reg()
		v.load(Mem{Base: src, Disp: disp}, w)
		for j := range d {
			r := v.unpack(w, j)
			VMULPS(scale, r, r)
			VMOVUPS(r, Mem{Base: d[j], Disp: disp})
		}
	})
	end()
}

func encodeInt8(v isa) {
	name := "encodeInt8" + v.suffix
	begin(name, "func(dst *int32, x *float32, rest *float32, quarter int, n int, inverse float32, scale float32)",
		name+" rounds x * inverse into n words of four int8, and writes what that took of x to rest.")
	dst, x, rest, quarter, n := load("dst"), load("x"), load("rest"), load("quarter"), load("n")
	inverse, scale := v.broadcast("inverse"), v.broadcast("scale")
	low := v.constant(0xff)
	from, to := quarters(x, quarter), quarters(rest, quarter)
	v.loop(name, n, append(append([]reg.GPVirtual{dst}, from[:]...), to[:]...), func(disp int) {
		var word reg.VecVirtual
		for j := range from {
			a, q, f := v.reg(), v.reg(), v.reg()
			VMOVUPS(Mem{Base: from[j], Disp: disp}, a)
			VMULPS(inverse, a, q)
			VCVTPS2DQ(q, q)
			VCVTDQ2PS(q, f)
			VMULPS(scale, f, f)
			VSUBPS(f, a, a)
			VMOVUPS(a, Mem{Base: to[j], Disp: disp})
			if j < 3 {
				v.and(low, q, q)
			}
			if j == 0 {
				word = q
				continue
			}
			VPSLLD(Imm(uint64(8*j)), q, q)
			v.or(q, word, word)
		}
		v.load(word, Mem{Base: dst, Disp: disp})
	})
	end()
}
