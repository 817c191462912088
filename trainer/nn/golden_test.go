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
}

// TestPyTorch compares whole models with PyTorch in float64: initial values, loss, gradient.
func TestPyTorch(t *testing.T) {
	file, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []golden
	if err := json.Unmarshal(file, &all); err != nil {
		t.Fatal(err)
	}
	const n = 8
	x, labels := make([]float32, n*784), make([]int32, n)
	for i := range x {
		x[i] = float32(i*7919%1000) / 1000
	}
	for i := range labels {
		labels[i] = int32(i * 3 % 10)
	}
	for _, g := range all {
		s, err := Build(g.Model, nil, []int{1, 28, 28}, 10)
		if err != nil {
			t.Fatal(err)
		}
		w, grad := start(t, s), make([]float32, s.Params())
		for _, set := range cpu.InstructionSets() {
			got, err := replica(t, s, set, n).Gradient(w, x, labels, 1.0/n, grad)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(got.Loss-g.Loss) > 1e-5 || got.Correct != g.Correct {
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
		if math.Abs(math.Sqrt(squares)-want.Norm) > 1e-5*want.Norm {
			t.Errorf("%s, %s: the gradient of %s has norm %v, in PyTorch %v", g.Model, set, got.Name, math.Sqrt(squares), want.Norm)
		}
		// Errors go with the largest elements, of which the norm gives the size.
		tol := 1e-5 * want.Norm / math.Sqrt(float64(len(part)))
		for j, at := range want.At {
			if math.Abs(float64(part[at])-want.Gradient[j]) > tol+1e-5*math.Abs(want.Gradient[j]) {
				t.Errorf("%s, %s: element %d of the gradient of %s is %v, in PyTorch %v", g.Model, set, at, got.Name, part[at], want.Gradient[j])
			}
		}
	}
}
