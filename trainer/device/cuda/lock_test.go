package cuda

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// With slices that are locked the gradients are the same, also those that are told of during the backward pass, and nothing is copied by way of
// pinned memory; weights that are held are given once.
func TestLockedMemoryIsUsedInPlace(t *testing.T) {
	const steps = 4
	run := func(lock bool) (grads [][]float32, writes, staged int) {
		e := emulator(t)
		e.fault = func(call string) error {
			if call == "write" {
				writes++
			}
			return nil
		}
		d := newDevice(e, nil)
		l := newLearner(t, d, steps)
		defer l.Close()
		before := e.pinnedBytes
		if lock {
			d.locked.add(bytesOf(l.w))
			d.locked.add(bytesOf(l.part[0].Grad))
			l.Hold(l.w)
		}
		l.Progress = func(complete int) { grads = append(grads, slices.Clone(l.part[0].Grad[complete:])) }
		for at := range steps {
			if err := l.step(at, 6); err != nil {
				t.Fatal(err)
			}
		}
		return grads, writes, e.pinnedBytes - before
	}
	want, writes, staged := run(false)
	got, fewer, less := run(true)
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Error("with memory that is locked gradients are others")
	}
	if writes-fewer != steps-1 {
		t.Errorf("%d copies to the GPU with weights that are held, %d without", fewer, writes)
	}
	if least := 2 * 4 * len(want[len(want)-1]); staged-less != least {
		t.Errorf("%d bytes of pinned memory with slices that are locked, %d without; want %d fewer", less, staged, least)
	}
}

// Weights that are held are given again after others, and when they are held anew.
func TestHeldWeights(t *testing.T) {
	l := newLearner(t, newDevice(emulator(t), nil), 1)
	defer l.Close()
	others := slices.Clone(l.w)
	for i := range others {
		others[i] *= 1.5
	}
	gradient := func(w []float32) []float32 {
		mine := l.w
		l.w = w
		defer func() { l.w = mine }()
		if err := l.step(0, 6); err != nil {
			t.Fatal(err)
		}
		return slices.Clone(l.part[0].Grad)
	}
	want, wantOthers := gradient(l.w), gradient(others)
	l.Hold(l.w)
	for _, held := range []bool{true, true, false, true, true} {
		w, expect := l.w, want
		if !held {
			w, expect = others, wantOthers
		}
		if !slices.Equal(gradient(w), expect) {
			t.Errorf("held %v: another gradient", held)
		}
	}
	copy(l.w, others)
	l.Hold(l.w)
	if !slices.Equal(gradient(l.w), wantOthers) {
		t.Error("weights that are held anew are not given again")
	}
}

// Memory is locked until it is unlocked; where the driver refuses that, all goes on, and it is said once.
func TestLock(t *testing.T) {
	e := emulator(t)
	var warnings []string
	d := newDevice(e, func(what string, _ error) { warnings = append(warnings, what) })
	few, many := make([]float32, fewestLocked-1), make([]float32, fewestLocked)
	d.Lock(few)()
	unlock := d.Lock(many)
	if e.lockedBytes != 4*len(many) || !d.locked.has(bytesOf(many[7:])) || d.locked.has(bytesOf(few)) {
		t.Errorf("%d bytes are locked", e.lockedBytes)
	}
	if unlock(); e.lockedBytes != 0 || d.locked.has(bytesOf(many)) {
		t.Errorf("%d bytes stay locked", e.lockedBytes)
	}
	unlock = d.Lock(many)
	e.fault = func(string) error { return errors.New("no more") }
	unlock()
	for range 2 {
		d.Lock(many)()
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "copied once more") || d.locked.has(bytesOf(many)) {
		t.Errorf("where nothing can be locked: %q", warnings)
	}
	runtime.GC() // which ends the program where something is left pinned
	runtime.GC()
}
