package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets of the fields of type strip, see kernels.go.
const (
	stripKC    = 0
	stripRows  = 8
	stripN     = 16
	stripA     = 24
	stripARS   = 32
	stripAKS   = 40
	stripB     = 48
	stripLDB   = 56
	stripC     = 64
	stripLDC   = 72
	stripInit  = 80
	stripLDI   = 88
	stripFloor = 96
)

// turned is the kernel for few rows and a B stored transposed: a register's worth of B's rows is turned in
// registers, square by square, and used at once; nothing is packed.
func turned(v isa) {
	name := "turned" + v.suffix
	TEXT(name, 0, "func(t *byte)")
	Doc(fmt.Sprintf("%s computes a strip of up to %d rows, see type strip.", name, v.turnedRows))
	places := AllocLocal(2 * v.lanes * 8) // of the rows of B
	t := load("t")
	rows := field(t, stripRows)
	program := func(rows int) string { return fmt.Sprintf("%s_%d", name, rows) }
	for r := v.turnedRows; r > 1; r-- {
		CMPQ(rows, Imm(uint64(r)))
		JEQ(LabelRef(program(r)))
	}
	for r := 1; r <= v.turnedRows; r++ {
		groups := 1
		if r <= v.turnedPairs { // a group alone would wait for its sums
			groups = 2
		}
		turnedTile{isa: v, rowsOfB: places, name: program(r), rows: r, groups: groups}.write()
	}
}

// turnedTile is a program for some rows of A and groups of as many rows of B as a register has lanes: the groups'
// sums stay in registers while k runs.
type turnedTile struct {
	isa
	rowsOfB      Mem // their places, in the stack
	name         string
	rows, groups int
}

func (v turnedTile) write() {
	Label(v.name)
	v.places()
	Label(v.name + "_group")
	t := load("t")
	sums := v.start(t)
	b, kc := field(t, stripB), field(t, stripKC)
	rows, aks := v.rowsOfA(t)
	rest, done := v.name+"_rest", v.name+"_done"
	SUBQ(Imm(uint64(v.lanes)), kc)
	JL(LabelRef(rest))
	Label(v.name + "_loop")
	for g := range v.groups {
		a := GP64()
		MOVQ(rows.base, a)
		for _, x := range v.load(g, b, nil) {
			v.add(sums, g, x, rows.at(a))
			ADDQ(aks, a)
		}
		if g == v.groups-1 {
			MOVQ(a, rows.base)
		}
	}
	ADDQ(Imm(uint64(v.bytes())), b)
	SUBQ(Imm(uint64(v.lanes)), kc)
	JGE(LabelRef(v.name + "_loop"))

	Label(rest)
	ADDQ(Imm(uint64(v.lanes)), kc)
	JZ(LabelRef(done))
	mask := v.maskOf(v.copyOf(kc))
	for g := range v.groups {
		full := fmt.Sprintf("%s_rest_%d", v.name, g)
		a, left := rows.base, kc
		if g < v.groups-1 {
			a, left = v.copyOf(a), v.copyOf(left)
		}
		for i, x := range v.load(g, b, mask)[:v.lanes-1] {
			v.add(sums, g, x, rows.at(a))
			if i < v.lanes-2 {
				ADDQ(aks, a)
				DECQ(left)
				JZ(LabelRef(full))
			}
		}
		Label(full)
	}
	Label(done)
	v.store(sums)

	t = load("t")
	wide := v.groups * v.lanes
	SUBQ(Imm(uint64(wide)), Mem{Base: t, Disp: stripN})
	JLE(LabelRef(v.name + "_end"))
	step := field(t, stripLDB)
	IMUL3Q(Imm(uint64(wide*4)), step, step)
	ADDQ(step, Mem{Base: t, Disp: stripB})
	ADDQ(Imm(uint64(wide*4)), Mem{Base: t, Disp: stripC})
	CMPQ(Mem{Base: t, Disp: stripInit}, Imm(0))
	JEQ(LabelRef(v.name + "_moved"))
	ADDQ(Imm(uint64(wide*4)), Mem{Base: t, Disp: stripInit})
	Label(v.name + "_moved")
	CMPQ(Mem{Base: t, Disp: stripN}, Imm(uint64(wide)))
	JGE(LabelRef(v.name + "_group")) // as many rows of B as before, in the same places
	JMP(LabelRef(v.name))
	Label(v.name + "_end")
	end()
}

// places lists where the rows of B are that the groups take, relative to the first: those that are missing are the
// first one again, which nobody stores. (Not the last one: a load under a mask that reaches into a page that is not
// there does no harm, but takes hundreds of cycles.)
func (v turnedTile) places() {
	t := load("t")
	ldb, n, at, zero := field(t, stripLDB), field(t, stripN), GP64(), GP64()
	SHLQ(Imm(2), ldb)
	XORQ(at, at)
	XORQ(zero, zero)
	for i := range v.groups * v.lanes {
		MOVQ(at, v.rowsOfB.Offset(8*i))
		ADDQ(ldb, at)
		CMPQ(n, Imm(uint64(i+2)))
		CMOVQLT(zero, at)
	}
}

// copyOf is a register with the same value.
func (isa) copyOf(r reg.GPVirtual) reg.GPVirtual {
	c := GP64()
	MOVQ(r, c)
	return c
}

// load is a square of B, turned: of the rows of a group, as many elements as a register has lanes, or as the mask says.
func (v turnedTile) load(g int, b reg.GPVirtual, mask reg.Register) []reg.VecVirtual {
	x, at := v.lanesOf(v.lanes), GP64()
	for i := range x {
		MOVQ(v.rowsOfB.Offset(8*(g*v.lanes+i)), at)
		from := Mem{Base: b, Index: at, Scale: 1}
		switch {
		case mask == nil:
			VMOVUPS(from, x[i])
			from.Disp = 256
			PREFETCHT0(from) // so many rows are more than the processor sees coming
		case v.lanes == 16:
			VMOVUPS_Z(from, mask, x[i])
		default:
			VMASKMOVPS(from, mask, x[i])
		}
	}
	return v.square(x)
}

// add is one k: x, of all columns of a group, times each row's element of A.
func (v turnedTile) add(sums [][]reg.VecVirtual, g int, x reg.VecVirtual, rows []Mem) {
	for r, a := range rows {
		if v.lanes == 16 {
			VFMADD231PS_BCST(a, x, sums[r][g])
			continue
		}
		y := v.reg()
		VBROADCASTSS(a, y)
		VFMADD231PS(x, y, sums[r][g])
	}
}

// rowsOfA is the rows of A: a base, and odd multiples of their distance, which together with the scales of an
// address reach each row.
type rowsOfA struct {
	base reg.GPVirtual
	odd  map[int]reg.GPVirtual
	n    int
}

func (v turnedTile) rowsOfA(t reg.GPVirtual) (rows rowsOfA, aks reg.GPVirtual) {
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

// start loads the sums from init, or begins at zero.
func (v turnedTile) start(t reg.GPVirtual) [][]reg.VecVirtual {
	sums := make([][]reg.VecVirtual, v.rows)
	for r := range sums {
		sums[r] = v.lanesOf(v.groups)
		for _, s := range sums[r] {
			v.zero(s)
		}
	}
	init, ldi, n := field(t, stripInit), field(t, stripLDI), field(t, stripN)
	TESTQ(init, init)
	JZ(LabelRef(v.name + "_zero"))
	SHLQ(Imm(2), ldi)
	for g := range v.groups {
		mask, at := v.maskAt(n, g*v.lanes), GP64()
		MOVQ(init, at)
		for r := range sums {
			from := Mem{Base: at, Disp: g * v.bytes()}
			if v.lanes == 16 {
				VMOVUPS_Z(from, mask, sums[r][g])
			} else {
				VMASKMOVPS(from, mask, sums[r][g])
			}
			ADDQ(ldi, at)
		}
	}
	Label(v.name + "_zero")
	return sums
}

// store writes max(floor, sums) to c. The order of VMAXPS's operands lets NaN and -0 pass.
func (v turnedTile) store(sums [][]reg.VecVirtual) {
	t := load("t")
	c, ldc, n, floor := field(t, stripC), field(t, stripLDC), field(t, stripN), v.reg()
	SHLQ(Imm(2), ldc)
	VBROADCASTSS(Mem{Base: t, Disp: stripFloor}, floor)
	for g := range v.groups {
		mask, at := v.maskAt(n, g*v.lanes), GP64()
		MOVQ(c, at)
		for r := range sums {
			s, to := sums[r][g], Mem{Base: at, Disp: g * v.bytes()}
			VMAXPS(s, floor, s)
			if v.lanes == 16 {
				VMOVUPS(s, mask, to)
			} else {
				VMASKMOVPS(s, mask, to)
			}
			ADDQ(ldc, at)
		}
	}
}
