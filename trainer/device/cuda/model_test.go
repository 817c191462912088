package cuda

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
	"github.com/musterml/muster/trainer/nn"
)

// bound is how far a model may be from the CPU: docs/gpu.md names these.
type bound struct {
	loss     float64 // of the loss itself
	gradient float64 // |difference| / |gradient| of a tensor, euclidean
}

var bounds = map[device.Precision]bound{device.FP32: {1e-6, 5e-5}, device.TF32: {1e-3, 5e-3}, device.BF16: {1e-2, 5e-2}}

// Of batch norm over so few samples little is left of a gradient's direction when some outputs change sides at a ReLU.
const boundOfResnet = 0.5

// Every named model: its loss and gradient are the CPU's, as closely as the precision says.
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
				for _, d.precision = range []device.Precision{device.FP32, device.TF32, device.BF16} {
					if d.precision == device.TF32 && d.gpu.architecture() == "host" && spec.Params() > 10000 {
						continue // of large models it takes long, and all of its kernels run in the small ones
					}
					got, gotGrad := gradient(t, spec, d)
					far := bounds[d.precision]
					if c.model.Name == "resnet18" && d.precision != device.FP32 {
						far.gradient = boundOfResnet
					}
					if !(math.Abs(got.Loss-want.Loss) <= far.loss*want.Loss) {
						t.Errorf("%s: loss %v, want %v", d.Arithmetic(), got.Loss, want.Loss)
					}
					for _, tensor := range spec.Tensors() {
						off := distance(gotGrad[tensor.Offset:tensor.Offset+tensor.Len()], wantGrad[tensor.Offset:tensor.Offset+tensor.Len()])
						if !(off <= far.gradient) {
							t.Errorf("%s: the gradient of %s is off by %.2g of its length", d.Arithmetic(), tensor.Name, off)
						}
					}
				}
			}
		})
	}
}

// distance is |got - want| / |want|.
func distance(got, want []float32) float64 {
	var off, length float64
	for i, w := range want {
		off += math.Pow(float64(got[i])-float64(w), 2)
		length += math.Pow(float64(w), 2)
	}
	return math.Sqrt(off / max(length, math.SmallestNonzeroFloat64))
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
