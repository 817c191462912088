package nn

import "github.com/musterml/muster/trainer/device"

// shape is the shape of one sample between two layers. Images are (h, w, c) in memory, sequences
// (h, c) with w = 1.
type shape struct{ c, h, w int }

func (s shape) size() int { return s.c * s.h * s.w }

// state is what a layer keeps from forward to backward.
type state struct {
	y, dy      device.Buffer // (n, out): its output and the gradient of it
	index      device.Buffer // of max pooling
	mean, rstd device.Buffer // of norms
	lse        device.Buffer // of attention
	body       []state       // of a residual's chains
	shortcut   []state
	dx         device.Buffer // gradient of a shortcut's input
}

// pass is one run over a batch of n samples, in parts. What hangs on a sample alone is done for all of them in one call, which
// reads the weights once; statistics and sums over samples, and what is keyed, are a part's own.
type pass struct {
	device.Stream
	n        int
	parts    []part
	w        device.Buffer // the flat vector
	sparse   device.Sparse // the samples, if they are such
	observed device.Buffer // where batch norms leave their statistics, none but in Observe
	given    device.Buffer // the statistics that they take, none but in Evaluate
	training bool

	rows         *rowsRoom // of a model that takes rows of tables
	index        device.Buffer
	keys, fields int // different keys of all samples, and keys of each
}

// part is the samples [first, first+n) of a pass.
type part struct {
	first, n int
	key      device.DropoutKey
	grad     device.Buffer // the flat vector
}

// of is what b, with so many elements for each sample, has of the part.
func (q *part) of(b device.Buffer, perSample int) device.Buffer {
	return b.Range(q.first*perSample, q.n*perSample)
}

// layer is one operation with its fused activation. backward may overwrite st.dy if there is an activation;
// it writes the gradient of its parameters, and that of its input to dx unless dx is none. A layer that
// keeps more than its output has a method memory(*allocator, *state).
type layer interface {
	out() shape
	forward(p *pass, st *state, x device.Buffer)
	backward(p *pass, st *state, x, dx device.Buffer)
}

// orSpare is dx, or else room for what nobody asks for: that of the output, which has served its purpose when the backward
// pass of its layer begins.
func (st *state) orSpare(dx device.Buffer) device.Buffer {
	if dx.IsNone() {
		return st.y
	}
	return dx
}

// param is a tensor's place in the flat vector. The zero param is none.
type param struct{ offset, n int }

func (q param) of(flat device.Buffer) device.Buffer {
	if q.n == 0 {
		return device.Buffer{}
	}
	return flat.Range(q.offset, q.n)
}

// forwardChain runs layers one after the other and returns the last output.
func (p *pass) forwardChain(layers []layer, states []state, x device.Buffer) device.Buffer {
	for i, l := range layers {
		l.forward(p, &states[i], x)
		x = states[i].y
	}
	return x
}

// backwardChain runs layers in reverse, down to layer start. Nobody asks for the gradient of the input of that where dx is
// none: what comes before has nothing to learn. It calls done, if that is not nil, after each layer.
func (p *pass) backwardChain(layers []layer, states []state, start int, x, dx device.Buffer, done func(layer int)) {
	for i := len(layers) - 1; i >= start; i-- {
		in, to := x, dx
		if i > 0 {
			in, to = states[i-1].y, states[i-1].dy
		}
		if i == start && dx.IsNone() {
			to = dx
		}
		layers[i].backward(p, &states[i], in, to)
		if done != nil {
			done(i)
		}
	}
}

// residual is y = act(body(x) + shortcut(x)); an empty shortcut is x itself. The last layers of
// both chains have no activation: the sum takes the place of the body's output, and both need the
// same gradient.
type residual struct {
	in       shape
	body     []layer
	shortcut []layer
	act      device.Activation
}

func (l *residual) out() shape { return l.body[len(l.body)-1].out() }

func (l *residual) allocate(a *allocator, st *state, depth int) {
	st.body = a.chain(l.body, depth, st.dy)
	st.y = st.body[len(st.body)-1].y
	if len(l.shortcut) > 0 {
		st.shortcut = a.chain(l.shortcut, depth, st.dy)
		st.dx = a.gradient(depth, 1) // the first layer of the chain reads the other one
	}
}

func (l *residual) activation() *device.Activation { return &l.act }

func (l *residual) forward(p *pass, st *state, x device.Buffer) {
	side := p.forwardChain(l.shortcut, st.shortcut, x)
	p.forwardChain(l.body, st.body, x) // last: a device may make the sum together with its end
	p.Add(st.y, st.y, side, p.n*l.out().size(), l.act)
}

func (l *residual) backward(p *pass, st *state, x, dx device.Buffer) {
	if l.act == device.ReLU {
		p.ReLUBackward(st.dy, st.dy, st.y, p.n*l.out().size())
	}
	p.backwardChain(l.body, st.body, 0, x, dx, nil)
	side := st.dy
	if len(l.shortcut) > 0 {
		side = device.Buffer{}
		if !dx.IsNone() {
			side = st.dx
		}
		p.backwardChain(l.shortcut, st.shortcut, 0, x, side, nil)
	}
	if !dx.IsNone() {
		p.Add(dx, dx, side, p.n*l.in.size(), device.Identity)
	}
}

// linear is y = act(x w' + b): PyTorch's nn.Linear, with w (outputs, inputs), for each of a sample's positions.
type linear struct {
	to           shape
	in           int // inputs of one position
	weight, bias param
	act          device.Activation
}

func (l *linear) out() shape { return l.to }

// rows is how many positions n samples have.
func (l *linear) rows(n int) int { return n * l.to.h * l.to.w }

func (l *linear) activation() *device.Activation { return &l.act }

func (l *linear) forward(p *pass, st *state, x device.Buffer) {
	p.MatMul(device.MatMul{Trans: device.NT, M: l.rows(p.n), N: l.to.c, K: l.in,
		A: x, B: l.weight.of(p.w), C: st.y, Bias: l.bias.of(p.w), Act: l.act})
}

func (l *linear) backward(p *pass, st *state, x, dx device.Buffer) {
	if l.act == device.ReLU {
		p.ReLUBackward(st.dy, st.dy, st.y, p.n*l.to.size())
	}
	for i := range p.parts {
		q := &p.parts[i]
		dy, rows := q.of(st.dy, l.to.size()), l.rows(q.n)
		if l.bias.n > 0 {
			p.SumRows(l.bias.of(q.grad), dy, rows, l.to.c)
		}
		p.MatMul(device.MatMul{Trans: device.TN, M: l.to.c, N: l.in, K: rows,
			A: dy, B: q.of(x, l.rows(1)*l.in), C: l.weight.of(q.grad)})
	}
	if !dx.IsNone() {
		p.MatMul(device.MatMul{Trans: device.NN, M: l.rows(p.n), N: l.in, K: l.to.c,
			A: st.dy, B: l.weight.of(p.w), C: dx})
	}
}
