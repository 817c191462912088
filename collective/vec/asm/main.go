// Command asm writes the assembly of package vec, with avo. It is a module of its own so that
// nothing that muster links depends on avo. From collective/vec:
//
//	go generate
//
// All kernels exist in two widths, from the same code: AVX-512 (16 words) and AVX2 (8 words).
package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// isa is a vector width.
type isa struct {
	suffix string
	lanes  int // words per register
}

const unroll = 4

func (v isa) reg() reg.VecVirtual {
	if v.lanes == 16 {
		return ZMM()
	}
	return YMM()
}

func (v isa) bytes() int { return v.lanes * 4 }

func (v isa) load(m Op, r Op) {
	if v.lanes == 16 {
		VMOVDQU32(m, r)
	} else {
		VMOVDQU(m, r)
	}
}

func main() {
	ConstraintExpr("amd64")
	for _, v := range []isa{{"AVX512", 16}, {"AVX2", 8}} {
		combine(v, "addInt32", "int32", "dst[i] += src[i]", func(m, r Op) { VPADDD(m, r, r) })
		combine(v, "maxInt32", "int32", "dst[i] = max(dst[i], src[i])", func(m, r Op) { VPMAXSD(m, r, r) })
		// The operand that was loaded comes first: of two NaNs it is the one that stays.
		combine(v, "addFloat32", "float32", "dst[i] += src[i]", func(m, r Op) { VADDPS(m, r, r) })
		largest(v)
		rounded(v)
		addRounded(v)
		unscale(v)
		encodeBF16(v)
		addBF16(v)
		decodeBF16(v)
		sumBF16(v)
		addInt8(v)
		encodeInt8(v)
		decodeInt8(v)
	}
	Generate()
}

// begin starts a function; the Go declarations are written by hand (vec_amd64.go).
func begin(name, signature, doc string) {
	TEXT(name, attr.NOSPLIT, signature)
	Doc(doc)
}

func load(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }

// loop runs body over n words, a multiple of lanes: unrolled first, then one register at a time. The pointers advance.
func (v isa) loop(name string, n reg.GPVirtual, pointers []reg.GPVirtual, body func(disp int)) {
	for _, k := range []int{unroll, 1} {
		label := name + map[int]string{unroll: "_wide", 1: "_narrow"}[k]
		Label(label)
		CMPQ(n, Imm(uint64(k*v.lanes)))
		JL(LabelRef(label + "_done"))
		for i := range k {
			body(i * v.bytes())
		}
		for _, p := range pointers {
			ADDQ(U32(uint32(k*v.bytes())), p)
		}
		SUBQ(Imm(uint64(k*v.lanes)), n)
		JMP(LabelRef(label))
		Label(label + "_done")
	}
}

func end() {
	VZEROUPPER()
	RET()
}

// combine reduces src into dst.
func combine(v isa, name, word, what string, op func(m, r Op)) {
	name += v.suffix
	begin(name, "func(dst *"+word+", src *"+word+", n int)", name+" does "+what+" for i < n.")
	dst, src, n := load("dst"), load("src"), load("n")
	v.loop(name, n, []reg.GPVirtual{dst, src}, func(disp int) {
		r := v.reg()
		v.load(Mem{Base: dst, Disp: disp}, r)
		op(Mem{Base: src, Disp: disp}, r)
		v.load(r, Mem{Base: dst, Disp: disp})
	})
	end()
}

// largest keeps four maxima of the patterns without their sign.
func largest(v isa) {
	name := "largest" + v.suffix
	begin(name, "func(x *float32, n int) uint32", name+" returns the largest of the magnitudes' patterns of x[:n].")
	x, n := load("x"), load("n")
	mask := v.reg()
	if v.lanes == 16 {
		VPXORD(mask, mask, mask)
		VPTERNLOGD(Imm(0xff), mask, mask, mask)
	} else {
		VPXOR(mask, mask, mask)
		VPCMPEQD(mask, mask, mask)
	}
	VPSRLD(Imm(1), mask, mask)
	maxima := make([]reg.VecVirtual, unroll)
	for i := range maxima {
		maxima[i] = v.reg()
		if v.lanes == 16 {
			VPXORD(maxima[i], maxima[i], maxima[i])
		} else {
			VPXOR(maxima[i], maxima[i], maxima[i])
		}
	}
	v.loop(name, n, []reg.GPVirtual{x}, func(disp int) {
		r := v.reg()
		if v.lanes == 16 {
			VPANDD(Mem{Base: x, Disp: disp}, mask, r)
		} else {
			VPAND(Mem{Base: x, Disp: disp}, mask, r)
		}
		m := maxima[disp/v.bytes()]
		VPMAXUD(r, m, m)
	})
	VPMAXUD(maxima[1], maxima[0], maxima[0])
	VPMAXUD(maxima[3], maxima[2], maxima[2])
	VPMAXUD(maxima[2], maxima[0], maxima[0])
	m := maxima[0]
	if v.lanes == 16 {
		upper := YMM()
		VEXTRACTI64X4(Imm(1), m.AsZ(), upper)
		VPMAXUD(upper, m.AsY(), m.AsY())
	}
	x0, x1 := m.AsX(), XMM()
	VEXTRACTI128(Imm(1), m.AsY(), x1)
	for _, order := range []uint64{0x4e, 0xb1} {
		VPMAXUD(x1, x0, x0)
		VPSHUFD(Imm(order), x0, x1)
	}
	VPMAXUD(x1, x0, x0)
	r := GP32()
	VMOVD(x0, r)
	Store(r, ReturnIndex(0))
	end()
}

// rounded multiplies in two steps, both exact, because one float32 cannot hold every scale.
func rounded(v isa) {
	name := "round" + v.suffix
	begin(name, "func(dst *int32, x *float32, n int, scale1 float32, scale2 float32)",
		name+" does dst[i] = x[i] * scale1 * scale2, rounded to nearest even, for i < n.")
	dst, x, n := load("dst"), load("x"), load("n")
	s1, s2 := v.broadcast("scale1"), v.broadcast("scale2")
	v.loop(name, n, []reg.GPVirtual{dst, x}, func(disp int) {
		r := v.reg()
		VMULPS(Mem{Base: x, Disp: disp}, s1, r)
		VMULPS(s2, r, r)
		VCVTPS2DQ(r, r)
		v.load(r, Mem{Base: dst, Disp: disp})
	})
	end()
}

func addRounded(v isa) {
	name := "addRounded" + v.suffix
	begin(name, "func(dst *int32, src *int32, x *float32, n int, scale1 float32, scale2 float32)",
		name+" does dst[i] = src[i] + x[i] * scale1 * scale2, rounded to nearest even, for i < n.")
	dst, src, x, n := load("dst"), load("src"), load("x"), load("n")
	s1, s2 := v.broadcast("scale1"), v.broadcast("scale2")
	v.loop(name, n, []reg.GPVirtual{dst, src, x}, func(disp int) {
		r := v.reg()
		VMULPS(Mem{Base: x, Disp: disp}, s1, r)
		VMULPS(s2, r, r)
		VCVTPS2DQ(r, r)
		VPADDD(Mem{Base: src, Disp: disp}, r, r)
		v.load(r, Mem{Base: dst, Disp: disp})
	})
	end()
}

func unscale(v isa) {
	name := "unscale" + v.suffix
	begin(name, "func(dst *float32, sum *int32, n int, quantum float32)",
		name+" does dst[i] = float32(sum[i]) * quantum for i < n.")
	dst, sum, n := load("dst"), load("sum"), load("n")
	q := v.broadcast("quantum")
	v.loop(name, n, []reg.GPVirtual{dst, sum}, func(disp int) {
		r := v.reg()
		VCVTDQ2PS(Mem{Base: sum, Disp: disp}, r)
		VMULPS(q, r, r)
		VMOVUPS(r, Mem{Base: dst, Disp: disp})
	})
	end()
}

func (v isa) broadcast(param string) reg.VecVirtual {
	addr, err := Param(param).Resolve()
	if err != nil {
		panic(err)
	}
	r := v.reg()
	VBROADCASTSS(addr.Addr, r)
	return r
}
