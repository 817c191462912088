package nn

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/musterml/muster/trainer/device/cpu"
)

// golden is an entry of testdata/golden.json, which PyTorch printed (testdata/golden.py).
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
		First    float64 // the first initial value
	}
	Rate            float64   // learning rate of momentum
	Momentum, AdamW []float64 // mean losses of the first steps with each optimizer
}

func readGolden(t *testing.T) (all []golden) {
	t.Helper()
	file, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(file, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func (g golden) build(t *testing.T) *Spec {
	t.Helper()
	return testCase{g.Model, g.Options, g.In, g.Classes}.build(t)
}

// goldenSamples is how many samples each step has.
const goldenSamples = 8

// batch is the samples of a step and their labels.
func (g golden) batch(s *Spec, step int) (in samples, labels []int32) {
	labels = make([]int32, goldenSamples*s.Targets())
	if s.Tokens() {
		in.tokens = make([]int32, len(labels))
		for i := range labels {
			in.tokens[i] = int32((i*i*31 + i*7 + step*13) % g.Classes)
			labels[i] = int32((i*i*31 + i*11 + step*17) % g.Classes)
		}
		return in, labels
	}
	if g.Model == "resnet18" {
		step = 0 // see golden.py
	}
	in.x = make([]float32, goldenSamples*s.Features())
	for i := range in.x {
		in.x[i] = float32(mix(uint64(i+step*1000003))>>40) / (1 << 24)
	}
	for i := range labels {
		labels[i] = int32((i*3 + step) % g.Classes)
	}
	return in, labels
}

// TestPyTorch compares whole models with PyTorch in float64: initial values, loss, gradient.
func TestPyTorch(t *testing.T) {
	for _, g := range readGolden(t) {
		s := g.build(t)
		w, grad := start(t, s), make([]float32, s.Params())
		x, labels := g.batch(s, 0)
		for _, set := range cpu.InstructionSets() {
			got, err := replica(t, s, set, goldenSamples).gradient(w, x, labels, 1/float32(len(labels)), grad)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(got.Loss-g.Loss) > 1e-6*g.Loss || got.Correct != g.Correct {
				t.Errorf("%s, %s: %+v, PyTorch has a loss of %v and %d correct", g.Model, set, got, g.Loss, g.Correct)
			}
			g.compare(t, set, s, w, grad)
		}
	}
}

func (g golden) compare(t *testing.T, set string, s *Spec, w, grad []float32) {
	t.Helper()
	tensors := s.Tensors()
	if len(tensors) != len(g.Tensors) {
		t.Fatalf("%s has %d tensors, in PyTorch %d", g.Model, len(tensors), len(g.Tensors))
	}
	largest := 0.0 // of which some that are zero but for rounding are a small part
	for _, want := range g.Tensors {
		largest = max(largest, want.Norm)
	}
	for i, want := range g.Tensors {
		got := tensors[i]
		if got.Name != want.Name || !slices.Equal(got.Shape, want.Shape) || w[got.Offset] != float32(want.First) {
			t.Errorf("%s: tensor %s %v starts with %v, PyTorch has %s %v and %v", g.Model, got.Name, got.Shape, w[got.Offset], want.Name, want.Shape, want.First)
			continue
		}
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
		for name, o := range map[string]struct {
			update func(step int, w, grad, m, v []float32)
			losses []float64
		}{"momentum": {momentum(float32(g.Rate)), g.Momentum}, "AdamW": {adamW, g.AdamW}} {
			r := replica(t, s, set, goldenSamples)
			w, grad, m, v := start(t, s), make([]float32, s.Params()), make([]float32, s.Params()), make([]float32, s.Params())
			for step, want := range o.losses {
				x, labels := g.batch(s, step)
				got, err := r.gradient(w, x, labels, 1/float32(len(labels)), grad)
				if err != nil {
					t.Fatal(err)
				}
				if mean := got.Loss / float64(len(labels)); math.Abs(mean-want) > 1e-4*want {
					t.Errorf("%s with %s: the loss of step %d is %v, in PyTorch %v", g.Model, name, step, mean, want)
				}
				o.update(step, w, grad, m, v)
			}
		}
	}
}

// momentum is PyTorch's SGD(lr=rate, momentum=0.9).
func momentum(rate float32) func(_ int, w, grad, m, _ []float32) {
	return func(_ int, w, grad, m, _ []float32) {
		for i, g := range grad {
			m[i] = 0.9*m[i] + g
			w[i] -= rate * m[i]
		}
	}
}

// adamW is PyTorch's AdamW(lr=3e-4).
func adamW(step int, w, grad, m, v []float32) {
	c1, c2 := 1-math.Pow(0.9, float64(step+1)), 1-math.Pow(0.999, float64(step+1))
	for i, g := range grad {
		w[i] -= 3e-4 * 0.01 * w[i]
		m[i] = 0.9*m[i] + 0.1*g
		v[i] = 0.999*v[i] + 0.001*g*g
		w[i] -= float32(3e-4 * float64(m[i]) / c1 / (math.Sqrt(float64(v[i])/c2) + 1e-8))
	}
}
