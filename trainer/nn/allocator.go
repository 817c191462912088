package nn

import "github.com/musterml/muster/trainer/device"

// allocator makes the memory of a replica. The first error is kept.
//
// Outputs are kept from forward to backward, so every layer has its own. Gradients of outputs are not: in
// a chain only those on either side of one layer are alive at a time, so two memories serve a whole chain
// in turns. A chain inside a layer (see residual) works while those of the outer one are alive, and has
// two of its own depth.
type allocator struct {
	stream device.Stream
	kept   device.Kind // of outputs and their gradients
	batch  int
	parts  int
	err    error
	sizes  []int              // by depth: the largest gradient, of one sample
	grads  [][2]device.Buffer // by depth
}

func (a *allocator) keep(m device.Memory, err error) device.Memory {
	if a.err == nil {
		a.err = err
	}
	return m
}

func (a *allocator) port(kind device.Kind, n int) device.Memory {
	return a.keep(a.stream.Port(kind, n))
}

// room is n elements, whatever the batch.
func (a *allocator) room(kind device.Kind, n int) device.Buffer {
	m := a.keep(a.stream.Alloc(kind, n))
	if a.err != nil {
		return device.Buffer{}
	}
	return device.Whole(m)
}

// perSample is n elements for each sample.
func (a *allocator) perSample(kind device.Kind, n int) device.Buffer { return a.room(kind, a.batch*n) }

// Outputs is how many values all layers together put out for one sample, which a replica keeps from the forward to the backward pass.
func (s *Spec) Outputs() int {
	var sum func(layers []layer) int
	sum = func(layers []layer) (n int) {
		for _, l := range layers {
			if r, ok := l.(*residual); ok {
				n += sum(r.body) + sum(r.shortcut)
			} else {
				n += l.out().size()
			}
		}
		return n
	}
	return sum(s.layers)
}

// outputsOn is the kind in which a device keeps what the model's layers put out, and gradients of that: its own where all layers are of those whose operations take it, and the
// first takes samples, which are float32, beside it.
func (s *Spec) outputsOn(dev device.Device) device.Kind {
	switch s.layers[0].(type) {
	case *linear, *conv, *toNHWC, *embedding:
	default:
		return device.Float32
	}
	for _, l := range s.layers {
		switch l.(type) {
		case *sparseLinear, *concatRows, *poolRows, *interactRows:
			return device.Float32
		}
	}
	return device.Outputs(dev)
}

// measure finds how large the gradients of a chain at a depth are.
func (a *allocator) measure(layers []layer, depth int) {
	for len(a.sizes) <= depth {
		a.sizes = append(a.sizes, 0)
		a.grads = append(a.grads, [2]device.Buffer{})
	}
	for i, l := range layers {
		if i < len(layers)-1 { // the last one's is given
			a.sizes[depth] = max(a.sizes[depth], l.out().size())
		}
		if r, ok := l.(*residual); ok {
			a.measure(r.body, depth+1)
			a.measure(r.shortcut, depth+1)
			if len(r.shortcut) > 0 {
				a.sizes[depth+1] = max(a.sizes[depth+1], r.in.size())
			}
		}
	}
}

// gradient is one of the two memories for gradients at a depth.
func (a *allocator) gradient(depth, turn int) device.Buffer {
	if b := &a.grads[depth][turn]; b.IsNone() {
		*b = a.perSample(a.kept, a.sizes[depth])
	}
	return a.grads[depth][turn]
}

// chain makes the states of a chain. dy is the gradient of its output; none means that of the output of the
// model, which shares the memory of the output itself (see device.SoftmaxCrossEntropy) if its layer needs that no more.
func (a *allocator) chain(layers []layer, depth int, dy device.Buffer) []state {
	states := make([]state, len(layers))
	for i, l := range layers {
		st := &states[i]
		st.dy = dy
		if i < len(layers)-1 {
			st.dy = a.gradient(depth, i%2)
		}
		if st.dy.IsNone() && !forgets(l) {
			st.dy = a.perSample(a.kept, l.out().size())
		}
		if r, ok := l.(*residual); ok {
			r.allocate(a, st, depth+1)
			continue
		}
		st.y = a.perSample(a.kept, l.out().size())
		if st.dy.IsNone() {
			st.dy = st.y
		}
		if m, ok := l.(interface{ memory(*allocator, *state) }); ok {
			m.memory(a, st)
		}
	}
	return states
}

// forgets tells whether a layer's backward pass can do without its output.
func forgets(l layer) bool {
	switch l := l.(type) {
	case *linear:
		return l.act == device.Identity
	case *sparseLinear:
		return l.act == device.Identity
	}
	return false
}
