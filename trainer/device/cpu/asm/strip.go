package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets of the fields of type strip, see kernels.go.
const (
	stripKC     = 0
	stripRows   = 8
	stripN      = 16
	stripA      = 24
	stripARS    = 32
	stripAKS    = 40
	stripB      = 48
	stripLDB    = 56
	stripC      = 64
	stripLDC    = 72
	stripInit   = 80
	stripLDI    = 88
	stripFloor  = 96
	stripStrips = 104
)

// strip is what the programs of direct and of turned have in common: rows*nv sums stay in registers while k runs, then
// come the columns to their right, then the strip below.
type strip struct {
	isa
	name     string
	rows, nv int
	left, at Mem // in the stack: columns that are left, and the bytes of a row that are done
}

// rowsOfA is the rows of A: a base, and odd multiples of their distance, which together with the scales of an
// address reach each row.
type rowsOfA struct {
	base reg.GPVirtual
	odd  map[int]reg.GPVirtual
	n    int
}

func (v strip) rowsOfA(t reg.GPVirtual) (rows rowsOfA, aks reg.GPVirtual) {
	rows, aks = rowsOfA{base: field(t, stripA), odd: map[int]reg.GPVirtual{}, n: v.rows}, field(t, stripAKS)
	SHLQ(Imm(2), aks)
	for r := 1; r < v.rows; r += 2 {
		rows.odd[r] = field(t, stripARS)
		IMUL3Q(Imm(uint64(4*r)), rows.odd[r], rows.odd[r])
	}
	return rows, aks
}

// at is the rows' elements when the first one's is at base.
func (rows rowsOfA) at(base reg.GPVirtual) []Mem {
	m := []Mem{{Base: base}}
	for r := 1; r < rows.n; r++ {
		scale := r & -r
		m = append(m, Mem{Base: base, Index: rows.odd[r/scale], Scale: uint8(scale)})
	}
	return m
}

// start loads the sums from init, or begins at zero. A register whose mask is nil is full.
func (v strip) start(t reg.GPVirtual, masks []reg.Register) [][]reg.VecVirtual {
	sums := make([][]reg.VecVirtual, v.rows)
	for r := range sums {
		sums[r] = v.lanesOf(v.nv)
		for _, s := range sums[r] {
			v.zero(s)
		}
	}
	init, ldi := field(t, stripInit), field(t, stripLDI)
	TESTQ(init, init)
	JZ(LabelRef(v.name + "_zero"))
	SHLQ(Imm(2), ldi)
	ADDQ(v.at, init)
	for r := range sums {
		for j, s := range sums[r] {
			v.loadMasked(Mem{Base: init, Disp: j * v.bytes()}, masks[j], s)
		}
		if r < len(sums)-1 {
			ADDQ(ldi, init)
		}
	}
	Label(v.name + "_zero")
	return sums
}

// store writes max(floor, sums) to c. The order of VMAXPS's operands lets NaN and -0 pass.
func (v strip) store(sums [][]reg.VecVirtual, masks []reg.Register) {
	t := load("t")
	c, ldc, floor := field(t, stripC), field(t, stripLDC), v.reg()
	SHLQ(Imm(2), ldc)
	ADDQ(v.at, c)
	VBROADCASTSS(Mem{Base: t, Disp: stripFloor}, floor)
	for r := range sums {
		for j, s := range sums[r] {
			VMAXPS(s, floor, s)
			v.storeMasked(s, masks[j], Mem{Base: c, Disp: j * v.bytes()})
		}
		if r < len(sums)-1 {
			ADDQ(ldc, c)
		}
	}
}

// next goes on with the next columns of the strip at the first label, with the strip below at the second one, or ends.
func (v strip) next(columns, below string) {
	t := load("t")
	ADDQ(U32(uint32(v.nv*v.bytes())), v.at)
	SUBQ(U32(uint32(v.nv*v.lanes)), v.left)
	JG(LabelRef(columns))
	DECQ(Mem{Base: t, Disp: stripStrips})
	JEQ(LabelRef(v.name + "_end")) // the pointers stay: the collector would find some to nothing
	for _, at := range []struct{ pointer, stride int }{{stripA, stripARS}, {stripC, stripLDC}, {stripInit, stripLDI}} {
		step := field(t, at.stride)
		IMUL3Q(Imm(uint64(v.rows*4)), step, step)
		ADDQ(step, Mem{Base: t, Disp: at.pointer})
	}
	JMP(LabelRef(below))
	Label(v.name + "_end")
	end()
}

// begin is at the first column.
func (v strip) begin(t reg.GPVirtual) {
	n := field(t, stripN)
	MOVQ(n, v.left)
	MOVQ(I32(0), v.at)
}

func (v isa) loadMasked(from Mem, mask reg.Register, to reg.VecVirtual) {
	switch {
	case mask == nil:
		VMOVUPS(from, to)
	case v.lanes == 16:
		VMOVUPS_Z(from, mask, to)
	default:
		VMASKMOVPS(from, mask, to)
	}
}

func (v isa) storeMasked(s reg.VecVirtual, mask reg.Register, to Mem) {
	switch {
	case mask == nil:
		VMOVUPS(s, to)
	case v.lanes == 16:
		VMOVUPS(s, mask, to)
	default:
		VMASKMOVPS(s, mask, to)
	}
}
