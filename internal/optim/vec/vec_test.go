package vec

import (
	"math"
	"math/rand/v2"
	"testing"
)

// lengths around every border of the loops, and the odd sizes.
var lengths = []int{0, 1, 7, 15, 16, 17, 31, 32, 33, 127, 1000}

// values are of every size, some of them odd.
func values(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(math.Ldexp(r.NormFloat64(), r.IntN(40)-30))
		if r.IntN(8) == 0 {
			x[i] = odd[r.IntN(len(odd))]
		}
	}
	return x
}

var odd = []float32{0, float32(math.Copysign(0, -1)), math.SmallestNonzeroFloat32, -1e-40, math.MaxFloat32, -math.MaxFloat32,
	float32(math.Inf(1)), float32(math.NaN()), 1e-20, 1e20}

// operands are vectors of which the last are to be written, with guards around them.
type operands struct {
	all   [][]float32
	guard int
}

const guardValue = 4242

func newOperands(r *rand.Rand, vectors, n int) operands {
	o := operands{guard: 1 + r.IntN(20)} // any alignment
	for range vectors {
		v := make([]float32, n+2*o.guard)
		for i := range v {
			v[i] = guardValue
		}
		copy(v[o.guard:], values(r, n))
		o.all = append(o.all, v)
	}
	return o
}

func (o operands) clone() operands {
	c := operands{guard: o.guard}
	for _, v := range o.all {
		c.all = append(c.all, append([]float32(nil), v...))
	}
	return c
}

func (o operands) at(i int) []float32 { return o.all[i][o.guard : len(o.all[i])-o.guard] }

// loops calls every kernel that writes vectors; v(i) is operand i. The squares must not be negative.
var loops = map[string]func(s *Set, v func(int) []float32){
	"sgd":               func(s *Set, v func(int) []float32) { s.SGD(v(0), v(1), v(2), 0.1, 0.01) },
	"sgd in place":      func(s *Set, v func(int) []float32) { s.SGD(v(1), v(1), v(2), 0.1, 0.01) },
	"momentum":          func(s *Set, v func(int) []float32) { s.Momentum(v(0), v(3), v(1), v(2), v(4), 0.1, 0.9, 0.01) },
	"momentum in place": func(s *Set, v func(int) []float32) { s.Momentum(v(1), v(4), v(1), v(2), v(4), 0.1, 0.9, 0) },
	"nesterov":          func(s *Set, v func(int) []float32) { s.Nesterov(v(0), v(3), v(1), v(2), v(4), 0.1, 0.9, 0.01) },
	"nesterov in place": func(s *Set, v func(int) []float32) { s.Nesterov(v(1), v(4), v(1), v(2), v(4), 0.1, 0.9, 0.01) },
	"adagrad": func(s *Set, v func(int) []float32) {
		squares(v(4))
		s.Adagrad(v(0), v(3), v(1), v(2), v(4), 0.1, 0.01, 1e-8)
	},
	"adagrad in place": func(s *Set, v func(int) []float32) {
		squares(v(4))
		s.Adagrad(v(1), v(4), v(1), v(2), v(4), 0.1, 0, 1e-8)
	},
	"rmsprop":          func(s *Set, v func(int) []float32) { squares(v(4)); s.RMSProp(v(0), v(3), v(1), v(2), v(4), &averaged) },
	"rmsprop in place": func(s *Set, v func(int) []float32) { squares(v(4)); s.RMSProp(v(1), v(4), v(1), v(2), v(4), &averaged) },
	"rmsprop momentum": func(s *Set, v func(int) []float32) {
		squares(v(4))
		s.RMSPropMomentum(v(0), v(3), v(6), v(1), v(2), v(4), v(5), &averaged)
	},
	"adam": func(s *Set, v func(int) []float32) {
		squares(v(5))
		s.Adam(v(0), v(3), v(6), v(1), v(2), v(4), v(5), &Adam{0.01, 0.99, 0.1, 0.999, 0.001, 0.3, 1e-8, 0.02})
	},
	"adam in place": func(s *Set, v func(int) []float32) {
		squares(v(5))
		s.Adam(v(1), v(4), v(5), v(1), v(2), v(4), v(5), &Adam{0, 1, 0.1, 0.999, 0.001, 0.3, 1e-8, 0.02})
	},
	"scale": func(s *Set, v func(int) []float32) { s.Scale(v(1), 0.3) },
}

var averaged = RMSProp{LR: 0.1, Momentum: 0.9, Decay: 0.01, Beta2: 0.99, Keep2: 0.01, Eps: 1e-8}

func squares(x []float32) {
	for i := range x {
		x[i] *= x[i]
	}
}

// TestSameBits compares every set with plain Go, and what lies around the vectors with what it was.
func TestSameBits(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range Sets() {
		for _, n := range lengths {
			for name, f := range loops {
				o := newOperands(r, 7, n)
				want := o.clone()
				f(s, o.at)
				f(&setGo, want.at)
				for k := range o.all {
					for i, v := range o.all[k] {
						u := want.all[k][i] // which NaN it is may differ
						if math.Float32bits(v) != math.Float32bits(u) && (v == v || u == u) {
							t.Fatalf("%s, %s of %d: element %d of operand %d is %v, plain Go gives %v", s.Name(), name, n, i-o.guard, k, v, u)
						}
					}
				}
			}
		}
	}
}

func random(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func TestSumSquares(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, s := range Sets() {
		for _, n := range lengths {
			x := random(r, n+3)[3:] // not aligned
			got, want, exact := s.SumSquares(x), setGo.SumSquares(x), 0.0
			for _, v := range x {
				exact += float64(v) * float64(v)
			}
			if math.Float64bits(got) != math.Float64bits(want) || math.Abs(got-exact) > 1e-14*exact {
				t.Errorf("%s: the squares of %d come to %v, in plain Go to %v, one by one to %v", s.Name(), n, got, want, exact)
			}
		}
	}
	ones := make([]float32, 1000)
	for i := range ones {
		ones[i] = 2
	}
	if got := Sets()[0].SumSquares(ones); got != 4000 {
		t.Errorf("the squares of 1000 twos come to %v", got)
	}
}

// BenchmarkLoops counts what each loop reads and writes.
func BenchmarkLoops(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, s := range Sets() {
		for name, vectors := range map[string]int{"sgd in place": 3, "momentum in place": 5, "nesterov in place": 5, "adam in place": 7, "adagrad in place": 5, "rmsprop in place": 5, "scale": 2} {
			b.Run(s.Name()+"/"+name, func(b *testing.B) {
				const n = 1 << 22 // beyond every cache
				o := newOperands(r, 7, n)
				b.SetBytes(int64(4 * n * vectors))
				for b.Loop() {
					loops[name](s, o.at)
				}
			})
		}
	}
}
