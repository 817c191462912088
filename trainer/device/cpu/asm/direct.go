package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// tall is how many rows a strip has at most where a register has all columns; elsewhere isa.flat.
const tall = 12

// direct is the kernel for operands that are near: nothing is packed. For each number of rows and of registers in a row
// there is a program, the last register under a mask. The columns of a strip are dealt out so that no program gets few of them.
func direct(v isa) {
	name := "direct" + v.suffix
	TEXT(name, 0, "func(t *byte)")
	Doc(fmt.Sprintf("%s computes strips of up to %d rows, of up to %d where there are no more than %d columns; see type strip.", name, v.flat, tall, v.lanes))
	left, at := AllocLocal(8), AllocLocal(8)
	t := load("t")
	rows := field(t, stripRows)
	program := func(rows, nv int) string { return fmt.Sprintf("%s_%dx%d", name, rows, nv) }
	strips := func(rows int) string { return fmt.Sprintf("%s_%d", name, rows) }
	most := tall
	for r := 1; r < most; r++ { // the smallest first: they are the ones that notice
		CMPQ(rows, Imm(uint64(r)))
		JEQ(LabelRef(strips(r)))
	}
	for r := most; r >= 1; r-- {
		Label(strips(r))
		s := strip{isa: v, rows: r, left: left, at: at}
		s.begin(load("t"))
		columns, wide := strips(r)+"_columns", v.wide(r)
		Label(columns)
		if wide > 1 {
			regs := GP64()
			MOVQ(left, regs)
			ADDQ(Imm(uint64(v.lanes-1)), regs)
			SHRQ(Imm(map[int]uint64{8: 3, 16: 4}[v.lanes]), regs)
			CMPQ(regs, Imm(uint64(2*wide)))
			JGE(LabelRef(program(r, wide)))
			CMPQ(regs, Imm(uint64(wide)))
			JLE(LabelRef(columns + "_few"))
			INCQ(regs)
			SHRQ(Imm(1), regs)
			Label(columns + "_few")
			for nv := 1; nv < wide; nv++ {
				CMPQ(regs, Imm(uint64(nv)))
				JEQ(LabelRef(program(r, nv)))
			}
		}
		for nv := wide; nv >= 1; nv-- {
			s.nv, s.name = nv, program(r, nv)
			directTile{s}.write()
			s.next(columns, strips(r))
		}
	}
}

// wide is how many registers a row has at most: as many as there are for the sums, a row of B, an element of A and a mask.
// Many sums keep a processor busy while it waits for them, and wide rows are read and written in fewer lines.
func (v isa) wide(rows int) int {
	if rows > v.flat {
		return 1
	}
	return (2*v.lanes - 2) / (rows + 1)
}

type directTile struct{ strip }

func (v directTile) write() {
	Label(v.name)
	t := load("t")
	left := GP64()
	MOVQ(v.left, left)
	masks := make([]reg.Register, v.nv)
	masks[v.nv-1] = v.maskAt(left, (v.nv-1)*v.lanes)
	sums := v.start(t, masks)
	b, ldb, kc := field(t, stripB), field(t, stripLDB), field(t, stripKC)
	SHLQ(Imm(2), ldb)
	ADDQ(v.at, b)
	rows, aks := v.rowsOfA(t)
	Label(v.name + "_loop")
	v.step(sums, Mem{Base: b}, rows.at(rows.base), masks[v.nv-1])
	ADDQ(ldb, b)
	ADDQ(aks, rows.base)
	DECQ(kc)
	JNZ(LabelRef(v.name + "_loop"))
	v.store(sums, masks)
}

// step is one k: of B a row, of A an element in each row. Either may be an operand in memory where it is used once.
func (v directTile) step(sums [][]reg.VecVirtual, b Mem, a []Mem, last reg.Register) {
	x, y := make([]Op, v.nv), v.reg()
	for j := range x {
		x[j] = b.Offset(j * v.bytes())
		if j == v.nv-1 || v.rows > 1 {
			in := v.reg()
			if j < v.nv-1 {
				VMOVUPS(x[j], in)
			} else {
				v.loadMasked(b.Offset(j*v.bytes()), last, in)
			}
			x[j] = in
		}
	}
	for r := range a {
		if v.nv == 1 && v.lanes == 16 {
			VFMADD231PS_BCST(a[r], x[0], sums[r][0])
			continue
		}
		VBROADCASTSS(a[r], y)
		for j := range x {
			VFMADD231PS(x[j], y, sums[r][j])
		}
	}
}
