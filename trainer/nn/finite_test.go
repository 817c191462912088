package nn

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/data"
)

// TestBlameOfTheBackwardPass: where all outputs are finite, the gradient tells.
func TestBlameOfTheBackwardPass(t *testing.T) {
	s := listCase{`[{"linear": 4}, "tanh", {"linear": 3}]`, vectors, ""}.build(t)
	r, in := replica(t, s, "", 4), batch(s, 4)
	w, grad := make([]float32, s.Params()), make([]float32, s.Params())
	for i := range s.Tensors()[2].Len() {
		w[s.Tensors()[2].Offset+i] = 3e38
	}
	got, err := r.Gradient(w, in, key, 30, grad)
	if err != nil || !finite(got.Loss) {
		t.Fatalf("%v, error %v", got, err)
	}
	if err := r.Blame(w, in, key, grad); !errors.Is(err, ErrNotFinite) || !strings.Contains(err.Error(), "backward pass, first in the gradient of 0.bias") {
		t.Errorf("error %v", err)
	}
}

// TestBlameOfBadData names the sample.
func TestBlameOfBadData(t *testing.T) {
	inf := float32(math.Inf(-1))
	s := listCase{`["linear"]`, data.Form{Kind: data.Sparse, Shape: []int{5}, Entries: 2}, ""}.build(t)
	r := replica(t, s, "", 3)
	in := data.Batch{Starts: []int32{0, 0, 2, 3}, Columns: []int32{1, 4, 2}, Values: []float32{1, 1, 1}, Targets: []float32{0, 1, 2}}
	for want, place := range map[string]*float32{
		"feature 4 of sample 1 is -Inf": &in.Values[1], "feature 2 of sample 2 is -Inf": &in.Values[2], "the target of sample 2 is -Inf": &in.Targets[2],
	} {
		old := *place
		*place = inf
		if err := r.Blame(start(t, s), in, key, nil); !errors.Is(err, ErrNotFinite) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		*place = old
	}
}

// TestBlame: a loss that is no number can be traced to where it began.
func TestBlame(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		testCase
		tensor string // gets value at its first element
		value  float32
		sample float32 // the first value of the first sample
		want   string
	}{
		{small[1], "", 0, nan, "value 0 of sample 0 is NaN"},
		{small[1], "2.weight", inf, 0, "parameters 2.weight hold +Inf"},
		{small[1], "2.weight", 3e38, 0, "linear layer 2"},
		{small[2], "0.bias", 3e38, 0, "convolution 3"},
		{small[4], "features.7.conv2.weight", 3e38, 0, "convolution features.7.conv2"},
		{small[5], "blocks.1.fc1.weight", 3e38, 0, "blocks.1.fc"},
		{small[5], "blocks.0.qkv.bias", 3e38, 0, "the attention after linear layer blocks.0.qkv"},
	} {
		s := c.build(t)
		r := replica(t, s, "", 4)
		w := start(t, s)
		in := batch(s, 4)
		for _, tensor := range s.Tensors() {
			if tensor.Name == c.tensor {
				for i := range tensor.Len() {
					w[tensor.Offset+i] = c.value
				}
			}
		}
		if c.sample != 0 {
			in.X[0] = c.sample
		}
		grad := make([]float32, s.Params())
		if got, err := r.Gradient(w, in, key, 1, grad); err != nil || finite(got.Loss) {
			t.Errorf("%s, %s: %+v, error %v", c.name, c.tensor, got, err)
		}
		if err := r.Blame(w, in, key, grad); !errors.Is(err, ErrNotFinite) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %s: error %v, want one with %q", c.name, c.tensor, err, c.want)
		}
		in = batch(s, 4)
		if _, err := r.Gradient(start(t, s), in, key, 1, grad); err != nil {
			t.Errorf("%s: afterwards: %v", c.name, err)
		}
		if err := r.Blame(start(t, s), in, key, grad); err != nil {
			t.Errorf("%s: afterwards: %v", c.name, err)
		}
	}
}
