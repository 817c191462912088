package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// transpose turns as many rows as a register has lanes, or fewer, in square blocks. Where the columns go, a table says. It asks for what
// it will read next: so many rows are more than the processor sees coming.
func transpose(v isa) {
	name := "transpose" + v.suffix
	begin(name, "func(dst *float32, to *int32, src *float32, ld int, rows int, n int, ahead int)",
		fmt.Sprintf("%s writes dst[to[j]+i] = src[i*ld+j] for i < rows, j < n; rows is at most %d. It prefetches src[i*ld+j+ahead].", name, v.lanes))
	dst, to, src, ld, rows, n, ahead := load("dst"), load("to"), load("src"), load("ld"), load("rows"), load("n"), load("ahead")
	SHLQ(Imm(2), ld)
	CMPQ(rows, Imm(uint64(v.lanes)))
	JNE(LabelRef(name + "_partial"))
	Label(name + "_whole")
	CMPQ(n, Imm(uint64(v.lanes)))
	JL(LabelRef(name + "_partial"))
	x := v.lanesOf(v.lanes)
	at := GP64()
	MOVQ(src, at)
	for i := range x {
		VMOVUPS(Mem{Base: at}, x[i])
		PREFETCHT0(Mem{Base: at, Index: ahead, Scale: 4})
		if i < len(x)-1 {
			ADDQ(ld, at)
		}
	}
	for j, y := range v.square(x) {
		MOVLQSX(Mem{Base: to, Disp: 4 * j}, at)
		VMOVUPS(y, Mem{Base: dst, Index: at, Scale: 4})
	}
	ADDQ(Imm(uint64(4*v.lanes)), src)
	ADDQ(Imm(uint64(4*v.lanes)), to)
	SUBQ(Imm(uint64(v.lanes)), n)
	JMP(LabelRef(name + "_whole"))

	// Rows that are missing are the first one again, which nobody stores. (Why not the last one: see places.)
	Label(name + "_partial")
	TESTQ(n, n)
	JLE(LabelRef(name + "_done"))
	columns := v.maskAt(n, 0)
	x = v.lanesOf(v.lanes)
	MOVQ(src, at)
	for i := range x {
		if v.lanes == 16 {
			VMOVUPS_Z(Mem{Base: at}, columns, x[i])
		} else {
			VMASKMOVPS(Mem{Base: at}, columns, x[i])
		}
		PREFETCHT0(Mem{Base: at, Index: ahead, Scale: 4})
		ADDQ(ld, at)
		CMPQ(rows, Imm(uint64(i+2)))
		CMOVQLT(src, at)
	}
	y := v.square(x)
	there := v.maskAt(rows, 0)
	for j := range y {
		MOVLQSX(Mem{Base: to, Disp: 4 * j}, at)
		if v.lanes == 16 {
			VMOVUPS(y[j], there, Mem{Base: dst, Index: at, Scale: 4})
		} else {
			VMASKMOVPS(y[j], there, Mem{Base: dst, Index: at, Scale: 4})
		}
		DECQ(n)
		JZ(LabelRef(name + "_done"))
	}
	ADDQ(Imm(uint64(4*v.lanes)), src)
	ADDQ(Imm(uint64(4*v.lanes)), to)
	JMP(LabelRef(name + "_partial"))
	Label(name + "_done")
	end()
}

func (v isa) lanesOf(n int) []reg.VecVirtual {
	x := make([]reg.VecVirtual, n)
	for i := range x {
		x[i] = v.reg()
	}
	return x
}

// square transposes a register's worth of rows, which it uses up: 4x4 within each quarter of 128 bits, then the quarters.
func (v isa) square(x []reg.VecVirtual) []reg.VecVirtual {
	y, z, u, w := v.lanesOf(len(x)), v.lanesOf(len(x)), v.lanesOf(len(x)), v.lanesOf(len(x))
	for i := 0; i < len(x); i += 2 {
		VUNPCKLPS(x[i+1], x[i], y[i])
		VUNPCKHPS(x[i+1], x[i], y[i+1])
	}
	for i := 0; i < len(x); i += 4 { // z[i+c] has, in quarter q, column 4q+c of rows i to i+3
		VUNPCKLPD(y[i+2], y[i], z[i])
		VUNPCKHPD(y[i+2], y[i], z[i+1])
		VUNPCKLPD(y[i+3], y[i+1], z[i+2])
		VUNPCKHPD(y[i+3], y[i+1], z[i+3])
	}
	for c := range 4 {
		if v.lanes == 8 {
			VPERM2F128(Imm(0x20), z[c+4], z[c], u[c])
			VPERM2F128(Imm(0x31), z[c+4], z[c], u[c+4])
			continue
		}
		// Quarters 0 and 2, or 1 and 3, of rows 0-7 and of rows 8-15; then one of each.
		VSHUFF32X4(Imm(0x88), z[c+4], z[c], u[c])
		VSHUFF32X4(Imm(0xdd), z[c+4], z[c], u[c+4])
		VSHUFF32X4(Imm(0x88), z[c+12], z[c+8], u[c+8])
		VSHUFF32X4(Imm(0xdd), z[c+12], z[c+8], u[c+12])
		VSHUFF32X4(Imm(0x88), u[c+8], u[c], w[c])
		VSHUFF32X4(Imm(0xdd), u[c+8], u[c], w[c+8])
		VSHUFF32X4(Imm(0x88), u[c+12], u[c+4], w[c+4])
		VSHUFF32X4(Imm(0xdd), u[c+12], u[c+4], w[c+12])
	}
	if v.lanes == 8 {
		return u
	}
	return w
}
