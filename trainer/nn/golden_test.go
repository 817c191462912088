package nn

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/internal/safetensors"
	"github.com/musterml/muster/trainer/data"
)

// golden is an entry of testdata/golden.json, which PyTorch printed (bench/golden.py).
type golden struct {
	Model   string
	Options map[string]any
	In      []int
	Classes int
	Loss    float64
	Correct int
	Tensors []struct {
		Name     string
		Shape    []int
		Norm     float64
		At       []int // some elements,
		Gradient []float64
	}
	Rate            float64   // learning rate of momentum
	Momentum, AdamW []float64 // mean losses of the first steps with each optimizer

	start   []float32  // the initial weights
	samples data.Batch // all there are
	pool    int        // how many that is
}

func readGolden(t *testing.T) (all []*golden) {
	t.Helper()
	file, err := os.ReadFile("testdata/golden.json")
	if err == nil {
		err = json.Unmarshal(file, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// build makes the model and reads its weights and samples.
func (g *golden) build(t *testing.T) *Spec {
	t.Helper()
	s := testCase{g.Model, g.Options, g.In, g.Classes}.build(t)
	f, err := safetensors.ReadFile(filepath.Join("testdata", g.Model+".safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	g.start = make([]float32, s.Params())
	for _, tensor := range s.Tensors() {
		have, ok := f.Tensor(tensor.Name)
		if !ok || !slices.Equal(have.Shape, tensor.Shape) {
			t.Fatalf("%s: PyTorch has no tensor %s of shape %v", g.Model, tensor.Name, tensor.Shape)
		}
		copy(g.start[tensor.Offset:], have.Data)
	}
	x, _ := f.Tensor("samples")
	labels, _ := f.Tensor("labels")
	g.pool = x.Shape[0]
	if s.Kind() == data.Tokens {
		g.samples.Tokens = int32s(x.Data)
	} else {
		g.samples.X = x.Data
	}
	if g.Classes == 0 {
		g.samples.Targets = labels.Data
	} else {
		g.samples.Labels = int32s(labels.Data)
	}
	return s
}

func int32s(v []float32) []int32 {
	r := make([]int32, len(v))
	for i := range v {
		r[i] = int32(v[i])
	}
	return r
}

// goldenSamples is how many samples each step has.
const goldenSamples = 8

// batch is the samples of a step and their labels.
func (g *golden) batch(step int) data.Batch {
	from := step * goldenSamples % g.pool
	return data.Batch{
		X: pick(g.samples.X, g.pool, from), Tokens: pick(g.samples.Tokens, g.pool, from),
		Labels: pick(g.samples.Labels, g.pool, from), Targets: pick(g.samples.Targets, g.pool, from),
	}
}

// pick is the part of v that belongs to the samples of a step.
func pick[T any](v []T, pool, from int) []T {
	each := len(v) / pool
	return v[from*each : (from+goldenSamples)*each]
}

// TestPyTorch compares whole models with PyTorch in float64: loss and gradient.
func TestPyTorch(t *testing.T) {
	for _, g := range readGolden(t) {
		s := g.build(t)
		w, grad := g.start, make([]float32, s.Params())
		in := g.batch(0)
		for _, set := range sets() {
			got, err := replica(t, s, set, goldenSamples).Gradient(w, in, key, mean(s, in), grad)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(got.Loss-g.Loss) > 1e-6*g.Loss || got.Correct != g.Correct {
				t.Errorf("%s, %s: %+v, PyTorch has a loss of %v and %d correct", g.Model, set, got, g.Loss, g.Correct)
			}
			g.compare(t, set, s, grad)
		}
	}
}

func (g *golden) compare(t *testing.T, set string, s *Spec, grad []float32) {
	t.Helper()
	tensors := s.Tensors()
	if len(tensors) != len(g.Tensors) {
		t.Fatalf("%s has %d tensors, in PyTorch %d", g.Model, len(tensors), len(g.Tensors))
	}
	largest := 0.0 // of which some that are zero but for rounding are a small part
	for _, want := range g.Tensors {
		largest = max(largest, want.Norm)
	}
	for _, want := range g.Tensors {
		at := slices.IndexFunc(tensors, func(have Tensor) bool { return have.Name == want.Name })
		if at < 0 || !slices.Equal(tensors[at].Shape, want.Shape) {
			t.Errorf("%s has no tensor %s of shape %v, which PyTorch has", g.Model, want.Name, want.Shape)
			continue
		}
		got := tensors[at]
		part := grad[got.Offset : got.Offset+got.Len()]
		squares := 0.0
		for _, v := range part {
			squares += float64(v) * float64(v)
		}
		if math.Abs(math.Sqrt(squares)-want.Norm) > 1e-5*want.Norm+1e-7*largest {
			t.Errorf("%s, %s: the gradient of %s has norm %v, in PyTorch %v", g.Model, set, got.Name, math.Sqrt(squares), want.Norm)
		}
		// Errors go with the largest elements, of which the norm gives the size.
		tol := 1e-5*want.Norm/math.Sqrt(float64(len(part))) + 1e-7*largest
		for j, at := range want.At {
			if math.Abs(float64(part[at])-want.Gradient[j]) > tol+1e-5*math.Abs(want.Gradient[j]) {
				t.Errorf("%s, %s: element %d of the gradient of %s is %v, in PyTorch %v", g.Model, set, at, got.Name, part[at], want.Gradient[j])
			}
		}
	}
}

// TestTrainsLikePyTorch compares the losses of the first steps of training.
func TestTrainsLikePyTorch(t *testing.T) {
	for _, set := range []string{"", "go"} { // one of each class of results
		t.Run("set "+set, func(t *testing.T) {
			if raced && set == "go" {
				t.Skip("a minute of one goroutine's arithmetic in plain Go, in which there is nothing to race: tested without the race detector")
			}
			trainLikePyTorch(t, set)
		})
	}
}

func trainLikePyTorch(t *testing.T, set string) {
	for _, g := range readGolden(t) {
		s := g.build(t)
		for _, o := range []struct {
			optim.Config
			losses []float64
		}{
			{optim.Config{Name: "sgd", LR: g.Rate, Momentum: 0.9}, g.Momentum},
			{optim.Config{Name: "adamw", LR: 3e-4, WeightDecay: 0.01}, g.AdamW},
		} {
			rule, err := optim.New(o.Config)
			if err != nil {
				t.Fatal(err)
			}
			r := replica(t, s, set, goldenSamples)
			w, grad, slots := slices.Clone(g.start), make([]float32, s.Params()), make([][]float32, rule.Slots())
			for i := range slots {
				slots[i] = make([]float32, s.Params())
			}
			for step, want := range o.losses {
				in := g.batch(step)
				got, err := r.Gradient(w, in, key, mean(s, in), grad)
				if err != nil {
					t.Fatal(err)
				}
				if mean := got.Loss / float64(s.labels(in)); math.Abs(mean-want) > 1e-4*want {
					t.Errorf("%s with %s: the loss of step %d is %v, in PyTorch %v", g.Model, o.Name, step, mean, want)
				}
				rule.Update(id.Step(step), w, grad, slots)
			}
			if len(o.losses) != 20 {
				t.Errorf("%s with %s: %d losses of PyTorch", g.Model, o.Name, len(o.losses))
			}
		}
	}
}
