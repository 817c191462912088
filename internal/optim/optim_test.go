package optim

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim/vec"
)

func configs() map[string]Config {
	return map[string]Config{
		"plain":             {Name: "sgd", LR: 0.1},
		"plain decay":       {Name: "sgd", LR: 0.1, WeightDecay: 0.01},
		"momentum":          {Name: "sgd", LR: 0.05, Momentum: 0.9},
		"momentum decay":    {Name: "momentum", LR: 0.05, WeightDecay: 1e-4},
		"nesterov":          {Name: "nesterov", LR: 0.02, Momentum: 0.8, WeightDecay: 0.01},
		"adagrad":           {Name: "adagrad", LR: 0.1, WeightDecay: 0.01},
		"rmsprop":           {Name: "rmsprop", LR: 0.01},
		"rmsprop momentum":  {Name: "rmsprop", LR: 0.01, Alpha: 0.9, Momentum: 0.5, Epsilon: 1e-6, WeightDecay: 0.01},
		"adam":              {Name: "adam", LR: 1e-3},
		"adam decay":        {Name: "adam", LR: 1e-2, Beta1: 0.8, Beta2: 0.99, Epsilon: 1e-6, WeightDecay: 0.1},
		"adamw":             {Name: "adamw", LR: 1e-2, WeightDecay: 0.1},
		"adamw by schedule": {Name: "adamw", LR: 1e-2, WeightDecay: 0.1, Schedule: Schedule{Name: Cosine, Warmup: 5, Steps: 100}},
		"lamb":              {Name: "lamb", LR: 0.01, WeightDecay: 0.01},
		"ftrl":              {Name: "ftrl", LR: 0.1},
		"ftrl sparse":       {Name: "ftrl", LR: 0.05, L1: 2, L2: 0.1, Beta: 0.5},
	}
}

func must(t testing.TB, c Config) *optimizer {
	t.Helper()
	o, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return o.(*optimizer)
}

// oracle is one step of a vector in float64, straight from the papers' formulas. c has every default in place.
func oracle(c Config, step int, w, g []float64, slots [2][]float64) {
	lr, t := c.Schedule.Rate(c.LR, id.Step(step)), float64(step+1)
	update := make([]float64, len(w))
	for i := range w {
		a, b, d := &slots[0][i], &slots[1][i], g[i]
		if c.Name != "adamw" && c.Name != "lamb" {
			d += c.WeightDecay * w[i]
		}
		switch c.Name {
		case "sgd", "momentum", "nesterov":
			*a = c.Momentum**a + d
			if update[i] = *a; c.Name == "nesterov" {
				update[i] = d + c.Momentum**a
			}
		case "adagrad":
			*a += d * d
			update[i] = d / (math.Sqrt(*a) + c.Epsilon)
		case "rmsprop":
			*a = c.Alpha**a + (1-c.Alpha)*d*d
			*b = c.Momentum**b + d/(math.Sqrt(*a)+c.Epsilon)
			update[i] = *b
		case "adam", "adamw", "lamb":
			*a = c.Beta1**a + (1-c.Beta1)*d
			*b = c.Beta2**b + (1-c.Beta2)*d*d
			m, v := *a/(1-math.Pow(c.Beta1, t)), *b/(1-math.Pow(c.Beta2, t))
			update[i] = m / (math.Sqrt(v) + c.Epsilon)
			if c.Name != "adam" {
				update[i] += c.WeightDecay * w[i]
			}
		case "ftrl":
			sigma := (math.Sqrt(*b+d*d) - math.Sqrt(*b)) / lr
			*a += d - sigma*w[i]
			*b += d * d
			next := 0.0
			if math.Abs(*a) > c.L1 {
				next = -(*a - math.Copysign(c.L1, *a)) / ((c.Beta+math.Sqrt(*b))/lr + c.L2)
			}
			update[i] = (w[i] - next) / lr
		}
	}
	trust := 1.0
	if c.Name == "lamb" {
		trust = norm(w) / norm(update)
	}
	for i := range w {
		w[i] -= lr * trust * update[i]
	}
}

func norm(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	return math.Sqrt(sum)
}

func TestAgainstFloat64Oracle(t *testing.T) {
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			o := must(t, c)
			r := rand.New(rand.NewPCG(1, 2))
			const n = 33
			w, g := make([]float32, n), make([]float32, n)
			slots, ws, gs := slotsOf(o, n), make([]float64, n), make([]float64, n)
			ss := [2][]float64{make([]float64, n), make([]float64, n)}
			for i := range w {
				w[i] = float32(r.NormFloat64())
				ws[i] = float64(w[i])
			}
			zeros := 0
			for step := range 200 {
				for i := range g {
					g[i] = float32(r.NormFloat64())
					gs[i] = float64(g[i])
				}
				oracle(o.c, step, ws, gs, ss)
				o.Update(id.Step(step), w, g, slots)
			}
			for i := range w {
				if d := math.Abs(float64(w[i]) - ws[i]); !(d < 2e-5*(1+math.Abs(ws[i]))) {
					t.Fatalf("element %d: %v, oracle %v", i, w[i], ws[i])
				}
				if w[i] == 0 {
					zeros++
				}
			}
			if (zeros > 0) != (c.L1 > 0) {
				t.Errorf("%d weights are 0 with l1 = %v", zeros, c.L1)
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

// Any cutting into ranges, in place or into another buffer, on any instruction set, gives the same bits.
func TestRangesFormsAndSetsAgree(t *testing.T) {
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			o := must(t, c)
			r := rand.New(rand.NewPCG(3, 4))
			const n = 101
			w, slots := random(r, n), slotsOf(o, n)
			w2 := append([]float32(nil), w...)
			slots2 := slotsOf(o, n)
			for step := range 20 {
				g, set := random(r, n), vec.Sets()[step%len(vec.Sets())]
				o.Update(id.Step(step), w, g, slots)
				nw, ns := make([]float32, n), slotsOf(o, n)
				for lo := 0; lo < n; {
					hi := min(n, lo+1+r.IntN(40))
					if o.WholeTensors() {
						hi = n
					}
					rule := o.Rule(id.Step(step))
					rule.apply(set, nw[lo:hi], cut(ns, lo, hi), w2[lo:hi], g[lo:hi], cut(slots2, lo, hi))
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

// A tensor of zeros, or a gradient of zeros, must not make LAMB divide by them.
func TestLAMBAtZero(t *testing.T) {
	o := must(t, Config{Name: "lamb", LR: 0.1})
	w, slots := make([]float32, 3), slotsOf(o, 3)
	o.Update(0, w, []float32{0, 0, 0}, slots)
	if !equalBits(w, []float32{0, 0, 0}) {
		t.Errorf("nothing moves zeros to %v", w)
	}
	o.Update(0, w, []float32{1, -1, 1}, slots)
	for i, v := range w {
		if want := []float32{-0.1, 0.1, -0.1}[i]; math.Abs(float64(v-want)) > 1e-6 {
			t.Errorf("from zero: %v, want steps of the learning rate", w)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for _, tc := range []struct {
		c    Config
		want []string
	}{
		{Config{Name: "lion", LR: -1, Schedule: Schedule{Name: "up"}}, []string{`"lion"`, "lr is -1", "schedule.name", "adagrad, adam, adamw, ftrl, lamb, momentum, nesterov, rmsprop or sgd"}},
		{Config{Name: "sgd"}, []string{"lr is 0"}},
		{Config{Name: "sgd", LR: math.NaN(), Momentum: 1, WeightDecay: -1}, []string{"lr is NaN", "momentum is 1", "weight_decay is -1"}},
		{Config{Name: "adam", LR: 1, Beta1: 1, Beta2: -1, Epsilon: -1}, []string{"beta1", "beta2", "epsilon"}},
		{Config{Name: "adam", LR: 1, Momentum: 0.9, L1: 1}, []string{"momentum is 0.9, but adam has none", "l1 is 1, but"}},
		{Config{Name: "ftrl", LR: 1, L1: -1, L2: math.Inf(1), Beta: -1, WeightDecay: 1}, []string{"l1", "l2", "beta", "weight_decay is 1, but ftrl has none"}},
		{Config{Name: "rmsprop", LR: 1, Alpha: 1}, []string{"alpha"}},
		{Config{Name: "sgd", LR: 1, Schedule: Schedule{Name: "ramp"}}, []string{`schedule.name is "ramp"`, "constant, step, cosine or polynomial"}},
		{Config{Name: "sgd", LR: -1, Schedule: Schedule{Name: Stepwise, Factor: 2, Power: 1, Floor: 1}},
			[]string{"lr is -1", "schedule.every", "schedule.factor", "schedule.power", "schedule.floor"}},
		{Config{Name: "sgd", LR: 1, Schedule: Schedule{Name: Cosine, Warmup: 10, Steps: 10, Every: 1, Floor: 2}},
			[]string{"schedule.warmup is 10", "the run has 10", "schedule.every", "schedule.floor is 2"}},
		{Config{Name: "sgd", LR: 1, Schedule: Schedule{Name: Polynomial, Power: math.Inf(1), Steps: 3}}, []string{"schedule.power"}},
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

func TestNamesAreSorted(t *testing.T) {
	if !slices.IsSorted(Names()) {
		t.Error(Names())
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

// benchmarked is as many parameters as bench/optim.py gives PyTorch.
const benchmarked = 1 << 22

func BenchmarkUpdate(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	for name, c := range configs() {
		b.Run(name, func(b *testing.B) {
			o := must(b, c)
			w, g, slots := random(r, benchmarked), random(r, benchmarked), slotsOf(o, benchmarked)
			b.SetBytes(int64(4 * benchmarked * (3 + 2*len(slots))))
			for b.Loop() {
				o.Update(3, w, g, slots)
			}
		})
	}
}

// BenchmarkClip finds the norm and scales.
func BenchmarkClip(b *testing.B) {
	g := random(rand.New(rand.NewPCG(7, 8)), benchmarked)
	for b.Loop() {
		Scale(g, ClipFactor(SumSquares(g), 1))
	}
}
