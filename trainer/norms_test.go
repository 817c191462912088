package trainer

import (
	"testing"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/trainer/device/cpu"
	"github.com/musterml/muster/trainer/nn"
)

// A model with batch norm is measured by a run at its end and by Evaluate alike, on any number of processors.
func TestEvaluateIsTheRunsOwn(t *testing.T) {
	j, _, train, test := tiny(t)
	j.Model = Model{Layers: []nn.Layer{nn.Conv{Channels: 3, Kernel: 3, Stride: 3}, nn.BatchNorm{}, nn.ReLU{}, nn.Linear{}}}
	spec, err := j.BuildModel(train.Form())
	if err != nil {
		t.Fatal(err)
	}
	dev, err := cpu.New()
	if err != nil {
		t.Fatal(err)
	}
	weights := make([]float32, spec.Params())
	if err := spec.Init(weights, 3); err != nil {
		t.Fatal(err)
	}
	want, err := Evaluate(t.Context(), j, spec, dev, weights, nil, train, test)
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWork(j, spec, dev, train, test, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	w.benches = w.benches[:1]
	var got nn.Result
	for l := range id.LogicalShard(j.Batch.LogicalShards) { // each on a trainer of its own
		if err := w.compute(t.Context(), 1, w.steps, weights, []id.LogicalShard{l}); err != nil {
			t.Fatal(err)
		}
		got.Loss += w.units[l].test.Loss
		got.Correct += w.units[l].test.Correct
	}
	if got != want.Result || got.Loss == 0 {
		t.Errorf("the run has %+v, Evaluate %+v", got, want)
	}
	other := append([]float32(nil), w.norms.stats...)
	w.forget()
	weights[0] += 1
	if err := w.compute(t.Context(), 1, w.steps, weights, []id.LogicalShard{0}); err != nil {
		t.Fatal(err)
	}
	if other[0] == w.norms.stats[0] {
		t.Error("other weights have the same statistics")
	}
}
