package cuda

import (
	"fmt"

	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/trainer/device"
)

type updateArgs struct {
	w, m, v, g, norms                                                          pointer
	n, kind                                                                    int64
	lr, decay, shrink, mu, keep1, beta2, keep2, bias1, root, eps, l1, l2, beta float32
}

// Update implements device.Ops.
func (s *stream) Update(p device.Update) {
	const op = "update"
	if !s.sized(op, p.N) {
		return
	}
	r := &p.Rule
	if r.Kind >= optim.Kinds {
		s.fail(fmt.Errorf("%s: there is no rule %d", op, r.Kind))
		return
	}
	w, g := s.floats(op, "W", p.W, p.N), s.floats(op, "Grad", p.Grad, p.N)
	var slots [2]pointer
	for i := range r.Kind.Slots() {
		slots[i] = s.floats(op, "Slots", p.Slots[i], p.N)
	}
	args := updateArgs{w: w, m: slots[0], v: slots[1], g: g, n: int64(p.N), kind: int64(r.Kind), lr: r.LR, decay: r.Decay, shrink: r.Shrink, mu: r.Momentum,
		keep1: r.Keep1, beta2: r.Beta2, keep2: r.Keep2, bias1: r.Bias1, root: r.Root, eps: r.Eps, l1: r.L1, l2: r.L2, beta: r.Beta}
	if r.Kind == optim.LAMB {
		blocks := ceil(p.N, optim.NormBlock)
		squares := s.room(roomOfParts, 16*(blocks+1))
		args.norms = squares + pointer(16*blocks)
		launch(s, "lamb_slots", each(16*blocks), blockThreads, struct {
			of      updateArgs
			squares pointer
			block   int64
		}{args, squares, optim.NormBlock})
		launch(s, "lamb_norms", one, warpThreads, struct {
			norms, squares pointer
			blocks         int64
		}{args.norms, squares, int64(blocks)})
	}
	launch(s, "update", each(p.N), blockThreads, args)
}
