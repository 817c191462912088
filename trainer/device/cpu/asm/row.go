package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// blockSize is how many elements a row kernel does per turn, whatever the width: AVX2 does
// two halves, so element i goes to partial sum i mod 16 in either.
const blockSize = 16

// row is a kernel over n elements side by side, n a positive multiple of blockSize.
type row struct {
	v        isa
	half     int // which register of the block: 0, and 1 with AVX2
	pointers []string
	at       map[string]reg.GPVirtual
	scalars  map[string]reg.VecVirtual
	sums     [][]reg.VecVirtual // by sum and half
}

// rowKernel writes one kernel: pointers and scalars are the names of its arguments (scalars are
// float32), sums how many results it adds up over the row. body does one register of each block.
func rowKernel(v isa, name, doc string, pointers, scalars []string, sums int, body func(r *row)) {
	r := &row{v: v, at: map[string]reg.GPVirtual{}, scalars: map[string]reg.VecVirtual{}}
	r.begin(name, doc, pointers, scalars, sums)
	zero := func(x reg.VecVirtual) { v.zero(x) }
	r.loop(name, sums, zero, body)
	for k, s := range r.sums {
		ret(k, v.fold(s, func(a, b, c Op) { VADDPS(a, b, c) }))
	}
	end()
}

// rowMax is the one kernel that folds something else than sums.
func rowMax(v isa) {
	const name = "rowMax"
	r := &row{v: v, at: map[string]reg.GPVirtual{}}
	r.begin(name, "returns the largest of x[0..n).", []string{"x"}, nil, 1)
	lowest := func(x reg.VecVirtual) { VMOVUPS(constant(float32(math.Inf(-1))), x) }
	r.loop(name, 1, lowest, func(r *row) {
		VMAXPS(r.mem("x"), r.sums[0][r.half], r.sums[0][r.half])
	})
	ret(0, v.fold(r.sums[0], func(a, b, c Op) { VMAXPS(a, b, c) }))
	end()
}

func (r *row) begin(name, doc string, pointers, scalars []string, results int) {
	signature := "func("
	for _, p := range pointers {
		signature += p + " *float32, "
	}
	signature += "n int"
	for _, s := range scalars {
		signature += ", " + s + " float32"
	}
	signature += ")" + []string{"", " float32", " (r0, r1 float32)"}[results]
	r.pointers = pointers
	full := name + r.v.suffix
	begin(full, signature, full+" "+doc)
	for _, p := range pointers {
		r.at[p] = load(p)
	}
	for _, s := range scalars {
		a, err := Param(s).Resolve()
		if err != nil {
			panic(err)
		}
		r.scalars[s] = r.v.reg()
		VBROADCASTSS(a.Addr, r.scalars[s])
	}
}

func (r *row) loop(name string, sums int, start func(reg.VecVirtual), body func(r *row)) {
	for range sums {
		s := make([]reg.VecVirtual, blockSize/r.v.lanes)
		for h := range s {
			s[h] = r.v.reg()
			start(s[h])
		}
		r.sums = append(r.sums, s)
	}
	n := load("n")
	label := name + r.v.suffix + "_loop"
	Label(label)
	for r.half = 0; r.half < blockSize/r.v.lanes; r.half++ {
		body(r)
	}
	for _, p := range r.pointers {
		ADDQ(Imm(blockSize*4), r.at[p])
	}
	SUBQ(Imm(blockSize), n)
	JNZ(LabelRef(label))
}

func (r *row) mem(p string) Mem { return Mem{Base: r.at[p], Disp: r.half * r.v.bytes()} }

func (r *row) load(p string) reg.VecVirtual {
	x := r.v.reg()
	VMOVUPS(r.mem(p), x)
	return x
}

func (r *row) store(x reg.VecVirtual, p string) { VMOVUPS(x, r.mem(p)) }

// add adds x to sum k.
func (r *row) add(k int, x reg.VecVirtual) { VADDPS(x, r.sums[k][r.half], r.sums[k][r.half]) }

// fold reduces the sixteen lanes in a fixed tree: halves upon each other until one is left.
func (v isa) fold(s []reg.VecVirtual, op func(a, b, c Op)) reg.VecVirtual {
	y := YMM()
	if v.lanes == 16 {
		VEXTRACTF64X4(Imm(1), s[0], y)
		op(y, s[0].AsY(), y)
	} else {
		op(s[1], s[0], y)
	}
	x, z := y.AsX(), XMM()
	VEXTRACTF128(Imm(1), y, z)
	op(z, x, z)
	other := XMM()
	VPERMILPS(Imm(0x0e), z, other)
	op(other, z, z)
	VPERMILPS(Imm(0x01), z, other)
	op(other, z, z)
	return z
}

func ret(k int, x reg.VecVirtual) {
	a, err := ReturnIndex(k).Resolve()
	if err != nil {
		panic(err)
	}
	VMOVSS(x.AsX(), a.Addr)
}

// constants are the registers' worth of equal values that constant made a place for, by bits.
var constants = map[uint32]Mem{}

func constant(f float32) Mem { return constantBits(math.Float32bits(f)) }

func constantBits(bits uint32) Mem {
	if m, ok := constants[bits]; ok {
		return m
	}
	m := GLOBL(fmt.Sprintf("constant%08x", bits), attr.RODATA|attr.NOPTR)
	for i := range blockSize {
		DATA(4*i, U32(bits))
	}
	constants[bits] = m
	return m
}
