package optim

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/musterml/muster/internal/id"
)

func configs() map[string]Config {
	return map[string]Config{
		"plain":          {Name: "sgd", LR: 0.1},
		"plain decay":    {Name: "sgd", LR: 0.1, WeightDecay: 0.01},
		"momentum":       {Name: "sgd", LR: 0.05, Momentum: 0.9},
		"momentum decay": {Name: "sgd", LR: 0.05, Momentum: 0.9, WeightDecay: 1e-4},
		"adam":           {Name: "adam", LR: 1e-3},
		"adam decay":     {Name: "adam", LR: 1e-2, Beta1: 0.8, Beta2: 0.99, Epsilon: 1e-6, WeightDecay: 0.1},
	}
}

func must(t testing.TB, c Config) Optimizer {
	t.Helper()
	o, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// oracle is one element in float64, straight from the papers' formulas.
func oracle(c Config, step int, w, g float64, slots []float64) float64 {
	g += c.WeightDecay * w
	if c.Name == "sgd" {
		if c.Momentum == 0 {
			return w - c.LR*g
		}
		slots[0] = c.Momentum*slots[0] + g
		return w - c.LR*slots[0]
	}
	b1, b2, eps := c.Beta1, c.Beta2, c.Epsilon
	if b1 == 0 {
		b1, b2, eps = 0.9, 0.999, 1e-8
	}
	slots[0] = b1*slots[0] + (1-b1)*g
	slots[1] = b2*slots[1] + (1-b2)*g*g
	m := slots[0] / (1 - math.Pow(b1, float64(step+1)))
	v := slots[1] / (1 - math.Pow(b2, float64(step+1)))
	return w - c.LR*m/(math.Sqrt(v)+eps)
}

func TestAgainstFloat64Oracle(t *testing.T) {
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			o := must(t, c)
			r := rand.New(rand.NewPCG(1, 2))
			const n = 33
			w, g := make([]float32, n), make([]float32, n)
			slots, ws, ss := slotsOf(o, n), make([]float64, n), make([][]float64, n)
			for i := range w {
				w[i] = float32(r.NormFloat64())
				ws[i], ss[i] = float64(w[i]), make([]float64, 2)
			}
			for step := range 200 {
				for i := range g {
					g[i] = float32(r.NormFloat64())
					ws[i] = oracle(c, step, ws[i], float64(g[i]), ss[i])
				}
				o.Update(id.Step(step), w, g, slots)
			}
			for i := range w {
				if d := math.Abs(float64(w[i]) - ws[i]); !(d < 2e-5*(1+math.Abs(ws[i]))) {
					t.Fatalf("element %d: %v, oracle %v", i, w[i], ws[i])
				}
			}
		})
	}
}

func slotsOf(o Optimizer, n int) [][]float32 {
	s := make([][]float32, o.Slots())
	for i := range s {
		s[i] = make([]float32, n)
	}
	return s
}

func random(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func cut(slots [][]float32, lo, hi int) [][]float32 {
	c := make([][]float32, len(slots))
	for i := range slots {
		c[i] = slots[i][lo:hi]
	}
	return c
}

func equalBits(a, b []float32) bool {
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

// Any cutting into ranges, in place or into another buffer, gives the same bits.
func TestRangesAndFormsAgree(t *testing.T) {
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			o := must(t, c)
			r := rand.New(rand.NewPCG(3, 4))
			const n = 101
			w, slots := random(r, n), slotsOf(o, n)
			w2 := append([]float32(nil), w...)
			slots2 := slotsOf(o, n)
			for step := range 20 {
				g := random(r, n)
				o.Update(id.Step(step), w, g, slots)
				nw, ns := make([]float32, n), slotsOf(o, n)
				for lo := 0; lo < n; {
					hi := min(n, lo+1+r.IntN(40))
					o.UpdateTo(id.Step(step), nw[lo:hi], cut(ns, lo, hi), w2[lo:hi], g[lo:hi], cut(slots2, lo, hi))
					lo = hi
				}
				w2, slots2 = nw, ns
				if !equalBits(w, w2) {
					t.Fatalf("step %d: weights differ", step)
				}
				for i := range slots {
					if !equalBits(slots[i], slots2[i]) {
						t.Fatalf("step %d: slot %d differs", step, i)
					}
				}
			}
		})
	}
}

func TestConfigErrors(t *testing.T) {
	for _, tc := range []struct {
		c    Config
		want []string
	}{
		{Config{Name: "lamb", LR: 1}, []string{`"lamb"`, "adam, sgd"}},
		{Config{Name: "sgd"}, []string{"lr is 0"}},
		{Config{Name: "sgd", LR: math.NaN(), Momentum: 1, WeightDecay: -1}, []string{"lr is NaN", "momentum is 1", "weight_decay is -1"}},
		{Config{Name: "adam", LR: 1, Beta1: 1, Beta2: -1, Epsilon: -1}, []string{"beta1", "beta2", "epsilon"}},
	} {
		_, err := New(tc.c)
		if !errors.Is(err, ErrConfig) {
			t.Fatalf("%+v: %v", tc.c, err)
		}
		for _, w := range tc.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q does not mention %q", err, w)
			}
		}
	}
}

func TestPower(t *testing.T) {
	for _, b := range []float64{0.9, 0.999, 0.5} {
		for _, n := range []uint64{0, 1, 2, 3, 17, 1000, 1 << 40} {
			want := math.Pow(b, float64(n))
			if got := power(b, n); math.Abs(got-want) > 1e-12*want {
				t.Errorf("%v^%d = %v, want %v", b, n, got, want)
			}
		}
	}
}

func TestNoAllocation(t *testing.T) {
	for name, c := range configs() {
		o := must(t, c)
		w, g, slots := make([]float32, 100), make([]float32, 100), slotsOf(o, 100)
		if a := testing.AllocsPerRun(10, func() { o.Update(3, w, g, slots) }); a != 0 {
			t.Errorf("%s: %v allocations", name, a)
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	for _, name := range []string{"plain", "momentum", "adam"} {
		b.Run(name, func(b *testing.B) {
			o := must(b, configs()[name])
			const n = 1 << 18
			w, g, slots := make([]float32, n), make([]float32, n), slotsOf(o, n)
			b.SetBytes(4 * n)
			for b.Loop() {
				o.Update(3, w, g, slots)
			}
		})
	}
}
