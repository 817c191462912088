package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// pack copies a block out of a matrix into panels of as many columns as a tile has. What makes that slow is
// waiting for the first lines of each row, so it asks for rows before it comes to them.
func pack(v isa) {
	name, nr := "pack"+v.suffix, v.nv*v.lanes
	begin(name, "func(dst *float32, ds int, step int, src *float32, ld int, rows int, n int, ahead int)",
		fmt.Sprintf("%s writes dst[i*ds + j/%[2]d*step + j%%%[2]d] = src[i*ld+j] for i < rows, j < n; it prefetches src[(i+ahead)*ld+j].", name, nr))
	dst, ds, step, src, ld, rows, n := load("dst"), load("ds"), load("step"), load("src"), load("ld"), load("rows"), load("n")
	next := load("ahead")
	for _, x := range []reg.GPVirtual{ds, step, ld} {
		SHLQ(Imm(2), x)
	}
	IMULQ(ld, next)
	ADDQ(src, next)
	at, to, x := GP64(), GP64(), []reg.VecVirtual{v.reg(), v.reg()}
	last := GP64() // the place of the last, incomplete panel
	MOVQ(n, last)
	ANDQ(Imm(uint64(nr-1)), n)
	SUBQ(n, last)
	masks := []reg.Register{v.maskAt(n, 0), v.maskAt(n, v.lanes)}
	Label(name + "_row")
	XORQ(at, at)
	MOVQ(dst, to)
	Label(name + "_panel")
	CMPQ(at, last)
	JGE(LabelRef(name + "_last"))
	for i := range x {
		VMOVUPS(Mem{Base: src, Index: at, Scale: 4, Disp: i * v.bytes()}, x[i])
	}
	for line := 0; line < nr*4; line += 64 {
		PREFETCHT0(Mem{Base: next, Index: at, Scale: 4, Disp: line})
	}
	for i := range x {
		VMOVUPS(x[i], Mem{Base: to, Disp: i * v.bytes()})
	}
	ADDQ(step, to)
	ADDQ(Imm(uint64(nr)), at)
	JMP(LabelRef(name + "_panel"))
	Label(name + "_last")
	TESTQ(n, n)
	JZ(LabelRef(name + "_done"))
	for i := range x {
		v.copyMasked(masks[i], Mem{Base: src, Index: at, Scale: 4, Disp: i * v.bytes()}, Mem{Base: to, Disp: i * v.bytes()}, x[i])
	}
	PREFETCHT0(Mem{Base: next, Index: at, Scale: 4})
	Label(name + "_done")
	ADDQ(ds, dst)
	ADDQ(ld, src)
	ADDQ(ld, next)
	DECQ(rows)
	JNZ(LabelRef(name + "_row"))
	end()
}

func (v isa) copyMasked(mask reg.Register, from, to Mem, x reg.VecVirtual) {
	if v.lanes == 16 {
		VMOVUPS_Z(from, mask, x)
		VMOVUPS(x, mask, to)
	} else {
		VMASKMOVPS(from, mask, x)
		VMASKMOVPS(x, mask, to)
	}
}
