package trainer

import (
	"github.com/musterml/muster/internal/huge"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/ps"
	"github.com/musterml/muster/trainer/nn"
)

// state is everything that makes up the run at one step.
//
// Invariant: w and slots belong to the same step, always; whoever changes them does so
// under Trainer.mu, as one step (see Trainer.advance).
type state struct {
	step  id.Step
	w     []float32   // (params)
	slots [][]float32 // of the optimizer, each (params); none in mode server, where the servers hold them
	next  []float32   // (params), but in mode ring: the next weights while they arrive
}

func newState(params, slots int, mode string) *state {
	s := &state{w: huge.Float32s(params)}
	if mode != ModeRing {
		s.next = huge.Float32s(params)
		return s
	}
	for range slots {
		s.slots = append(s.slots, huge.Float32s(params))
	}
	return s
}

// begin fills it with the state at step 0.
func (s *state) begin(spec *nn.Spec, job Job) error {
	for _, slot := range s.slots {
		clear(slot)
	}
	return job.begin(spec, s.w)
}

// part is the range [lo, hi) of the state, as the parameter servers take it.
func (s *state) part(lo, hi int) ps.State {
	p := ps.State{W: s.w[lo:hi]}
	for _, slot := range s.slots {
		p.Slots = append(p.Slots, slot[lo:hi])
	}
	return p
}
