package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	philoxM0, philoxM1 = 0xD2511F53, 0xCD9E8D57
	philoxRounds       = 10
)

// dropout does 64 elements per turn: sixteen counters side by side, four words each. AVX2 does two halves.
func dropout(v isa) {
	name := "dropout" + v.suffix
	begin(name, "func(y *float32, x *float32, n int, counter *[4]uint32, keys *[20]uint32, limit uint32, scale float32)",
		name+" writes y[i] = 0 where the random word of element i is below limit, else x[i]*scale, for i < n, a multiple of 64.\n"+
			"The first counter is *counter; those of lanes and turns follow in its first word. keys are those of the rounds.")
	y, x, n, counter, keys := load("y"), load("x"), load("n"), load("counter"), load("keys")
	p := philox{isa: v, keys: keys, m0: v.reg(), m1: v.reg()}
	VMOVUPS(constantBits(philoxM0), p.m0)
	VMOVUPS(constantBits(philoxM1), p.m1)
	if v.lanes == 16 {
		p.odd = K()
		g := GP32()
		MOVL(U32(0xaaaa), g)
		KMOVW(g, p.odd)
	}
	limit := v.param("limit")
	if v.lanes == 8 { // comparisons are signed
		VPXOR(constantBits(1<<31), limit, limit)
	}
	scale := v.param("scale")
	next := GP64() // added to the first word of the counter
	XORQ(next, next)
	Label(name + "_loop")
	for half := 0; half < 16; half += v.lanes {
		c := p.start(counter, next, half)
		p.rounds(c)
		for w, r := range c {
			at := 4 * (16*w + half)
			v.drop(r, limit, scale, Mem{Base: x, Disp: at}, Mem{Base: y, Disp: at})
		}
	}
	for _, q := range []reg.GPVirtual{x, y} {
		ADDQ(U32(256), q)
	}
	ADDQ(Imm(16), next)
	SUBQ(Imm(64), n)
	JNZ(LabelRef(name + "_loop"))
	end()
}

// param is a parameter of 32 bits in every lane.
func (v isa) param(name string) reg.VecVirtual {
	a, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	r := v.reg()
	VBROADCASTSS(a.Addr, r)
	return r
}

// philox is the generator's state that does not change.
type philox struct {
	isa
	keys   reg.GPVirtual
	m0, m1 reg.VecVirtual
	odd    reg.OpmaskVirtual // the odd lanes, for AVX-512
}

// start makes the counters of the lanes from half on.
func (p *philox) start(counter, next reg.GPVirtual, half int) []reg.VecVirtual {
	c := make([]reg.VecVirtual, 4)
	for w := range c {
		c[w] = p.reg()
		VPBROADCASTD(Mem{Base: counter, Disp: 4 * w}, c[w])
	}
	t, s := XMM(), p.reg()
	VMOVD(next.As32(), t)
	VPBROADCASTD(t, s)
	VPADDD(s, c[0], c[0])
	VPADDD(laneNumbers().Offset(4*half), c[0], c[0])
	return c
}

// rounds does all rounds, in place.
func (p *philox) rounds(c []reg.VecVirtual) {
	for r := range philoxRounds {
		hi0, lo0 := p.multiply(c[0], p.m0)
		hi1, lo1 := p.multiply(c[2], p.m1)
		p.xor(hi1, c[1], 8*r)
		p.xor(hi0, c[3], 8*r+4)
		c[0], c[1], c[2], c[3] = hi1, lo1, hi0, lo0
	}
}

// xor is x = x ^ y ^ the key at an offset.
func (p *philox) xor(x, y reg.VecVirtual, key int) {
	k := p.reg()
	VPBROADCASTD(Mem{Base: p.keys, Disp: key}, k)
	if p.lanes == 16 {
		VPTERNLOGD(Imm(0x96), k, y, x)
	} else {
		VPXOR(k, x, x)
		VPXOR(y, x, x)
	}
}

// multiply is the upper and the lower halves of the products of x and m, lane by lane; even and odd lanes apart.
func (p *philox) multiply(x, m reg.VecVirtual) (hi, lo reg.VecVirtual) {
	odd := p.reg()
	hi, lo = p.reg(), p.reg()
	VPSRLQ(Imm(32), x, odd)
	VPMULUDQ(m, x, lo)
	VPMULUDQ(m, odd, odd)
	if p.lanes == 16 {
		VPSHUFD(Imm(0xf5), lo, hi)
		VMOVDQA32(odd, p.odd, hi)
		VPSHUFD(Imm(0xa0), odd, p.odd, lo)
	} else {
		VPSRLQ(Imm(32), lo, hi)
		VPBLENDD(Imm(0xaa), odd, hi, hi)
		VPSLLQ(Imm(32), odd, odd)
		VPBLENDD(Imm(0xaa), odd, lo, lo)
	}
	return hi, lo
}

// drop writes to y what becomes of x.
func (v isa) drop(word, limit, scale reg.VecVirtual, x, y Mem) {
	r := v.reg()
	if v.lanes == 16 {
		const notBelow = 5
		keep := K()
		VPCMPUD(Imm(notBelow), limit, word, keep)
		VMULPS_Z(x, scale, keep, r)
	} else {
		VPXOR(constantBits(1<<31), word, word)
		VPCMPGTD(word, limit, word) // dropped
		VMULPS(x, scale, r)
		VANDNPS(r, word, r)
	}
	VMOVUPS(r, y)
}

var laneTable Mem

// laneNumbers is 0, 1, ... 15.
func laneNumbers() Mem {
	if laneTable.Base == nil {
		laneTable = GLOBL("lanes", attr.RODATA|attr.NOPTR)
		for i := range 16 {
			DATA(4*i, U32(uint32(i)))
		}
	}
	return laneTable
}
