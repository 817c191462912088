package trainer

import (
	"math"
	"strings"
	"testing"
)

const scheduled = `
data: {train: 1000}
batch: {size: 100}
passes: 2
optimizer: {name: adamw, lr: 0.01, clip_norm: 1.5, schedule: {name: cosine, warmup: 4, floor: 0.001}}
`

func TestOptimizerSection(t *testing.T) {
	j, err := ParseJob([]byte(scheduled))
	if err != nil {
		t.Fatal(err)
	}
	o, err := j.NewOptimizer()
	if err != nil {
		t.Fatal(err)
	}
	if j.Optimizer.ClipNorm != 1.5 || j.Optimizer.WeightDecay != 0.01 {
		t.Errorf("got %+v, want a clip norm of 1.5 and PyTorch's decay of 0.01", j.Optimizer)
	}
	// 20 steps: step 0 has a quarter of the rate, step 12 is half-way down, step 20 would be at the floor.
	shrink := func(rate float64) float32 { return float32(1 - rate*0.01) }
	if a, b, c := o.Rule(0), o.Rule(12), o.Rule(20); a.Shrink != shrink(0.0025) || b.Shrink != shrink(0.0055) || c.Shrink != shrink(0.001) {
		t.Errorf("the decays are %v, %v, %v", a.Shrink, b.Shrink, c.Shrink)
	}
	b, err := j.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseJob(b)
	if err != nil || again.Optimizer != j.Optimizer {
		t.Errorf("%+v became %+v, %v on its way through\n%s", j.Optimizer, again.Optimizer, err, b)
	}
}

func TestOptimizerDefaults(t *testing.T) {
	for given, want := range map[string]float64{
		"{name: adamw}":                  0.01,
		"{name: adamw, weight_decay: 0}": 0,
		"{name: adam}":                   0,
		"{lr: 0.5}":                      0,
	} {
		j, err := ParseJob([]byte("optimizer: " + given))
		if err != nil || j.Optimizer.WeightDecay != want {
			t.Errorf("%s: weight decay %v, %v; want %v", given, j.Optimizer.WeightDecay, err, want)
		}
		b, _ := j.YAML()
		if again, err := ParseJob(b); err != nil || again.Optimizer != j.Optimizer {
			t.Errorf("%s becomes %+v, %v on its way through\n%s", given, again.Optimizer, err, b)
		}
	}
	b, _ := DefaultJob().YAML()
	if strings.Contains(string(b), "schedule") || strings.Contains(string(b), "clip_norm") {
		t.Errorf("the default job says more than it has:\n%s", b)
	}
}

// All faults of the section are told at once, each with its field.
func TestOptimizerFaults(t *testing.T) {
	for given, want := range map[string][]string{
		"optimizer: {name: sgd, lr: 0, beta1: 0.9, clip_norm: -1, schedule: {name: step, warmup: -3, every: -1, factor: 2, power: 1}}": {
			"optimizer.lr is 0", "optimizer.beta1 is 0.9, but sgd has none", "optimizer.clip_norm is -1", "optimizer.schedule.warmup is -3", "optimizer.schedule.every is -1",
			"optimizer.schedule.factor is 2", "optimizer.schedule.power",
		},
		"optimizer: {clip_norm: .inf, schedule: {name: exponential}}":                  {"optimizer.clip_norm is +Inf", `schedule.name is "exponential"`},
		"optimizer: {name: lamb, lr: -1}\nsync: {mode: server}":                        {"optimizer.name is lamb", "sync.mode ring", "optimizer.lr is -1"},
		"batch: {size: 10000}\noptimizer: {schedule: {name: cosine, warmup: 100}}":     {"schedule.warmup is 100 steps, but the run has 6"},
		"batch: {size: 0}\noptimizer: {schedule: {name: polynomial, warmup: 1000000}}": {"batch.size"},
		"optimizer: {schedul: {name: cosine}}":                                         {"schedul"},
	} {
		_, err := ParseJob([]byte(given))
		if err == nil {
			t.Errorf("%s was taken", given)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: the faults do not name %q:\n%v", given, w, err)
			}
		}
		if strings.Contains(err.Error(), "18446744") {
			t.Errorf("%s: absurd numbers in\n%v", given, err)
		}
	}
	j := DefaultJob()
	j.Optimizer.ClipNorm = math.NaN()
	if err := j.Validate(); err == nil || !strings.Contains(err.Error(), "clip_norm is NaN") {
		t.Errorf("got %v", err)
	}
}
