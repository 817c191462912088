// Command asm writes the assembly of package optim, with avo. It is a module of its own so that
// nothing that muster links depends on avo. From internal/optim:
//
//	go generate
//
// All kernels exist in two widths, from the same code: AVX-512 (16 floats) and AVX2 (8 floats). Products and sums are
// rounded one by one, never fused, as in the Go loops that they stand for.
package main

import (
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

func main() {
	ConstraintExpr("amd64")
	for _, v := range []isa{{"AVX512", 16}, {"AVX2", 8}} {
		plain(v)
		for _, decay := range []bool{false, true} {
			momentum(v, decay)
			adam(v, decay)
		}
	}
	Generate()
}

// kernel is an update in the making: pointers into the vectors and constants in every lane.
type kernel struct {
	isa
	at        map[string]reg.GPVirtual
	index     reg.GPVirtual // of the element, in bytes
	constants map[string]reg.VecVirtual
}

// update writes a kernel over n elements, n a positive multiple of the lanes: body does one register of each vector.
func update(v isa, name, doc string, decay bool, vectors, constants []string, body func(k *kernel)) {
	if decay {
		name += "Decay"
		doc += ", with decay*w added to the gradient"
		constants = append(constants, "decay")
	}
	name += v.suffix
	signature := "func("
	for _, p := range vectors {
		signature += p + " *float32, "
	}
	signature += "n int"
	for _, c := range constants {
		signature += ", " + c + " float32"
	}
	TEXT(name, attr.NOSPLIT, signature+")")
	Doc(name + " " + doc + ".")
	k := &kernel{isa: v, at: map[string]reg.GPVirtual{}, constants: map[string]reg.VecVirtual{}}
	for _, p := range vectors {
		k.at[p] = Load(Param(p), GP64()).(reg.GPVirtual)
	}
	for _, c := range constants {
		a, err := Param(c).Resolve()
		if err != nil {
			panic(err)
		}
		k.constants[c] = v.reg()
		VBROADCASTSS(a.Addr, k.constants[c])
	}
	n := Load(Param("n"), GP64()).(reg.GPVirtual)
	i := GP64()
	XORQ(i, i)
	SHLQ(Imm(2), n)
	k.index = i
	Label(name + "_loop")
	body(k)
	ADDQ(Imm(uint64(v.lanes*4)), i)
	CMPQ(i, n)
	JL(LabelRef(name + "_loop"))
	VZEROUPPER()
	RET()
}

func (k *kernel) mem(p string) Mem { return Mem{Base: k.at[p], Index: k.index, Scale: 1} }

func (k *kernel) load(p string) reg.VecVirtual {
	x := k.reg()
	VMOVUPS(k.mem(p), x)
	return x
}

func (k *kernel) store(x reg.VecVirtual, p string) { VMOVUPS(x, k.mem(p)) }

// times is c*x.
func (k *kernel) times(c string, x reg.VecVirtual) reg.VecVirtual {
	y := k.reg()
	VMULPS(k.constants[c], x, y)
	return y
}

// gradient is grad, with decay*w added.
func (k *kernel) gradient(w reg.VecVirtual, decay bool) reg.VecVirtual {
	g := k.load("grad")
	if decay {
		VADDPS(k.times("decay", w), g, g)
	}
	return g
}

func plain(v isa) {
	update(v, "plain", "does dw = w - lr*grad", true, []string{"dw", "w", "grad"}, []string{"lr"}, func(k *kernel) {
		w := k.load("w")
		VSUBPS(k.times("lr", k.gradient(w, true)), w, w)
		k.store(w, "dw")
	})
}

func momentum(v isa, decay bool) {
	update(v, "momentum", "does dm = momentum*m + grad, dw = w - lr*dm", decay,
		[]string{"dw", "dm", "w", "grad", "m"}, []string{"lr", "momentum"}, func(k *kernel) {
			w := k.load("w")
			b := k.times("momentum", k.load("m"))
			VADDPS(k.gradient(w, decay), b, b)
			k.store(b, "dm")
			VSUBPS(k.times("lr", b), w, w)
			k.store(w, "dw")
		})
}

func adam(v isa, decay bool) {
	update(v, "adam", "does dm = m + keep1*(grad-m), dv = beta2*v + keep2*grad*grad, dw = w - factor*dm/(sqrt(dv)/root + eps)", decay,
		[]string{"dw", "dm", "dv", "w", "grad", "m", "v"}, []string{"keep1", "beta2", "keep2", "root", "eps", "factor"}, func(k *kernel) {
			w := k.load("w")
			d := k.gradient(w, decay)
			a, t := k.load("m"), k.reg()
			VSUBPS(a, d, t)
			VADDPS(k.times("keep1", t), a, a)
			k.store(a, "dm")
			VMULPS(d, k.times("keep2", d), t)
			b := k.times("beta2", k.load("v"))
			VADDPS(t, b, b)
			k.store(b, "dv")
			VSQRTPS(b, b)
			VDIVPS(k.constants["root"], b, b)
			VADDPS(k.constants["eps"], b, b)
			a = k.times("factor", a)
			VDIVPS(b, a, a)
			VSUBPS(a, w, w)
			k.store(w, "dw")
		})
}
