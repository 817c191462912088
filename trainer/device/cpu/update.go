package cpu

import (
	"fmt"

	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/trainer/device"
)

// Update implements device.Ops.
func (s *stream) Update(p device.Update) {
	const op = "update"
	if !s.sized(op, p.N) {
		return
	}
	if p.Rule.Kind >= optim.Kinds {
		s.fail(fmt.Errorf("%s: there is no rule %d", op, p.Rule.Kind))
		return
	}
	w, grad := s.floats(op, "W", p.W, p.N), s.floats(op, "Grad", p.Grad, p.N)
	slots := s.slots[:p.Rule.Kind.Slots()]
	for i := range slots {
		slots[i] = s.floats(op, "Slots", p.Slots[i], p.N)
	}
	if s.err == nil {
		p.Rule.Apply(w, slots, w, grad, slots)
	}
	clear(s.slots[:]) // hold on to nobody's memory
}
