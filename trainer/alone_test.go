package trainer

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/musterml/muster/internal/id"
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

// A single gradient is its own sum, with the bits of a sum made elsewhere, also when a step is done again.
func TestInPlace(t *testing.T) {
	job := DefaultJob()
	job.Batch = Batch{Size: 16, LogicalShards: 1}
	spec, err := nn.Build(nn.Model{Name: "mlp", Options: map[string]any{"hidden": []int{1500}}}, data.Form{Shape: []int{784}, Classes: 10})
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, inPlace := newExchange(job, spec), newExchange(job, spec)
	elsewhere.alone, inPlace.alone = true, true
	elsewhere.clip.limit = 1 // clipping is not done in place
	r := rand.New(rand.NewPCG(7, 8))
	units := []unit{{grad: make([]float32, spec.Params())}}
	for i := range units[0].grad {
		units[0].grad[i] = float32(r.NormFloat64() * math.Exp2(-float64(r.IntN(40))))
	}
	if len(inPlace.buckets) < 2 {
		t.Fatal("the model is one bucket")
	}
	prepare := func(x *exchange) (headers []int32) {
		for _, b := range x.buckets {
			headers = append(headers, x.prepare(b, units, []id.LogicalShard{0}, false)...)
		}
		return headers
	}
	want := prepare(elsewhere)
	for again := range 2 {
		if !slices.Equal(prepare(inPlace), want) {
			t.Errorf("again %d: the header is another", again)
		}
		if &inPlace.grad[0] != &units[0].grad[0] || !slices.Equal(inPlace.grad, elsewhere.grad) {
			t.Errorf("again %d: the sum is another", again)
		}
	}
	job.Sync.Sum = SumFast
	fast := newExchange(job, spec)
	for _, fast.alone = range []bool{true, false, true} { // others come and go
		if prepare(fast); (&fast.grad[0] == &units[0].grad[0]) != fast.alone {
			t.Errorf("sum fast, alone %t: the sum is elsewhere", fast.alone)
		}
	}
	units[0].grad[5] = float32(math.Inf(1))
	prepare(inPlace)
	if _, _, err := inPlace.results(0); !errors.Is(err, ErrDiverged) || math.IsNaN(float64(units[0].grad[4])) {
		t.Errorf("%v, and the place of the fault is lost", err)
	}
}
