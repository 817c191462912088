package nn

import "github.com/musterml/muster/trainer/device"

// shape is the shape of one sample between two layers. Images are (h, w, c) in memory.
type shape struct{ c, h, w int }

func (s shape) size() int { return s.c * s.h * s.w }

// state is what a layer keeps from forward to backward.
type state struct {
	y, dy device.Buffer // (n, out): its output and the gradient of it
	index device.Buffer // of max pooling
}

// pass is one run over a batch of n samples.
type pass struct {
	device.Stream
	n       int
	w, grad device.Buffer // the flat vectors
}

// layer is one operation with its fused activation. backward may overwrite st.dy; it writes
// the gradient of its parameters, and that of its input to dx unless dx is none.
type layer interface {
	out() shape
	indices() int // Uint8 elements per sample it wants in state.index
	forward(p *pass, st *state, x device.Buffer)
	backward(p *pass, st *state, x, dx device.Buffer)
}

// param is a tensor's place in the flat vector.
type param struct{ offset, n int }

func (q param) of(flat device.Buffer) device.Buffer { return flat.Range(q.offset, q.n) }

// linear is y = act(x w' + b): PyTorch's nn.Linear, with w (outputs, inputs).
type linear struct {
	in, outputs  int
	weight, bias param
	act          device.Activation
}

func (l *linear) out() shape { return shape{c: l.outputs, h: 1, w: 1} }

func (l *linear) indices() int { return 0 }

func (l *linear) forward(p *pass, st *state, x device.Buffer) {
	p.MatMul(device.MatMul{Trans: device.NT, M: p.n, N: l.outputs, K: l.in,
		A: x, B: l.weight.of(p.w), C: st.y, Bias: l.bias.of(p.w), Act: l.act})
}

func (l *linear) backward(p *pass, st *state, x, dx device.Buffer) {
	if l.act == device.ReLU {
		p.ReLUBackward(st.dy, st.dy, st.y, p.n*l.outputs)
	}
	p.SumRows(l.bias.of(p.grad), st.dy, p.n, l.outputs)
	p.MatMul(device.MatMul{Trans: device.TN, M: l.outputs, N: l.in, K: p.n,
		A: st.dy, B: x, C: l.weight.of(p.grad)})
	if !dx.IsNone() {
		p.MatMul(device.MatMul{Trans: device.NN, M: p.n, N: l.in, K: l.outputs,
			A: st.dy, B: l.weight.of(p.w), C: dx})
	}
}

// conv is y = act(x * w + b): PyTorch's nn.Conv2d, with w (out, in, kh, kw).
type conv struct {
	geometry     device.ConvShape // N = 0
	weight, bias param
	act          device.Activation
}

func (l *conv) out() shape {
	return shape{c: l.geometry.Out, h: l.geometry.OutH(), w: l.geometry.OutW()}
}

func (l *conv) indices() int { return 0 }

func (l *conv) at(n int) device.ConvShape {
	g := l.geometry
	g.N = n
	return g
}

func (l *conv) forward(p *pass, st *state, x device.Buffer) {
	p.Conv2D(device.Conv2D{Shape: l.at(p.n), Y: st.y, X: x, W: l.weight.of(p.w), Bias: l.bias.of(p.w), Act: l.act})
}

func (l *conv) backward(p *pass, st *state, x, dx device.Buffer) {
	o := l.out()
	if l.act == device.ReLU {
		p.ReLUBackward(st.dy, st.dy, st.y, p.n*o.size())
	}
	p.SumRows(l.bias.of(p.grad), st.dy, p.n*o.h*o.w, o.c)
	p.Conv2DBackwardWeight(device.Conv2DBackwardWeight{Shape: l.at(p.n), DW: l.weight.of(p.grad), X: x, DY: st.dy})
	if !dx.IsNone() {
		p.Conv2DBackwardData(device.Conv2DBackwardData{Shape: l.at(p.n), DX: dx, DY: st.dy, W: l.weight.of(p.w)})
	}
}

// maxPool is PyTorch's nn.MaxPool2d, with an activation that comes before it in PyTorch: they
// commute, and here it has fewer elements to do.
type maxPool struct {
	geometry device.PoolShape // N = 0
	act      device.Activation
}

func (l *maxPool) out() shape {
	return shape{c: l.geometry.C, h: l.geometry.OutH(), w: l.geometry.OutW()}
}

func (l *maxPool) indices() int { return l.out().size() }

func (l *maxPool) at(n int) device.PoolShape {
	g := l.geometry
	g.N = n
	return g
}

func (l *maxPool) forward(p *pass, st *state, x device.Buffer) {
	p.MaxPool(device.MaxPool{Shape: l.at(p.n), Y: st.y, X: x, Index: st.index, Act: l.act})
}

func (l *maxPool) backward(p *pass, st *state, _, dx device.Buffer) {
	if !dx.IsNone() {
		p.MaxPoolBackward(device.MaxPoolBackward{Shape: l.at(p.n), DX: dx, DY: st.dy, Y: st.y, Index: st.index, Act: l.act})
	}
}

// toNHWC turns samples as the data has them, (c, h, w), into (h, w, c).
type toNHWC struct{ s shape }

func (l *toNHWC) out() shape { return l.s }

func (l *toNHWC) indices() int { return 0 }

func (l *toNHWC) forward(p *pass, st *state, x device.Buffer) {
	p.ToNHWC(st.y, x, p.n, l.s.c, l.s.h, l.s.w)
}

func (l *toNHWC) backward(p *pass, st *state, _, dx device.Buffer) {
	if !dx.IsNone() {
		p.ToNCHW(dx, st.dy, p.n, l.s.c, l.s.h, l.s.w)
	}
}

// toNCHW is what PyTorch's nn.Flatten sees: (c, h, w), made from (h, w, c).
type toNCHW struct{ s shape }

func (l *toNCHW) out() shape { return l.s }

func (l *toNCHW) indices() int { return 0 }

func (l *toNCHW) forward(p *pass, st *state, x device.Buffer) {
	p.ToNCHW(st.y, x, p.n, l.s.c, l.s.h, l.s.w)
}

func (l *toNCHW) backward(p *pass, st *state, _, dx device.Buffer) {
	if !dx.IsNone() {
		p.ToNHWC(dx, st.dy, p.n, l.s.c, l.s.h, l.s.w)
	}
}
