package nn

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
)

// ErrNotFinite is returned by Blame; its text names where the first NaN or infinity is.
var ErrNotFinite = errors.New("not a finite number")

func finite[T float32 | float64](v T) bool {
	return !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0)
}

// Blame tells where the first NaN or infinity came from in a call of Loss or Gradient with the same arguments, of which
// grad (nil for Loss) is the result: the samples, a tensor, or a layer and the pass; nil if there was none. It is slow.
//
// A loss that is not finite is no error of Gradient, which leaves it to the caller when to look.
func (r *Replica) Blame(w []float32, in data.Batch, key device.DropoutKey, grad []float32) error {
	s := r.spec
	if err := r.check(w, in); err != nil {
		return err
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf("model %s: %w: %s", s.name, ErrNotFinite, fmt.Sprintf(format, args...))
	}
	if i := notFinite(in.X); i >= 0 {
		return bad("value %d of sample %d is %v; look at the data", i%s.Features(), i/s.Features(), in.X[i])
	}
	if i := notFinite(in.Values); i >= 0 {
		sample, _ := slices.BinarySearch(in.Starts, int32(i)+1)
		return bad("feature %d of sample %d is %v; look at the data", in.Columns[i], sample-1, in.Values[i])
	}
	if i := notFinite(in.Targets); i >= 0 {
		return bad("the target of sample %d is %v; look at the data", i, in.Targets[i])
	}
	for _, t := range s.tensors {
		if i := notFinite(w[t.Offset : t.Offset+t.Len()]); i >= 0 {
			return bad("parameters %s hold %v, so an update before this step was too large; try a lower learning rate", t.Name, w[t.Offset+i])
		}
	}
	r.begin(w, in, r.whole(in, key), grad != nil)
	r.pass.forwardChain(s.layers, r.states, device.Whole(r.x))
	if err := r.sync(); err != nil {
		return err
	}
	where, err := r.firstBad(s.layers, r.states, "the samples")
	if err != nil {
		return fmt.Errorf("model %s: %w", s.name, err)
	}
	if where != "" {
		return bad("it appeared in the forward pass, in %s; try a lower learning rate", where)
	}
	if grad == nil {
		return nil
	}
	// Tensors are in the order of the forward pass, so the last of them is the first to get its gradient.
	for _, t := range slices.Backward(s.tensors) {
		if i := notFinite(grad[t.Offset : t.Offset+t.Len()]); i >= 0 {
			return bad("it appeared in the backward pass, first in the gradient of %s; try a lower learning rate", t.Name)
		}
	}
	return nil
}

// notFinite is the first place of a NaN or an infinity, or -1.
func notFinite(x []float32) int {
	return slices.IndexFunc(x, func(v float32) bool { return !finite(v) })
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
			for _, l := range inner.body {
				before = r.spec.describe(l, before)
			}
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
	case *sparseLinear:
		return named("linear layer", l.weight)
	case *conv:
		return named("convolution", l.weight)
	case *batchNorm:
		return named("batch norm", l.gamma)
	case *layerNorm:
		return named("layer norm", l.gamma)
	case *embedding:
		return named("embedding", l.table)
	case *concatRows, *poolRows, *interactRows:
		return "the rows of tables after " + before
	case *attention:
		return "the attention after " + before
	case *function:
		return "the activation after " + before
	case *toNHWC, *toNCHW, *dropout, *residual:
		return before
	}
	return "the pooling after " + before
}
