package cpu

import (
	"slices"
	"strings"
	"testing"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/trainer/device"
)

// TestUpdate: the device gives the bits that trainers and servers compute with package optim (whose own tests compare
// those with PyTorch), for every optimizer, on every instruction set.
func TestUpdate(t *testing.T) {
	for _, name := range optim.Names() {
		o, err := optim.New(optim.Config{Name: name, LR: 0.1})
		if err != nil {
			t.Fatal(err)
		}
		for _, set := range InstructionSets() {
			b := newBench(t, set)
			for _, n := range allSizes {
				wv, w := b.random(n)
				want := slices.Clone(wv)
				p := device.Update{N: n, W: w}
				var slots [][]float32
				for i := range o.Slots() {
					slots = append(slots, make([]float32, n))
					p.Slots[i] = b.buffer(slots[i])
				}
				for step := range id.Step(3) {
					gv, g := b.random(n)
					p.Rule, p.Grad = o.Rule(step), g
					b.s.Update(p)
					o.Update(step, want, gv, slots)
				}
				sameBits(t, name+" on "+set, b.result(w), want)
				for i := range slots {
					sameBits(t, name+" on "+set+", slot", b.result(p.Slots[i]), slots[i])
				}
			}
			p := device.Update{N: 1, W: b.room(1), Grad: b.room(1), Slots: [2]device.Buffer{b.room(1), b.room(1)}, Rule: o.Rule(0)}
			if a := testing.AllocsPerRun(10, func() { b.s.Update(p) }); a != 0 {
				t.Errorf("%s: %v allocations", name, a)
			}
		}
	}
}

func TestUpdateFaults(t *testing.T) {
	b := newBench(t, "")
	_, x := b.random(8)
	for want, p := range map[string]device.Update{
		"there is no rule 99":           {N: 1, Rule: optim.Rule{Kind: 99}, W: x, Grad: x},
		"sizes must be at least 1":      {W: x, Grad: x},
		"operand Slots is not a memory": {N: 1, Rule: optim.Rule{Kind: optim.Adam}, W: x, Grad: x, Slots: [2]device.Buffer{x}},
		"operand W has 8 elements":      {N: 9, W: x, Grad: x},
	} {
		b.s.Update(p)
		if err := b.s.Sync(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}
