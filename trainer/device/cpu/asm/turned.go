package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// turned is the kernel for few rows and a B stored transposed: a register's worth of B's rows is turned in
// registers, square by square, and used at once; nothing is packed.
func turned(v isa) {
	name := "turned" + v.suffix
	TEXT(name, 0, "func(t *byte)")
	Doc(fmt.Sprintf("%s computes strips of up to %d rows, see type strip.", name, v.turnedRows))
	places := AllocLocal(2 * v.lanes * 8) // of the rows of B
	left, at, done := AllocLocal(8), AllocLocal(8), AllocLocal(8)
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
		turnedTile{strip{isa: v, name: program(r), rows: r, nv: groups, left: left, at: at}, places, done}.write()
	}
}

// turnedTile is a program for some rows of A and groups of as many rows of B as a register has lanes, nv groups at a time.
type turnedTile struct {
	strip
	rowsOfB Mem // their places, in the stack,
	done    Mem // and the bytes of those that are done
}

func (v turnedTile) write() {
	Label(v.name)
	v.begin(load("t"))
	MOVQ(I32(0), v.done)
	Label(v.name + "_columns")
	v.places()
	Label(v.name + "_group")
	t := load("t")
	masks := make([]reg.Register, v.nv)
	left := GP64()
	MOVQ(v.left, left)
	for g := range masks {
		masks[g] = v.maskAt(left, g*v.lanes)
	}
	sums := v.start(t, masks)
	b, kc := field(t, stripB), field(t, stripKC)
	ADDQ(v.done, b)
	rows, aks := v.rowsOfA(t)
	rest, done := v.name+"_rest", v.name+"_done"
	SUBQ(Imm(uint64(v.lanes)), kc)
	JL(LabelRef(rest))
	Label(v.name + "_loop")
	for g := range v.nv {
		a := GP64()
		MOVQ(rows.base, a)
		for _, x := range v.load(g, b, nil) {
			v.add(sums, g, x, rows.at(a))
			ADDQ(aks, a)
		}
		if g == v.nv-1 {
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
	for g := range v.nv {
		full := fmt.Sprintf("%s_rest_%d", v.name, g)
		a, left := rows.base, kc
		if g < v.nv-1 {
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
	left = GP64()
	MOVQ(v.left, left)
	for g := range masks { // again: no register was free for them in the loop
		masks[g] = v.maskAt(left, g*v.lanes)
	}
	v.store(sums, masks)

	step := field(load("t"), stripLDB)
	IMUL3Q(Imm(uint64(v.nv*v.lanes*4)), step, step)
	ADDQ(step, v.done)
	v.next(v.name+"_columns", v.name)
}

// places lists where the rows of B are that the groups take, relative to the first: those that are missing are the
// first one again, which nobody stores. (Not the last one: a load under a mask that reaches into a page that is not
// there does no harm, but takes hundreds of cycles.)
func (v turnedTile) places() {
	t := load("t")
	ldb, n, at, zero := field(t, stripLDB), GP64(), GP64(), GP64()
	MOVQ(v.left, n)
	SHLQ(Imm(2), ldb)
	XORQ(at, at)
	XORQ(zero, zero)
	for i := range v.nv * v.lanes {
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
