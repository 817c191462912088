package trainer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
	"github.com/musterml/muster/trainer/device/devicetest"
	"github.com/musterml/muster/trainer/nn"
)

// aloneWith takes steps by a job on a device, and returns where it has come to.
func aloneWith(t *testing.T, job Job, dev device.Device, steps int) (*Alone, error) {
	t.Helper()
	job.Data.Train, job.Data.Test = 64, 4
	train, _, err := data.Open(t.Context(), job.Data, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := nn.Build(nn.Model{Name: "mlp", Options: map[string]any{"hidden": []int{40}}}, train.Form())
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAlone(t.Context(), job, spec, dev, train)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil && !errors.Is(err, devicetest.ErrBroken) {
			t.Error(err)
		}
	})
	for range steps {
		if _, err := a.Step(t.Context()); err != nil {
			return a, err
		}
	}
	return a, a.cards.give(0, len(a.state.w))
}

func newApart(t *testing.T, life int64) *devicetest.Apart {
	host, err := cpu.New()
	if err != nil {
		t.Fatal(err)
	}
	return devicetest.NewApart(host, life)
}

// Where the state is on cards, and gradients are added up there, it comes to the same bits.
func TestCardsKeepTheState(t *testing.T) {
	several := func(n int) device.Device {
		var all []device.Device
		for range n {
			all = append(all, newApart(t, 0))
		}
		d, err := device.Several(all...)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, c := range []struct {
		optimizer Optimizer
		sum       string
		shards    int
		cards     int
		stays     bool
	}{
		{Optimizer{Name: "sgd", LR: 0.1}, SumExact, 1, 1, true},
		{Optimizer{Name: "sgd", LR: 0.1}, SumFast, 4, 1, true},
		{Optimizer{Name: "adamw", LR: 0.01, WeightDecay: 0.1, Schedule: Schedule{Name: "cosine", Warmup: 2}}, SumExact, 4, 1, true},
		{Optimizer{Name: "adam", LR: 0.01, ClipNorm: 0.05}, SumExact, 20, 1, true},
		{Optimizer{Name: "momentum", LR: 0.1, ClipNorm: 0.05}, SumFast, 1, 1, true},
		{Optimizer{Name: "adam", LR: 0.01, ClipNorm: 0.05}, SumExact, 4, 3, true},
		{Optimizer{Name: "sgd", LR: 0.1}, SumExact, 20, 2, true},
		{Optimizer{Name: "sgd", LR: 0.1}, SumExact, 2, 3, true},
		{Optimizer{Name: "nesterov", LR: 0.1}, SumFast, 4, 2, false},
		{Optimizer{Name: "lamb", LR: 0.01, WeightDecay: 0.1}, SumExact, 4, 2, true},
	} {
		t.Run(fmt.Sprintf("%s %s %d shards %d cards", c.optimizer.Name, c.sum, c.shards, c.cards), func(t *testing.T) {
			job := DefaultJob()
			job.Passes, job.Optimizer, job.Sync.Sum, job.Batch = 3, c.optimizer, c.sum, Batch{Size: 40, LogicalShards: c.shards}
			host, err := cpu.New()
			if err != nil {
				t.Fatal(err)
			}
			want, err := aloneWith(t, job, host, 5)
			if err != nil || want.cards != nil {
				t.Fatal(err, "or the host has cards")
			}
			got, err := aloneWith(t, job, several(c.cards), 5)
			if err != nil {
				t.Fatal(err)
			}
			if got.cards == nil || got.sums.stays != c.stays {
				t.Fatalf("cards %v, gradients stay: %t", got.cards, got.sums.stays)
			}
			if !slices.Equal(got.state.w, want.state.w) {
				t.Error("other weights")
			}
			for i, slot := range got.state.slots {
				if !slices.Equal(slot, want.state.slots[i]) {
					t.Errorf("slot %d is another", i)
				}
			}
		})
	}
}

// Where a card has no room for it, the host keeps the gradients, or the state as well, and all goes on.
func TestCardsWithoutRoom(t *testing.T) {
	job := DefaultJob()
	job.Optimizer = Optimizer{Name: "adam", LR: 0.01}
	all := newApart(t, 0)
	want, err := aloneWith(t, job, all, 3)
	if err != nil || !want.sums.stays {
		t.Fatal(err, "or gradients do not stay")
	}
	gradients := all.Used - 1 // the last that is made room for
	state := gradients - 4*len(want.cards.exps)
	for _, room := range []int{gradients, state} {
		small := newApart(t, 0)
		small.Room = room
		got, err := aloneWith(t, job, small, 3)
		if err != nil {
			t.Fatal(err)
		}
		if got.sums.stays || (got.cards != nil) != (room == gradients) {
			t.Errorf("room for %d: cards %v, gradients stay: %t", room, got.cards, got.sums.stays)
		}
		if !slices.Equal(got.state.w, want.state.w) {
			t.Errorf("room for %d: other weights", room)
		}
	}
}

// A gradient on a card that is no number is found there, and told as one on the host is.
func TestCardsFindWhatIsNoNumber(t *testing.T) {
	for _, sum := range []string{SumExact, SumFast} {
		job := DefaultJob()
		job.Sync.Sum, job.Optimizer = sum, Optimizer{Name: "sgd", LR: 1e30}
		a, err := aloneWith(t, job, newApart(t, 0), 20)
		if !errors.Is(err, ErrDiverged) {
			t.Fatalf("%s: %v", sum, err)
		}
		if err := a.work.explain(a.state.step, a.state.w, a.shards, err); !strings.Contains(err.Error(), "of logical shard ") {
			t.Errorf("%s: it is not said whose it is: %v", sum, err)
		}
	}
}

// An update that fails leaves the state that of no step: it cannot be had from the card any more.
func TestTornStateIsNotGiven(t *testing.T) {
	job := DefaultJob()
	a, err := aloneWith(t, job, newApart(t, 1+4+3), 20) // it takes the state, a step, and gradients, exponents and sum of a second
	if !errors.Is(err, device.ErrFailed) {
		t.Fatal(err)
	}
	before := slices.Clone(a.state.w)
	if err := a.cards.give(0, len(a.state.w)); err == nil || !slices.Equal(a.state.w, before) {
		t.Errorf("given: %v", err)
	}
}

// Units that were computed before a trainer was alone, or while it was, are computed again after: their gradients are not where they are looked for.
func TestGradientsAreWhereTheyAreAddedUp(t *testing.T) {
	job, log := DefaultJob(), zerolog.Nop()
	a, err := aloneWith(t, job, newApart(t, 0), 2)
	if err != nil {
		t.Fatal(err)
	}
	host, err := cpu.New()
	if err != nil {
		t.Fatal(err)
	}
	want, err := aloneWith(t, job, host, 4)
	if err != nil {
		t.Fatal(err)
	}
	for _, alone := range []bool{false, true} {
		a.sums.begin(a.work, a.cards, a.shards, alone, &log)
		a.work.prepare(a.state.step, a.shards)
		if err := a.work.compute(t.Context(), 1, a.state.step, a.state.w, a.shards[1:3]); err != nil { // as one of several trainers
			t.Fatal(err)
		}
		a.sums.begin(a.work, a.cards, a.shards, !alone, &log)
		a.sums.alone = true // or there is no sum
		if _, err := a.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.cards.give(0, len(a.state.w)); err != nil || !slices.Equal(a.state.w, want.state.w) {
		t.Error("other weights", err)
	}
}
