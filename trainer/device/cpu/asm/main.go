// Command asm writes the assembly of package cpu, with avo. It is a module of its own so that
// nothing that muster links depends on avo. From trainer/device/cpu:
//
//	go generate
//
// All kernels exist in two widths, from the same code: AVX-512 (16 floats) and AVX2 with
// FMA (8 floats). They do the same roundings in the same order on every element.
package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/reg"
)

// isa is a vector width.
type isa struct {
	suffix string
	lanes  int // float32 per register
	mr, nv int // a tile is mr rows of nv registers
	flat   int // rows of a strip at most, see direct
	// Of the kernel that turns B: rows at most, and of how many it takes two groups of columns at a time.
	turnedRows, turnedPairs int
}

var (
	avx512 = isa{suffix: "AVX512", lanes: 16, mr: 8, nv: 2, flat: 8, turnedRows: 12, turnedPairs: 4}
	avx2   = isa{suffix: "AVX2", lanes: 8, mr: 6, nv: 2, flat: 6, turnedRows: 5, turnedPairs: 2}
)

func (v isa) reg() reg.VecVirtual {
	if v.lanes == 16 {
		return ZMM()
	}
	return YMM()
}

func (v isa) bytes() int { return v.lanes * 4 }

// zero takes the instruction of which avo knows that it does not depend on what was in r.
func (v isa) zero(r reg.VecVirtual) {
	if v.lanes == 16 {
		VPSUBD(r, r, r)
	} else {
		VXORPS(r, r, r)
	}
}

func main() {
	ConstraintExpr("amd64")
	for _, v := range []isa{avx512, avx2} {
		multiply(v)
		multiplyEdge(v)
		direct(v)
		turned(v)
		pack(v)
		transpose(v)
		sumRows(v)
		mask(v)
		rowMax(v)
		rows(v)
	}
	max4AVX512()
	spread4AVX512()
	max4AVX2()
	spread4AVX2()
	dropout(avx512)
	dropout(avx2)
	Generate()
}

// begin starts a function. The Go declarations are written by hand (isa_amd64.go) because
// they use types of the package.
func begin(name, signature, doc string) {
	TEXT(name, attr.NOSPLIT, signature)
	Doc(doc)
}

func load(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }

func end() {
	VZEROUPPER()
	RET()
}
