package trainer

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/nn"
)

// A run begins with the tensors of the file that fit the model in name and shape, and with the seed's for the others.
func TestWeightsToBeginWith(t *testing.T) {
	j, _, train, _ := tiny(t)
	j.Model = Model{Layers: []nn.Layer{nn.Linear{Size: 5}, nn.ReLU{}, nn.Linear{}}}
	spec, err := j.BuildModel(train.Form())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "w.safetensors")
	trained := make([]float32, spec.Params())
	for i := range trained {
		trained[i] = float32(i)
	}
	if err := WriteModel(path, spec, trained); err != nil {
		t.Fatal(err)
	}
	drawn, w := make([]float32, spec.Params()), make([]float32, spec.Params())
	if err := j.begin(spec, drawn); err != nil {
		t.Fatal(err)
	}
	j.Weights = path
	if err := j.begin(spec, w); err != nil || !slices.Equal(w, trained) {
		t.Errorf("not the weights of the file: %v", err)
	}
	if g, err := j.CheckWeights(spec); err != nil || g.Tensors != len(spec.Tensors()) || g.Drawn != nil {
		t.Errorf("%v, %v", g, err)
	}
	one, err := j.Digest()
	if err != nil {
		t.Fatal(err)
	}
	j.Weights = "elsewhere"
	if other, err := j.Digest(); err != nil || other != one {
		t.Errorf("where the file lies makes another job of it: %v", err)
	}
	if _, err := j.CheckWeights(spec); err == nil || !strings.Contains(err.Error(), "elsewhere") {
		t.Errorf("a file that is not there: %v", err)
	}

	// A model whose last layer is another.
	head := spec.Tensors()[len(spec.Tensors())-2:]
	wider := j
	wider.Weights = path
	form := train.Form()
	form.Classes++
	other, err := wider.BuildModel(form)
	if err != nil {
		t.Fatal(err)
	}
	g, err := wider.CheckWeights(other)
	if err != nil || g.Tensors != len(spec.Tensors())-2 || !slices.Equal(g.Drawn, []string{head[0].Name, head[1].Name}) {
		t.Errorf("%v, %v", g, err)
	}
	mixed := make([]float32, other.Params())
	if err := wider.begin(other, mixed); err != nil {
		t.Fatal(err)
	}
	at := head[0].Offset
	if !slices.Equal(mixed[:at], trained[:at]) || slices.Equal(mixed[at:at+10], trained[at:at+10]) {
		t.Error("the layers that fit are not the file's, or the last one is")
	}
}
