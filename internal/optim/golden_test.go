package optim

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/musterml/muster/internal/id"
)

const goldenN, goldenSteps = 33, 40

// goldenCase is an entry of testdata/golden.json, which PyTorch printed (testdata/golden.py).
type goldenCase struct {
	W     []float64 // the weights after all steps
	Rates []float64 // the learning rate of each step
}

// goldenConfigs are the cases of golden.py; clip is the norm that gradients are clipped at, if any.
var goldenConfigs = map[string]struct {
	Config
	clip float64
}{
	"sgd":              {Config: Config{Name: "sgd", LR: 0.05, WeightDecay: 0.01}},
	"momentum":         {Config: Config{Name: "momentum", LR: 0.02, WeightDecay: 0.01}},
	"nesterov":         {Config: Config{Name: "nesterov", LR: 0.02, WeightDecay: 0.01}},
	"adagrad":          {Config: Config{Name: "adagrad", LR: 0.1, WeightDecay: 0.01}},
	"rmsprop":          {Config: Config{Name: "rmsprop", LR: 0.01, WeightDecay: 0.01}},
	"rmsprop momentum": {Config: Config{Name: "rmsprop", LR: 0.01, Alpha: 0.9, Momentum: 0.5, Epsilon: 1e-6}},
	"adam":             {Config: Config{Name: "adam", LR: 0.01, WeightDecay: 0.01}},
	"adamw":            {Config: Config{Name: "adamw", LR: 0.01, Beta1: 0.8, Beta2: 0.99, Epsilon: 1e-6, WeightDecay: 0.1}},
	"clip":             {Config: Config{Name: "momentum", LR: 0.05}, clip: 1.5},
	"step":             {Config: Config{Name: "sgd", LR: 0.1, Schedule: Schedule{Name: Stepwise, Warmup: 5, Every: 7, Factor: 0.5}}},
	"cosine":           {Config: Config{Name: "adamw", LR: 0.05, WeightDecay: 0.01, Schedule: Schedule{Name: Cosine, Warmup: 8, Floor: 0.001, Steps: goldenSteps}}},
	"polynomial":       {Config: Config{Name: "sgd", LR: 0.1, Schedule: Schedule{Name: Polynomial, Power: 0.9, Steps: goldenSteps}}},
	"warm constant":    {Config: Config{Name: "sgd", LR: 0.1, Schedule: Schedule{Warmup: 10}}},
}

// goldenGradient is that of golden.py.
func goldenGradient(g, w []float32, step int) {
	for i := range g {
		slope, target, noise := float32(i%7+1)/4, float32(i%5-2)/2, float32((i*31+step*17)%13-6)/8
		g[i] = slope*(w[i]-target) + noise
	}
}

func TestPyTorch(t *testing.T) {
	file, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct{ Cases map[string]goldenCase }
	if err := json.Unmarshal(file, &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden.Cases) != len(goldenConfigs) {
		t.Errorf("golden.json has %d cases, here are %d", len(golden.Cases), len(goldenConfigs))
	}
	for name, c := range goldenConfigs {
		want, o := golden.Cases[name], must(t, c.Config)
		w, g, slots := make([]float32, goldenN), make([]float32, goldenN), slotsOf(o, goldenN)
		for i := range w {
			w[i] = float32((i*37)%64-32) / 16
		}
		for step := range goldenSteps {
			goldenGradient(g, w, step)
			if c.clip > 0 {
				Scale(g, ClipFactor(SumSquares(g), c.clip))
			}
			if rate := c.Schedule.Rate(c.LR, id.Step(step)); !(math.Abs(rate-want.Rates[step]) <= 1e-12*c.LR) {
				t.Errorf("%s: the rate of step %d is %v, in PyTorch %v", name, step, rate, want.Rates[step])
			}
			o.Update(id.Step(step), w, g, slots)
		}
		for i, v := range w {
			if !(math.Abs(float64(v)-want.W[i]) <= 1e-5*(1+math.Abs(want.W[i]))) {
				t.Errorf("%s: weight %d is %v, in PyTorch %v", name, i, v, want.W[i])
			}
		}
	}
}

// What PyTorch does not print: after the end, and bits that no machine may change.
func TestSchedule(t *testing.T) {
	for _, c := range []struct {
		s    Schedule
		step id.Step
		want float64
	}{
		{Schedule{}, 1 << 60, 0.1},
		{Schedule{Warmup: 4}, 0, 0.025},
		{Schedule{Warmup: 4}, 3, 0.1},
		{Schedule{Name: Cosine, Steps: 10, Floor: 0.01}, 10, 0.01},
		{Schedule{Name: Cosine, Steps: 10, Floor: 0.01}, 1 << 60, 0.01},
		{Schedule{Name: Cosine, Steps: 10}, 5, 0.05},
		{Schedule{Name: Polynomial, Steps: 10, Power: 0.5}, 1 << 60, 0},
		{Schedule{Name: Polynomial, Steps: 10, Floor: 0.01}, 5, 0.055},
		{Schedule{Name: Polynomial, Steps: 10, Power: 2}, 5, 0.025},
		{Schedule{Name: Stepwise, Every: 3}, 8, 0.001},
	} {
		if got := c.s.Rate(0.1, c.step); math.Abs(got-c.want) > 1e-16 {
			t.Errorf("%+v: the rate of step %d is %v, want %v", c.s, c.step, got, c.want)
		}
	}
	sum := uint64(0)
	for _, s := range []Schedule{{Name: Cosine, Warmup: 17, Floor: 1e-5}, {Name: Polynomial, Power: 0.9}, {Name: Stepwise, Every: 100, Factor: 0.7}} {
		s.Steps = 1000
		for step := range id.Step(1000) {
			sum = sum*31 + math.Float64bits(s.Rate(3e-4, step))
		}
	}
	if want := uint64(0x4761a7ca67fc739b); sum != want {
		t.Errorf("the bits of the rates have the sum %#x, want %#x", sum, want)
	}
}

func TestClipFactor(t *testing.T) {
	for _, c := range []struct{ sum, limit, want float64 }{{25, 10, 1}, {25, 5, 5 / 5.000001}, {100, 1, 1 / 10.000001}, {0, 1, 1}, {math.Inf(1), 1, 0}} {
		if got := ClipFactor(c.sum, c.limit); got != float32(c.want) {
			t.Errorf("the factor for %v and %v is %v, want %v", c.sum, c.limit, got, c.want)
		}
	}
	if got := ClipFactor(math.NaN(), 1); got == got {
		t.Errorf("the factor for NaN is %v", got)
	}
}
