package trainer

import (
	"context"
	"testing"

	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
	"github.com/musterml/muster/trainer/nn"
)

// A step alone is a step and nothing else: it learns, and
// evaluates nothing, although a pass over so little data ends with every step.
func TestAlone(t *testing.T) {
	dev, err := cpu.New()
	if err != nil {
		t.Fatal(err)
	}
	a := newAlone(t, dev)
	var losses []float64
	for range 5 {
		loss, err := a.Step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		losses = append(losses, loss)
		for l := range a.work.units {
			if test := a.work.units[l].test; test != (nn.Result{}) {
				t.Errorf("shard %d measured held-out data: %+v", l, test)
			}
		}
	}
	if !(losses[4] < losses[0]) {
		t.Errorf("the losses do not fall: %v", losses)
	}
}

func newAlone(t *testing.T, dev device.Device) *Alone {
	t.Helper()
	job := DefaultJob()
	job.Data.Train, job.Data.Test = 16, 4
	job.Batch = Batch{Size: 16, LogicalShards: 4}
	train, _, err := data.Open(t.Context(), job.Data, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := nn.Build(nn.Model{Name: "linear"}, train.Form())
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAlone(context.Background(), job, spec, dev, train)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}
