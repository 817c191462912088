package device

import "github.com/musterml/muster/internal/optim"

// Update is one step of an optimizer, in place: W (N) and its slots from the gradient, by the formula of Rule.Kind
// (package optim says each operation and its rounding, so every device of one Arithmetic gives the bits that
// trainers and parameter servers compute on the host). For optim.LAMB the N weights are one whole tensor.
//
// A gradient is clipped by its norm before that: SumSquares of its blocks, optim.ClipFactor of their sum, Scale.
type Update struct {
	N       int
	Rule    optim.Rule
	W, Grad Buffer
	Slots   [2]Buffer // (N) each, as many as Rule.Kind.Slots
}
