package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// transpose8 reads 8 rows in blocks of 8x8 and writes their columns.
func transpose8() {
	begin("transpose8", "func(dst *float32, ds int, src *float32, ld int, n8 int)",
		"transpose8 writes dst[j*ds+i] = src[i*ld+j] for i < 8, j < 8*n8.")
	dst, ds, src, ld, n := load("dst"), load("ds"), load("src"), load("ld"), load("n8")
	SHLQ(Imm(2), ds)
	SHLQ(Imm(2), ld)
	ld3, ld5, ld7 := GP64(), GP64(), GP64()
	LEAQ(Mem{Base: ld, Index: ld, Scale: 2}, ld3)
	LEAQ(Mem{Base: ld, Index: ld, Scale: 4}, ld5)
	LEAQ(Mem{Base: ld3, Index: ld, Scale: 4}, ld7)
	Label("transpose8_loop")
	r, t := make([]reg.VecVirtual, 8), make([]reg.VecVirtual, 8)
	for i := range r {
		r[i], t[i] = YMM(), YMM()
	}
	for i, m := range []Mem{{Base: src}, {Base: src, Index: ld, Scale: 1}, {Base: src, Index: ld, Scale: 2},
		{Base: src, Index: ld3, Scale: 1}, {Base: src, Index: ld, Scale: 4}, {Base: src, Index: ld5, Scale: 1},
		{Base: src, Index: ld3, Scale: 2}, {Base: src, Index: ld7, Scale: 1}} {
		VMOVUPS(m, r[i])
	}
	for i := range 4 { // pairs of rows
		VUNPCKLPS(r[2*i+1], r[2*i], t[2*i])
		VUNPCKHPS(r[2*i+1], r[2*i], t[2*i+1])
	}
	for b := 0; b < 8; b += 4 { // four rows
		VSHUFPS(Imm(0x44), t[b+2], t[b], r[b])
		VSHUFPS(Imm(0xEE), t[b+2], t[b], r[b+1])
		VSHUFPS(Imm(0x44), t[b+3], t[b+1], r[b+2])
		VSHUFPS(Imm(0xEE), t[b+3], t[b+1], r[b+3])
	}
	for i := range 4 { // halves
		VPERM2F128(Imm(0x20), r[i+4], r[i], t[i])
		VPERM2F128(Imm(0x31), r[i+4], r[i], t[i+4])
	}
	for i := range t {
		VMOVUPS(t[i], Mem{Base: dst})
		ADDQ(ds, dst)
	}
	ADDQ(Imm(32), src)
	DECQ(n)
	JNZ(LabelRef("transpose8_loop"))
	end()
}

// sumRows keeps up to four registers of column sums while it runs down the rows.
func sumRows(v isa) {
	name := "sumRows" + v.suffix
	begin(name, "func(out *float32, x *float32, ld int, rows int, n int)",
		name+" writes out[j] = sum over i < rows of x[i*ld+j], in the order of i, for j < n.")
	out, x, ld, rows, n := load("out"), load("x"), load("ld"), load("rows"), load("n")
	SHLQ(Imm(2), ld)
	for _, nv := range []int{4, 1} {
		label := name + map[int]string{4: "_wide", 1: "_narrow"}[nv]
		Label(label)
		CMPQ(n, Imm(uint64(nv*v.lanes)))
		JL(LabelRef(label + "_done"))
		sums := make([]reg.VecVirtual, nv)
		for j := range sums {
			sums[j] = v.reg()
			v.zero(sums[j])
		}
		p, i := GP64(), GP64()
		MOVQ(x, p)
		MOVQ(rows, i)
		Label(label + "_rows")
		for j := range sums {
			VADDPS(Mem{Base: p, Disp: j * v.bytes()}, sums[j], sums[j])
		}
		ADDQ(ld, p)
		DECQ(i)
		JNZ(LabelRef(label + "_rows"))
		for j := range sums {
			VMOVUPS(sums[j], Mem{Base: out, Disp: j * v.bytes()})
		}
		ADDQ(U32(uint32(nv*v.bytes())), x)
		ADDQ(U32(uint32(nv*v.bytes())), out)
		SUBQ(Imm(uint64(nv*v.lanes)), n)
		JMP(LabelRef(label))
		Label(label + "_done")
	}
	end()
}

// Predicates of comparisons, which are false for NaN; those with an n are the negations of others, true for NaN.
const (
	ltPredicate    = 0x11
	nltPredicate   = 0x15
	gtPredicate    = 0x1e
	nlePredicate   = 0x16
	unordPredicate = 0x03
)

// mask is the backward pass of a ReLU.
func mask(v isa) {
	name := "mask" + v.suffix
	begin(name, "func(dx *float32, dy *float32, y *float32, n int)",
		name+" writes dx[i] = 0 where y[i] <= 0, else dy[i], for i < n.")
	dx, dy, y, n := load("dx"), load("dy"), load("y"), load("n")
	zero, g := v.reg(), v.reg()
	v.zero(zero)
	Label(name + "_loop")
	VMOVUPS(Mem{Base: y}, g)
	if v.lanes == 16 {
		k := K()
		VCMPPS(Imm(nlePredicate), zero, g, k)
		VMOVUPS_Z(Mem{Base: dy}, k, g)
	} else {
		VCMPPS(Imm(nlePredicate), zero, g, g)
		VANDPS(Mem{Base: dy}, g, g)
	}
	VMOVUPS(g, Mem{Base: dx})
	for _, p := range []reg.Register{dx, dy, y} {
		ADDQ(Imm(uint64(v.bytes())), p)
	}
	SUBQ(Imm(uint64(v.lanes)), n)
	JNZ(LabelRef(name + "_loop"))
	end()
}
