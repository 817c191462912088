package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

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
