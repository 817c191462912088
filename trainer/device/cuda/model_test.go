package cuda

import (
	"math/rand/v2"
	"testing"

	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
	"github.com/musterml/muster/trainer/nn"
)

// Every named model: its loss and gradient are the CPU's.
func TestModels(t *testing.T) {
	images, tokens := data.Form{Shape: []int{1, 12, 12}, Classes: 5}, data.Form{Shape: []int{9}, Classes: 11, Kind: data.Tokens}
	for _, c := range []struct {
		model nn.Model
		form  data.Form
	}{
		{nn.Model{Name: "linear"}, images},
		{nn.Model{Name: "mlp", Options: map[string]any{"hidden": []int{33, 17}}}, images},
		{nn.Model{Name: "lenet", Options: map[string]any{"channels": []int{4, 6}, "hidden": 20}}, images},
		{nn.Model{Name: "resnet18", Options: map[string]any{"channels": []int{3, 4, 5, 6}}}, images},
		{nn.Model{Name: "gpt", Options: map[string]any{"width": 24, "heads": 3, "layers": 2, "context": 9}}, tokens},
	} {
		t.Run(c.model.Name, func(t *testing.T) {
			spec, err := nn.Build(c.model, c.form)
			if err != nil {
				t.Fatal(err)
			}
			reference, err := cpu.NewFor("go")
			if err != nil {
				t.Fatal(err)
			}
			want, wantGrad := gradient(t, spec, reference)
			for _, d := range gpus(t) {
				got, gotGrad := gradient(t, spec, d)
				if err := differ(&device.Total{Loss: got.Loss, Correct: got.Correct}, &device.Total{Loss: want.Loss, Correct: want.Correct}, 0); err != nil {
					t.Errorf("%s: %v", d.Name(), err)
				}
				for _, tensor := range spec.Tensors() {
					g, w := gotGrad[tensor.Offset:tensor.Offset+tensor.Len()], wantGrad[tensor.Offset:tensor.Offset+tensor.Len()]
					if err := differ(&g, &w, 2e-4); err != nil {
						t.Errorf("%s: gradient of %s: %v", d.Name(), tensor.Name, err)
					}
				}
			}
		})
	}
}

func gradient(t *testing.T, spec *nn.Spec, d device.Device) (nn.Result, []float32) {
	t.Helper()
	const n = 3
	rng := rand.New(rand.NewPCG(5, 6))
	w, grad := make([]float32, spec.Params()), make([]float32, spec.Params())
	if err := spec.Init(w, 42); err != nil {
		t.Fatal(err)
	}
	var in data.Batch
	for range n * spec.Features() {
		if spec.Kind() == data.Tokens {
			in.Tokens = append(in.Tokens, int32(rng.IntN(spec.Classes())))
		} else {
			in.X = append(in.X, rng.Float32())
		}
	}
	for range n * spec.Targets() {
		in.Labels = append(in.Labels, int32(rng.IntN(spec.Classes())))
	}
	r, err := spec.NewReplica(d, n, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	result, err := r.Gradient(w, in, device.DropoutKey{Seed: 1, Step: 2, Shard: 3}, 0.5, grad)
	if err != nil {
		t.Fatal(err)
	}
	return result, grad
}
