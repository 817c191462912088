package nn

import (
	"errors"
	"fmt"
	"math"
)

// ErrNotFinite is returned by Blame; its text names where the first NaN or infinity is.
var ErrNotFinite = errors.New("not a finite number")

func finite[T float32 | float64](v T) bool {
	return !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0)
}

// Blame tells where the first NaN or infinity came from in the call of Loss or Gradient just before, with the
// same w and x (nil for tokens): the samples, a tensor, or a layer; nil if there was none up to the loss. A loss that is not
// finite is no error of Gradient, because all trainers have to hear of it before they stop; this is for the one
// that had it to say more. It is slow.
func (r *Replica) Blame(w, x []float32) error {
	s := r.spec
	if len(w) != s.params || r.pass.n == 0 {
		return fmt.Errorf("model %s: %w: %d parameters given, the model has %d, and there must have been a call", s.name, ErrArgument, len(w), s.params)
	}
	for i, v := range x {
		if !finite(v) {
			return fmt.Errorf("model %s: %w: value %d of sample %d is %v", s.name, ErrNotFinite, i%s.Features(), i/s.Features(), v)
		}
	}
	for _, t := range s.tensors {
		for _, v := range w[t.Offset : t.Offset+t.Len()] {
			if !finite(v) {
				return fmt.Errorf("model %s: %w: parameters %s hold %v, so an update before this step was too large; try a lower learning rate", s.name, ErrNotFinite, t.Name, v)
			}
		}
	}
	where, err := r.firstBad(s.layers, r.states, "the samples")
	if err != nil {
		return fmt.Errorf("model %s: %w", s.name, err)
	}
	if where == "" {
		return nil
	}
	return fmt.Errorf("model %s: %w: it appeared in %s; try a lower learning rate", s.name, ErrNotFinite, where)
}

// firstBad says which layer of a chain first had an output that is not finite; "" is none. before is
// what the chain comes after.
func (r *Replica) firstBad(layers []layer, states []state, before string) (string, error) {
	for i, l := range layers {
		if inner, ok := l.(*residual); ok {
			// The sum stands where the body's last output was, so the shortcut has its turn before that.
			where, err := r.firstBad(inner.shortcut, states[i].shortcut, before)
			if where == "" && err == nil {
				where, err = r.firstBad(inner.body, states[i].body, before)
			}
			if where != "" || err != nil {
				return where, err
			}
			before = r.spec.describe(inner.body[len(inner.body)-1], before)
			continue
		}
		before = r.spec.describe(l, before)
		ok := false
		r.stream.Finite(states[i].y, r.pass.n*l.out().size(), &ok)
		if err := r.stream.Sync(); err != nil {
			return "", err
		}
		if !ok {
			return before, nil
		}
	}
	return "", nil
}

// describe names a layer by its parameters, or one without by what it comes after.
func (s *Spec) describe(l layer, before string) string {
	named := func(kind string, q param) string {
		for _, t := range s.tensors {
			if t.Offset == q.offset {
				return kind + " " + t.Name[:max(0, len(t.Name)-len(".weight"))]
			}
		}
		return kind
	}
	switch l := l.(type) {
	case *linear:
		return named("linear layer", l.weight)
	case *conv:
		return named("convolution", l.weight)
	case *batchNorm:
		return named("batch norm", l.gamma)
	case *layerNorm:
		return named("layer norm", l.gamma)
	case *embedding:
		return named("embedding", l.table)
	case *attention:
		return "the attention after " + before
	case *function:
		return "the activation after " + before
	case *toNHWC, *toNCHW:
		return before
	}
	return "the pooling after " + before
}
