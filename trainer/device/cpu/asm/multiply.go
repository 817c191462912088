package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
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
	tileRows  = 80
	tileWidth = 88
	tileFloor = 96
	tileTiles = 104
)

// field loads a field of the tile that t points to.
func field(t reg.Register, offset int) reg.GPVirtual {
	r := GP64()
	MOVQ(Mem{Base: t, Disp: offset}, r)
	return r
}

// multiply is the kernel for whole tiles.
func multiply(v isa) {
	name := "multiply" + v.suffix
	begin(name, "func(t *byte)", fmt.Sprintf("%s computes tiles of %dx%d, see type tile.", name, v.mr, v.nv*v.lanes))
	tile{isa: v, name: name, rows: v.mr, nv: v.nv, unroll: 4}.write()
}

// multiplyEdge is the kernel for whatever is smaller: a program for each number of rows and of
// registers in a row, the last of them masked.
func multiplyEdge(v isa) {
	name := "multiplyEdge" + v.suffix
	begin(name, "func(t *byte)", fmt.Sprintf("%s computes tiles of up to %dx%d, see type tile.", name, v.mr, v.nv*v.lanes))
	t := load("t")
	rows, width := field(t, tileRows), field(t, tileWidth)
	program := func(rows, nv int) string { return fmt.Sprintf("%s_%dx%d", name, rows, nv) }
	for nv := v.nv; nv > 1; nv-- {
		CMPQ(width, U32(uint32((nv-1)*v.lanes)))
		JGT(LabelRef(program(0, nv)))
	}
	for nv := 1; nv <= v.nv; nv++ {
		Label(program(0, nv))
		for r := v.mr; r > 1; r-- {
			CMPQ(rows, Imm(uint64(r)))
			JEQ(LabelRef(program(r, nv)))
		}
		for r := 1; r <= v.mr; r++ {
			Label(program(r, nv))
			tile{isa: v, name: program(r, nv), rows: r, nv: nv, unroll: 2, masked: true}.write()
		}
	}
}

// tile is a program for a column of tiles of one size: rows*nv sums stay in registers while k runs; for each k,
// nv loads of B, and for each row one broadcast of A that serves nv fused multiply-adds.
type tile struct {
	isa
	name     string
	rows, nv int
	unroll   int
	masked   bool // of the last register, only the elements within the width are there
}

func (v tile) write() {
	var last reg.Register
	if v.lanes == 16 {
		last = v.mask(load("t"))
	}
	Label(v.name + "_tile")
	t := load("t")
	if v.lanes == 8 {
		last = v.mask(t)
	}
	sums := v.start(t, last)
	if !v.masked {
		v.prefetch(t)
	}

	ko, b, ldb, kc := field(t, tileKO), field(t, tileB), field(t, tileLDB), field(t, tileKC)
	SHLQ(Imm(2), ldb)
	rows := v.rowPointers(t)
	bv := make([]reg.VecVirtual, v.nv)
	for j := range bv {
		bv[j] = v.reg()
	}
	av := []reg.VecVirtual{v.reg(), v.reg()} // in turns
	index := GP64()
	step := func(u int) {
		MOVLQSX(Mem{Base: ko, Disp: u * 4}, index)
		for j := range bv {
			if v.masked && v.lanes == 16 && j == v.nv-1 {
				VMOVUPS_Z(Mem{Base: b, Disp: j * v.bytes()}, last, bv[j])
			} else {
				VMOVUPS(Mem{Base: b, Disp: j * v.bytes()}, bv[j])
			}
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
	rest, single, done := v.name+"_rest", v.name+"_single", v.name+"_done"
	SUBQ(Imm(uint64(v.unroll)), kc)
	JL(LabelRef(rest))
	Label(v.name + "_loop")
	for u := range v.unroll {
		step(u)
	}
	ADDQ(Imm(uint64(v.unroll*4)), ko)
	SUBQ(Imm(uint64(v.unroll)), kc)
	JGE(LabelRef(v.name + "_loop"))
	Label(rest)
	ADDQ(Imm(uint64(v.unroll)), kc)
	JZ(LabelRef(done))
	Label(single)
	step(0)
	ADDQ(Imm(4), ko)
	DECQ(kc)
	JNZ(LabelRef(single))
	Label(done)
	v.store(sums, last)
	t = load("t")
	DECQ(Mem{Base: t, Disp: tileTiles})
	JEQ(LabelRef(v.name + "_end"))
	v.down(t)
	JMP(LabelRef(v.name + "_tile"))
	Label(v.name + "_end")
	end()
}

// down goes on to the tile below. After the last one it must not: the collector would find pointers to nothing.
func (v tile) down(t reg.GPVirtual) {
	ADDQ(Imm(uint64(v.rows*4)), Mem{Base: t, Disp: tileRO})
	for _, at := range []struct{ pointer, stride int }{{tileC, tileLDC}, {tileInit, tileLDI}} {
		step := field(t, at.stride)
		IMUL3Q(Imm(uint64(v.rows*4)), step, step)
		ADDQ(step, Mem{Base: t, Disp: at.pointer})
	}
}

// mask makes the mask of a row's last register; nil where none is needed.
func (v tile) mask(t reg.GPVirtual) reg.Register {
	if !v.masked {
		return nil
	}
	return v.maskAt(field(t, tileWidth), (v.nv-1)*v.lanes)
}

// maskAt is maskOf(n - from), within 0 and all lanes.
func (v isa) maskAt(n reg.GPVirtual, from int) reg.Register {
	left, bound := GP64(), GP64()
	MOVQ(n, left)
	SUBQ(Imm(uint64(from)), left)
	XORQ(bound, bound)
	CMPQ(left, bound)
	CMOVQLT(bound, left)
	MOVQ(U32(uint32(v.lanes)), bound)
	CMPQ(left, bound)
	CMOVQGT(bound, left)
	return v.maskOf(left)
}

// maskOf is the mask of a register's first n elements; n is lost.
func (v isa) maskOf(n reg.GPVirtual) reg.Register {
	bits := GP64()
	if v.lanes == 16 {
		k := K()
		MOVQ(I32(-1), bits)
		BZHIQ(n, bits, bits)
		KMOVW(bits.As32(), k)
		return k
	}
	m := YMM()
	LEAQ(maskTable(), bits)
	NEGQ(n)
	VMOVUPS(Mem{Base: bits, Index: n, Scale: 4, Disp: 4 * v.lanes}, m)
	return m
}

var maskTableAt Mem

// maskTable is eight elements of ones, then eight of zeros: from 8-n on, n of ones.
func maskTable() Mem {
	if maskTableAt.Symbol.Name == "" {
		maskTableAt = GLOBL("masks", attr.RODATA|attr.NOPTR)
		for i := range 16 {
			DATA(4*i, U32([]uint32{0xffffffff, 0}[i/8]))
		}
	}
	return maskTableAt
}

// start loads the sums from init, or begins at zero.
func (v tile) start(t reg.GPVirtual, last reg.Register) [][]reg.VecVirtual {
	init, ldi := field(t, tileInit), field(t, tileLDI)
	SHLQ(Imm(2), ldi)
	sums := make([][]reg.VecVirtual, v.rows)
	for i := range sums {
		sums[i] = v.lanesOf(v.nv)
		for j := range sums[i] {
			v.zero(sums[i][j])
		}
	}
	TESTQ(init, init)
	JZ(LabelRef(v.name + "_zero"))
	for i := range sums {
		for j := range sums[i] {
			from := Mem{Base: init, Disp: j * v.bytes()}
			switch {
			case j < v.nv-1 || !v.masked:
				VMOVUPS(from, sums[i][j])
			case v.lanes == 16:
				VMOVUPS_Z(from, last, sums[i][j])
			default:
				VMASKMOVPS(from, last, sums[i][j])
			}
		}
		if i < v.rows-1 {
			ADDQ(ldi, init)
		}
	}
	Label(v.name + "_zero")
	return sums
}

// prefetch asks for the part of c that the next tile begins with, unless that begins very soon.
func (v tile) prefetch(t reg.GPVirtual) {
	CMPQ(Mem{Base: t, Disp: tileKC}, Imm(64))
	JL(LabelRef(v.name + "_now"))
	c, ldc, rows := field(t, tileC), field(t, tileLDC), GP64()
	SHLQ(Imm(2), ldc)
	IMUL3Q(Imm(uint64(v.rows)), ldc, rows)
	ADDQ(rows, c)
	for i := range v.rows {
		for line := 0; line < v.nv*v.bytes(); line += 64 {
			PREFETCHT1(Mem{Base: c, Disp: line})
		}
		if i < v.rows-1 {
			ADDQ(ldc, c)
		}
	}
	Label(v.name + "_now")
}

// rowPointers is &a[ro[i]] for each row.
func (v tile) rowPointers(t reg.GPVirtual) []reg.GPVirtual {
	a, ro := field(t, tileA), field(t, tileRO)
	rows := make([]reg.GPVirtual, v.rows)
	for i := range rows {
		rows[i] = GP64()
		MOVLQSX(Mem{Base: ro, Disp: i * 4}, rows[i])
		LEAQ(Mem{Base: a, Index: rows[i], Scale: 4}, rows[i])
	}
	return rows
}

// store writes max(floor, sums) to c. The order of VMAXPS's operands lets NaN and -0 pass.
func (v tile) store(sums [][]reg.VecVirtual, last reg.Register) {
	t := load("t") // again: no register was free for it in the loop
	if v.lanes == 8 {
		last = v.mask(t) // nor for this
	}
	c, ldc, floor := field(t, tileC), field(t, tileLDC), v.reg()
	SHLQ(Imm(2), ldc)
	CMPL(Mem{Base: t, Disp: tileFloor}, U32(math.Float32bits(float32(math.Inf(-1)))))
	JEQ(LabelRef(v.name + "_write"))
	VBROADCASTSS(Mem{Base: t, Disp: tileFloor}, floor)
	for i := range sums {
		for _, s := range sums[i] {
			VMAXPS(s, floor, s)
		}
	}
	Label(v.name + "_write")
	for i := range sums {
		for j, s := range sums[i] {
			to := Mem{Base: c, Disp: j * v.bytes()}
			switch {
			case j < v.nv-1 || !v.masked:
				VMOVUPS(s, to)
			case v.lanes == 16:
				VMOVUPS(s, last, to)
			default:
				VMASKMOVPS(s, last, to)
			}
		}
		if i < len(sums)-1 {
			ADDQ(ldc, c)
		}
	}
}
