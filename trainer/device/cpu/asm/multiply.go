package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets of the fields of type tile, see kernels.go.
const (
	tileKC    = 0
	tileA     = 8
	tileKO    = 16
	tileB     = 24
	tileLDB   = 32
	tileC     = 40
	tileLDC   = 48
	tileInit  = 56
	tileLDI   = 64
	tileRO    = 72
	tileFloor = 80
)

// field loads a field of the tile that t points to.
func field(t reg.Register, offset int) reg.GPVirtual {
	r := GP64()
	MOVQ(Mem{Base: t, Disp: offset}, r)
	return r
}

// multiply is the tile kernel: mr*nv sums stay in registers while k runs; for each k, nv
// loads of B, and for each row one broadcast of A that serves nv fused multiply-adds.
func multiply(v isa) {
	name := "multiply" + v.suffix
	begin(name, "func(t *byte)", fmt.Sprintf("%s computes a tile of %dx%d, see type tile.", name, v.mr, v.nv*v.lanes))
	t := load("t")
	sums := start(v, t)

	ko, b, ldb, kc := field(t, tileKO), field(t, tileB), field(t, tileLDB), field(t, tileKC)
	SHLQ(Imm(2), ldb)
	rows := rowPointers(v, t)
	bv := make([]reg.VecVirtual, v.nv)
	for j := range bv {
		bv[j] = v.reg()
	}
	av := []reg.VecVirtual{v.reg(), v.reg()} // in turns
	index := GP64()
	step := func(u int) {
		MOVLQSX(Mem{Base: ko, Disp: u * 4}, index)
		for j := range bv {
			VMOVUPS(Mem{Base: b, Disp: j * v.bytes()}, bv[j])
		}
		ADDQ(ldb, b)
		for i, row := range rows {
			x := av[i%2]
			VBROADCASTSS(Mem{Base: row, Index: index, Scale: 4}, x)
			for j := range bv {
				VFMADD231PS(x, bv[j], sums[i][j])
			}
		}
	}
	const unroll = 4
	loop, rest, single, done := name+"_loop", name+"_rest", name+"_single", name+"_done"
	SUBQ(Imm(unroll), kc)
	JL(LabelRef(rest))
	Label(loop)
	for u := range unroll {
		step(u)
	}
	ADDQ(Imm(unroll*4), ko)
	SUBQ(Imm(unroll), kc)
	JGE(LabelRef(loop))
	Label(rest)
	ADDQ(Imm(unroll), kc)
	JZ(LabelRef(done))
	Label(single)
	step(0)
	ADDQ(Imm(4), ko)
	DECQ(kc)
	JNZ(LabelRef(single))
	Label(done)
	store(v, sums)
	end()
}

// start loads the sums from init.
func start(v isa, t reg.GPVirtual) [][]reg.VecVirtual {
	init, ldi := field(t, tileInit), field(t, tileLDI)
	SHLQ(Imm(2), ldi)
	sums := make([][]reg.VecVirtual, v.mr)
	for i := range sums {
		sums[i] = make([]reg.VecVirtual, v.nv)
		for j := range sums[i] {
			sums[i][j] = v.reg()
			VMOVUPS(Mem{Base: init, Disp: j * v.bytes()}, sums[i][j])
		}
		if i < v.mr-1 {
			ADDQ(ldi, init)
		}
	}
	return sums
}

// rowPointers is &a[ro[i]] for each row.
func rowPointers(v isa, t reg.GPVirtual) []reg.GPVirtual {
	a, ro := field(t, tileA), field(t, tileRO)
	rows := make([]reg.GPVirtual, v.mr)
	for i := range rows {
		rows[i] = GP64()
		MOVLQSX(Mem{Base: ro, Disp: i * 4}, rows[i])
		LEAQ(Mem{Base: a, Index: rows[i], Scale: 4}, rows[i])
	}
	return rows
}

// store writes max(floor, sums) to c. The order of VMAXPS's operands lets NaN and -0 pass.
func store(v isa, sums [][]reg.VecVirtual) {
	t := load("t") // again: no register was free for it in the loop
	c, ldc, floor := field(t, tileC), field(t, tileLDC), v.reg()
	SHLQ(Imm(2), ldc)
	VBROADCASTSS(Mem{Base: t, Disp: tileFloor}, floor)
	for i := range sums {
		for j, s := range sums[i] {
			VMAXPS(s, floor, s)
			VMOVUPS(s, Mem{Base: c, Disp: j * v.bytes()})
		}
		if i < len(sums)-1 {
			ADDQ(ldc, c)
		}
	}
}
