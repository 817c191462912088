package trainer

import (
	"math"
	"slices"
	"testing"

	"github.com/musterml/muster/trainer/device/cpu"
	"github.com/musterml/muster/trainer/device/devicetest"
)

// A trainer whose device has memory of its own makes the samples of the next step ready while that computes, and brings them there: the same that it would read then.
func TestSamplesAreReadAhead(t *testing.T) {
	host, err := cpu.New()
	if err != nil {
		t.Fatal(err)
	}
	plain, a := newAlone(t, host), newAlone(t, devicetest.NewApart(host, 0))
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
	if err := a.cards.give(0, len(a.state.w)); err != nil || !slices.Equal(a.state.w, plain.state.w) {
		t.Error(err, "samples that are read ahead lead to other weights")
	}

	// They are what the step takes, unless they are of another one.
	spoil := func() {
		t.Helper()
		<-b.ahead.done
		if !b.ahead.brought {
			t.Fatal("they are not on the device")
		}
		x := b.ahead.samples.X
		was := slices.Clone(x)
		for i := range x {
			x[i] = float32(math.NaN())
		}
		if err := b.ahead.room.feed.Bring(b.ahead.samples); err != nil {
			t.Fatal(err)
		}
		copy(x, was) // what counts lies on the device
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
