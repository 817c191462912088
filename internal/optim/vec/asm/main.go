// Command asm writes the assembly of package vec, with avo. It is a module of its own so that
// nothing that muster links depends on avo. From internal/optim/vec:
//
//	go generate
//
// All kernels exist in two widths, from the same code: AVX-512 (16 floats) and AVX2 (8 floats). None fuses a
// product with a sum: plain Go, which must give the same bits, does not either.
package main

import (
	"strings"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// isa is a vector width.
type isa struct {
	suffix string
	lanes  int // float32 per register
}

func (v isa) reg() reg.VecVirtual {
	if v.lanes == 16 {
		return ZMM()
	}
	return YMM()
}

func (v isa) bytes() int { return v.lanes * 4 }

func main() {
	ConstraintExpr("amd64")
	for _, v := range []isa{{"AVX512", 16}, {"AVX2", 8}} {
		sgd(v)
		momentum(v)
		nesterov(v)
		adagrad(v)
		rmsprop(v)
		rmspropMomentum(v)
		adam(v)
		scale(v)
		sumSquares(v)
	}
	Generate()
}

// block is how many elements a turn of every loop does, whatever the width.
const block = 16

// kernel is a loop over n elements, n a positive multiple of block.
type kernel struct {
	v    isa
	disp int
	at   map[string]reg.GPVirtual
	c    map[string]reg.VecVirtual // scalars, in every lane
}

// elementwise writes a kernel; the Go declarations are written by hand (vec_amd64.go). pointers and scalars are the
// names of the arguments; body does one register.
func elementwise(v isa, name, doc, pointers, scalars string, body func(k *kernel)) {
	k := &kernel{v: v, at: map[string]reg.GPVirtual{}, c: map[string]reg.VecVirtual{}}
	name += v.suffix
	signature := "func(" + strings.ReplaceAll(pointers, " ", " *float32, ") + " *float32, n int"
	if scalars != "" {
		signature += ", " + strings.ReplaceAll(scalars, " ", " float32, ") + " float32"
	}
	TEXT(name, attr.NOSPLIT, signature+")")
	Doc(name + " " + doc + " for i < n.")
	for _, p := range strings.Fields(pointers) {
		k.at[p] = load(p)
	}
	for _, s := range strings.Fields(scalars) {
		a, err := Param(s).Resolve()
		if err != nil {
			panic(err)
		}
		k.c[s] = v.reg()
		VBROADCASTSS(a.Addr, k.c[s])
	}
	n := load("n")
	Label(name + "_loop")
	for k.disp = 0; k.disp < block*4; k.disp += v.bytes() {
		body(k)
	}
	for _, p := range strings.Fields(pointers) {
		ADDQ(Imm(block*4), k.at[p])
	}
	SUBQ(Imm(block), n)
	JNZ(LabelRef(name + "_loop"))
	end()
}

func load(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }

func end() {
	VZEROUPPER()
	RET()
}

func (k *kernel) mem(p string) Mem { return Mem{Base: k.at[p], Disp: k.disp} }

func (k *kernel) load(p string) reg.VecVirtual {
	x := k.v.reg()
	VMOVUPS(k.mem(p), x)
	return x
}

func (k *kernel) store(x reg.VecVirtual, p string) { VMOVUPS(x, k.mem(p)) }

// times is a new register with the product of a scalar and x.
func (k *kernel) times(scalar string, x Op) reg.VecVirtual {
	y := k.v.reg()
	VMULPS(x, k.c[scalar], y)
	return y
}

// gradient is grad + decay*w.
func (k *kernel) gradient(w reg.VecVirtual) reg.VecVirtual {
	d := k.times("decay", w)
	VADDPS(k.mem("grad"), d, d)
	return d
}

// momentum is m' = momentum*m + d, also stored.
func (k *kernel) momentum(d reg.VecVirtual) reg.VecVirtual {
	m := k.times("momentum", k.mem("m"))
	VADDPS(d, m, m)
	k.store(m, "dm")
	return m
}

// descend stores w - lr*d.
func (k *kernel) descend(w, d reg.VecVirtual) {
	VMULPS(k.c["lr"], d, d)
	VSUBPS(d, w, w)
	k.store(w, "dw")
}

func sgd(v isa) {
	elementwise(v, "sgd", "writes dw[i] = w[i] - lr*(grad[i]+decay*w[i])", "dw w grad", "lr decay", func(k *kernel) {
		w := k.load("w")
		k.descend(w, k.gradient(w))
	})
}

func momentum(v isa) {
	elementwise(v, "momentum", "writes dm[i] = momentum*m[i] + d, d = grad[i]+decay*w[i], and dw[i] = w[i] - lr*dm[i]",
		"dw dm w grad m", "lr momentum decay", func(k *kernel) {
			w := k.load("w")
			k.descend(w, k.momentum(k.gradient(w)))
		})
}

func nesterov(v isa) {
	elementwise(v, "nesterov", "writes dm[i] = momentum*m[i] + d, d = grad[i]+decay*w[i], and dw[i] = w[i] - lr*(d+momentum*dm[i])",
		"dw dm w grad m", "lr momentum decay", func(k *kernel) {
			w := k.load("w")
			d := k.gradient(w)
			m := k.momentum(d)
			VMULPS(k.c["momentum"], m, m)
			VADDPS(m, d, d)
			k.descend(w, d)
		})
}

// quotient is a/(sqrt(s)+eps), in s.
func (k *kernel) quotient(a, s reg.VecVirtual) reg.VecVirtual {
	VSQRTPS(s, s)
	VADDPS(k.c["eps"], s, s)
	VDIVPS(s, a, s)
	return s
}

// mean is dm = beta2*m + keep2*d*d.
func (k *kernel) mean(d reg.VecVirtual) reg.VecVirtual {
	s, q := k.times("beta2", k.mem("m")), k.times("keep2", d)
	VMULPS(d, q, q)
	VADDPS(q, s, s)
	k.store(s, "dm")
	return s
}

func adagrad(v isa) {
	elementwise(v, "adagrad", "writes dm[i] = m[i] + d*d, d = grad[i]+decay*w[i], and dw[i] = w[i] - lr*d/(sqrt(dm[i])+eps)",
		"dw dm w grad m", "lr decay eps", func(k *kernel) {
			w := k.load("w")
			d, s := k.gradient(w), v.reg()
			VMULPS(d, d, s)
			VADDPS(k.mem("m"), s, s)
			k.store(s, "dm")
			VSUBPS(k.quotient(k.times("lr", d), s), w, w)
			k.store(w, "dw")
		})
}

func rmsprop(v isa) {
	elementwise(v, "rmsprop", "writes dm[i] = beta2*m[i] + keep2*d*d, d = grad[i]+decay*w[i], and dw[i] = w[i] - lr*d/(sqrt(dm[i])+eps)",
		"dw dm w grad m", "lr decay beta2 keep2 eps", func(k *kernel) {
			w := k.load("w")
			d := k.gradient(w)
			s := k.mean(d)
			VSUBPS(k.quotient(k.times("lr", d), s), w, w)
			k.store(w, "dw")
		})
}

func rmspropMomentum(v isa) {
	elementwise(v, "rmspropMomentum", "writes dm[i] = beta2*m[i] + keep2*d*d, d = grad[i]+decay*w[i],\n"+
		"dv[i] = momentum*v[i] + d/(sqrt(dm[i])+eps), and dw[i] = w[i] - lr*dv[i]",
		"dw dm dv w grad m v", "lr momentum decay beta2 keep2 eps", func(k *kernel) {
			w := k.load("w")
			d := k.gradient(w)
			s := k.quotient(d, k.mean(d))
			b := k.times("momentum", k.mem("v"))
			VADDPS(s, b, b)
			k.store(b, "dv")
			k.descend(w, b)
		})
}

func adam(v isa) {
	elementwise(v, "adam", "writes dm[i] = m[i] + keep1*(d-m[i]), d = grad[i]+decay*w[i], dv[i] = beta2*v[i] + keep2*d*d, and\n"+
		"dw[i] = shrink*w[i] - factor*dm[i]/(sqrt(dv[i])/root+eps)",
		"dw dm dv w grad m v", "decay shrink keep1 beta2 keep2 root eps factor", func(k *kernel) {
			w := k.load("w")
			d := k.gradient(w)
			m, a := k.load("m"), v.reg()
			VSUBPS(m, d, a)
			VMULPS(k.c["keep1"], a, a)
			VADDPS(a, m, m)
			k.store(m, "dm")
			s := k.times("beta2", k.mem("v"))
			VMULPS(k.c["keep2"], d, a)
			VMULPS(d, a, a)
			VADDPS(a, s, s)
			k.store(s, "dv")
			VSQRTPS(s, s)
			VDIVPS(k.c["root"], s, s)
			VADDPS(k.c["eps"], s, s)
			VMULPS(k.c["factor"], m, m)
			VDIVPS(s, m, m)
			VMULPS(k.c["shrink"], w, w)
			VSUBPS(m, w, w)
			k.store(w, "dw")
		})
}

func scale(v isa) {
	elementwise(v, "scale", "writes x[i] = a*x[i]", "x", "a", func(k *kernel) {
		k.store(k.times("a", k.mem("x")), "x")
	})
}

// sumSquares keeps sixteen partial sums in float64. A square is exact in float64, so here a fused multiply-add rounds
// as a sum does; AVX2 does without, because it does not imply FMA.
func sumSquares(v isa) {
	name := "sumSquares" + v.suffix
	TEXT(name, attr.NOSPLIT, "func(x *float32, n int) (sums [16]float64)")
	Doc(name + " returns in sums[k] the sum of the squares of x[i], i < n, i mod 16 = k.")
	x, n, sums := load("x"), load("n"), GP64()
	wide := v.lanes / 2 // float64 per register
	partial := make([]reg.VecVirtual, block/wide)
	for k := range partial {
		partial[k] = v.reg()
		if v.lanes == 16 {
			VPXORQ(partial[k], partial[k], partial[k])
		} else {
			VXORPD(partial[k], partial[k], partial[k])
		}
	}
	Label(name + "_loop")
	for k, s := range partial {
		d := v.reg()
		VCVTPS2PD(Mem{Base: x, Disp: 4 * wide * k}, d)
		if v.lanes == 16 {
			VFMADD231PD(d, d, s)
		} else {
			VMULPD(d, d, d)
			VADDPD(d, s, s)
		}
	}
	ADDQ(Imm(block*4), x)
	SUBQ(Imm(block), n)
	JNZ(LabelRef(name + "_loop"))
	first, err := ReturnIndex(0).Index(0).Resolve()
	if err != nil {
		panic(err)
	}
	LEAQ(first.Addr, sums)
	for k, s := range partial {
		VMOVUPD(s, Mem{Base: sums, Disp: 8 * wide * k})
	}
	end()
}
