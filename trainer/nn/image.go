package nn

import "github.com/musterml/muster/trainer/device"

// conv is y = act(x * w + b): PyTorch's nn.Conv2d, with w (out, in, kh, kw).
type conv struct {
	geometry     device.ConvShape // N = 0
	weight, bias param
	act          device.Activation
}

func (l *conv) out() shape {
	return shape{c: l.geometry.Out, h: l.geometry.OutH(), w: l.geometry.OutW()}
}

func (l *conv) at(n int) device.ConvShape {
	g := l.geometry
	g.N = n
	return g
}

func (l *conv) activation() *device.Activation { return &l.act }

func (l *conv) forward(p *pass, st *state, x device.Buffer) {
	p.Conv2D(device.Conv2D{Shape: l.at(p.n), Y: st.y, X: x, W: l.weight.of(p.w), Bias: l.bias.of(p.w), Act: l.act})
}

func (l *conv) backward(p *pass, st *state, x, dx device.Buffer) {
	o := l.out()
	if l.act == device.ReLU {
		p.ReLUBackward(st.dy, st.dy, st.y, p.n*o.size())
	}
	g := l.geometry
	for i := range p.parts {
		q := &p.parts[i]
		dy := q.of(st.dy, o.size())
		if l.bias.n > 0 {
			p.SumRows(l.bias.of(q.grad), dy, q.n*o.h*o.w, o.c)
		}
		p.Conv2DBackwardWeight(device.Conv2DBackwardWeight{Shape: l.at(q.n), DW: l.weight.of(q.grad), X: q.of(x, g.C*g.H*g.W), DY: dy})
	}
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

func (l *maxPool) memory(a *allocator, st *state) {
	st.index = a.perSample(device.Uint8, l.out().size())
}

func (l *maxPool) at(n int) device.PoolShape {
	g := l.geometry
	g.N = n
	return g
}

func (l *maxPool) activation() *device.Activation { return &l.act }

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

func (l *toNCHW) forward(p *pass, st *state, x device.Buffer) {
	p.ToNCHW(st.y, x, p.n, l.s.c, l.s.h, l.s.w)
}

func (l *toNCHW) backward(p *pass, st *state, _, dx device.Buffer) {
	if !dx.IsNone() {
		p.ToNHWC(dx, st.dy, p.n, l.s.c, l.s.h, l.s.w)
	}
}

// normEps is added to variances, as in PyTorch.
const normEps = 1e-5

// batchNorm is act(PyTorch's nn.BatchNorm2d), with the statistics of the samples of each part, or those that
// the pass is given. See doc.go.
type batchNorm struct {
	s           shape
	gamma, beta param
	stats       param // within the statistics of all batch norms: means, then variances, or 1/deviations while they are observed
	act         device.Activation
}

func (l *batchNorm) out() shape { return l.s }

func (l *batchNorm) memory(a *allocator, st *state) {
	st.mean, st.rstd = a.room(device.Float32, a.parts*l.s.c), a.room(device.Float32, a.parts*l.s.c)
}

func (l *batchNorm) activation() *device.Activation { return &l.act }

func (l *batchNorm) forward(p *pass, st *state, x device.Buffer) {
	if !p.given.IsNone() {
		all := l.stats.of(p.given)
		p.BatchNormInference(device.BatchNormInference{Rows: p.n * l.s.h * l.s.w, Channels: l.s.c, Y: st.y, X: x,
			Gamma: l.gamma.of(p.w), Beta: l.beta.of(p.w), Mean: all.Range(0, l.s.c), Variance: all.Range(l.s.c, l.s.c), Eps: normEps, Act: l.act})
		return
	}
	for i := range p.parts {
		q := &p.parts[i]
		mean, rstd := st.mean.Range(i*l.s.c, l.s.c), st.rstd.Range(i*l.s.c, l.s.c)
		if !p.observed.IsNone() { // of one part
			all := l.stats.of(p.observed)
			mean, rstd = all.Range(0, l.s.c), all.Range(l.s.c, l.s.c)
		}
		p.BatchNorm(device.BatchNorm{Rows: q.n * l.s.h * l.s.w, Channels: l.s.c, Y: q.of(st.y, l.s.size()), X: q.of(x, l.s.size()),
			Gamma: l.gamma.of(p.w), Beta: l.beta.of(p.w), Mean: mean, RStd: rstd, Eps: normEps, Act: l.act})
	}
}

func (l *batchNorm) backward(p *pass, st *state, x, dx device.Buffer) {
	for i := range p.parts {
		q, size := &p.parts[i], l.s.size()
		p.BatchNormBackward(device.BatchNormBackward{Rows: q.n * l.s.h * l.s.w, Channels: l.s.c,
			DX: q.of(st.orSpare(dx), size), DY: q.of(st.dy, size), X: q.of(x, size), Y: q.of(st.y, size),
			Gamma: l.gamma.of(p.w), Beta: l.beta.of(p.w), DGamma: l.gamma.of(q.grad), DBeta: l.beta.of(q.grad),
			Mean: st.mean.Range(i*l.s.c, l.s.c), RStd: st.rstd.Range(i*l.s.c, l.s.c), Act: l.act})
	}
}

// globalPool is the mean over all pixels, PyTorch's nn.AdaptiveAvgPool2d(1).
type globalPool struct{ in shape }

func (l *globalPool) out() shape { return shape{c: l.in.c, h: 1, w: 1} }

func (l *globalPool) forward(p *pass, st *state, x device.Buffer) {
	p.GlobalAveragePool(st.y, x, p.n, l.in.h*l.in.w, l.in.c)
}

func (l *globalPool) backward(p *pass, st *state, _, dx device.Buffer) {
	if !dx.IsNone() {
		p.GlobalAveragePoolBackward(dx, st.dy, p.n, l.in.h*l.in.w, l.in.c)
	}
}

// averagePool is PyTorch's nn.AvgPool2d.
type averagePool struct{ geometry device.PoolShape } // N = 0

func (l *averagePool) out() shape {
	return shape{c: l.geometry.C, h: l.geometry.OutH(), w: l.geometry.OutW()}
}

func (l *averagePool) at(n int) device.PoolShape {
	g := l.geometry
	g.N = n
	return g
}

func (l *averagePool) forward(p *pass, st *state, x device.Buffer) {
	p.AveragePool(device.AveragePool{Shape: l.at(p.n), Y: st.y, X: x})
}

func (l *averagePool) backward(p *pass, st *state, _, dx device.Buffer) {
	if !dx.IsNone() {
		p.AveragePoolBackward(device.AveragePoolBackward{Shape: l.at(p.n), DX: dx, DY: st.dy})
	}
}
