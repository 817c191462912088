package trainer

import (
	"math"
	"slices"
	"testing"

	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
)

// apart is a device that has memory of its own.
type apart struct{ single }

func (*apart) Lock([]float32) func() { return func() {} }

// A trainer whose device has memory of its own makes the samples of the next step ready while that computes: the same that it would read then.
func TestSamplesAreReadAhead(t *testing.T) {
	host, err := cpu.New()
	if err != nil {
		t.Fatal(err)
	}
	plain, a := newAlone(t, host), newAlone(t, &apart{single{Device: host}})
	if plain.work.benches[0].ahead != nil {
		t.Fatal("samples are read ahead by the processors that compute")
	}
	step := func(a *Alone) float64 {
		t.Helper()
		loss, err := a.Step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return loss
	}
	b := a.work.benches[0]
	for range 3 {
		step(plain)
		step(a)
		if g := b.ahead.guess; g.step != a.state.step || !slices.Equal(g.group, a.shards) {
			t.Fatalf("after step %d the samples of %+v were read ahead", a.state.step, g)
		}
	}
	if !slices.Equal(a.state.w, plain.state.w) {
		t.Error("samples that are read ahead lead to other weights")
	}

	// They are what the step takes, unless they are of another one.
	spoil := func() {
		<-b.ahead.done
		for i := range b.ahead.room.X {
			b.ahead.room.X[i] = float32(math.NaN())
		}
	}
	spoil()
	b.ahead.guess.step++
	if loss := step(a); math.IsNaN(loss) {
		t.Error("the step took samples of another")
	}
	spoil()
	if _, err := a.Step(t.Context()); err == nil {
		t.Error("the step did not take what was read ahead")
	}
}

var _ device.Locker = (*apart)(nil)
