package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	max4Signature = "func(y *float32, index *byte, a *float32, b *float32, c *float32, d *float32, n int, floor float32)"
	max4Doc       = " writes y[i] = max(floor, a[i], b[i], c[i], d[i]) and which of the four it was, for i < n."

	spread4Signature = "func(a *float32, b *float32, c *float32, d *float32, dy *float32, y *float32, index *byte, n int, floor float32)"
	spread4Doc       = " gives dy[i] to the one of a, b, c, d that index[i] names unless y[i] <= floor, and zero to the others, for i < n."
)

// numbers are registers that hold 0, 1, 2, 3 in every lane.
func (v isa) numbers() []reg.VecVirtual {
	r := make([]reg.VecVirtual, 4)
	x, g := XMM(), GP32()
	for i := range r {
		r[i] = v.reg()
		MOVL(U32(uint32(i)), g)
		VMOVD(g, x)
		VPBROADCASTD(x, r[i])
	}
	return r
}

// advance moves the pointers on by n bytes.
func advance(n int, pointers ...reg.GPVirtual) {
	for _, p := range pointers {
		ADDQ(Imm(uint64(n)), p)
	}
}

func max4AVX512() {
	v := avx512
	begin("max4AVX512", max4Signature, "max4AVX512"+max4Doc)
	y, index, n := load("y"), load("index"), load("n")
	in := []reg.GPVirtual{load("a"), load("b"), load("c"), load("d")}
	f, _ := Param("floor").Resolve()
	floor, numbers := v.reg(), v.numbers()
	VBROADCASTSS(f.Addr, floor)
	Label("max4AVX512_loop")
	best, at, x := v.reg(), v.reg(), v.reg()
	VMOVUPS(Mem{Base: in[0]}, best)
	v.zero(at)
	for i := 1; i < 4; i++ {
		greater, nan := K(), K()
		VMOVUPS(Mem{Base: in[i]}, x)
		VCMPPS(Imm(gtPredicate), best, x, greater)
		VCMPPS(Imm(unordPredicate), x, x, nan)
		KORW(nan, greater, greater)
		VMOVAPS(x, greater, best)
		VMOVDQA32(numbers[i], greater, at)
	}
	VMAXPS(best, floor, best)
	VMOVUPS(best, Mem{Base: y})
	VPMOVDB(at, Mem{Base: index})
	advance(64, y, in[0], in[1], in[2], in[3])
	advance(16, index)
	SUBQ(Imm(16), n)
	JNZ(LabelRef("max4AVX512_loop"))
	end()
}

func spread4AVX512() {
	v := avx512
	begin("spread4AVX512", spread4Signature, "spread4AVX512"+spread4Doc)
	dy, y, index, n := load("dy"), load("y"), load("index"), load("n")
	out := []reg.GPVirtual{load("a"), load("b"), load("c"), load("d")}
	f, _ := Param("floor").Resolve()
	floor, numbers := v.reg(), v.numbers()
	VBROADCASTSS(f.Addr, floor)
	Label("spread4AVX512_loop")
	g, at, x, keep := v.reg(), v.reg(), v.reg(), K()
	VMOVUPS(Mem{Base: y}, x)
	VCMPPS(Imm(nlePredicate), floor, x, keep)
	VMOVUPS_Z(Mem{Base: dy}, keep, g)
	VPMOVZXBD(Mem{Base: index}, at)
	for i, p := range out {
		here := K()
		VPCMPEQD(numbers[i], at, here)
		VMOVAPS_Z(g, here, x)
		VMOVUPS(x, Mem{Base: p})
	}
	advance(64, dy, y, out[0], out[1], out[2], out[3])
	advance(16, index)
	SUBQ(Imm(16), n)
	JNZ(LabelRef("spread4AVX512_loop"))
	end()
}

func max4AVX2() {
	v := avx2
	begin("max4AVX2", max4Signature, "max4AVX2"+max4Doc)
	y, index, n := load("y"), load("index"), load("n")
	in := []reg.GPVirtual{load("a"), load("b"), load("c"), load("d")}
	f, _ := Param("floor").Resolve()
	floor, numbers := v.reg(), v.numbers()
	VBROADCASTSS(f.Addr, floor)
	Label("max4AVX2_loop")
	best, at, x, greater, nan := v.reg(), v.reg(), v.reg(), v.reg(), v.reg()
	VMOVUPS(Mem{Base: in[0]}, best)
	v.zero(at)
	for i := 1; i < 4; i++ {
		VMOVUPS(Mem{Base: in[i]}, x)
		VCMPPS(Imm(gtPredicate), best, x, greater)
		VCMPPS(Imm(unordPredicate), x, x, nan)
		VORPS(nan, greater, greater)
		VBLENDVPS(greater, x, best, best)
		VBLENDVPS(greater, numbers[i], at, at)
	}
	VMAXPS(best, floor, best)
	VMOVUPS(best, Mem{Base: y})
	high := XMM() // eight int32 to eight bytes
	VEXTRACTI128(Imm(1), at, high)
	VPACKUSDW(high, at.AsX(), high)
	VPACKUSWB(high, high, high)
	VMOVQ(high, Mem{Base: index})
	advance(32, y, in[0], in[1], in[2], in[3])
	advance(8, index)
	SUBQ(Imm(8), n)
	JNZ(LabelRef("max4AVX2_loop"))
	end()
}

func spread4AVX2() {
	v := avx2
	begin("spread4AVX2", spread4Signature, "spread4AVX2"+spread4Doc)
	dy, y, index, n := load("dy"), load("y"), load("index"), load("n")
	out := []reg.GPVirtual{load("a"), load("b"), load("c"), load("d")}
	f, _ := Param("floor").Resolve()
	floor, numbers := v.reg(), v.numbers()
	VBROADCASTSS(f.Addr, floor)
	Label("spread4AVX2_loop")
	g, at, x := v.reg(), v.reg(), v.reg()
	VMOVUPS(Mem{Base: y}, x)
	VCMPPS(Imm(nlePredicate), floor, x, x)
	VANDPS(Mem{Base: dy}, x, g)
	VPMOVZXBD(Mem{Base: index}, at)
	for i, p := range out {
		VPCMPEQD(numbers[i], at, x)
		VANDPS(g, x, x)
		VMOVUPS(x, Mem{Base: p})
	}
	advance(32, dy, y, out[0], out[1], out[2], out[3])
	advance(8, index)
	SUBQ(Imm(8), n)
	JNZ(LabelRef("spread4AVX2_loop"))
	end()
}
