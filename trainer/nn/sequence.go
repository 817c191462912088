package nn

import "github.com/musterml/muster/trainer/device"

// embedding turns tokens (n, T) into vectors: row token of the table plus row t of the positions. Two
// nn.Embedding of PyTorch and their sum.
type embedding struct {
	to               shape
	vocab, context   int
	table, positions param // (vocab, c), (context, c)
}

func (l *embedding) out() shape { return l.to }

func (l *embedding) forward(p *pass, st *state, tokens device.Buffer) {
	p.Embedding(device.Embedding{N: p.n, T: l.to.h, Width: l.to.c, Vocab: l.vocab, Context: l.context, Y: st.y, Tokens: tokens,
		Table: l.table.of(p.w), Positions: l.positions.of(p.w)})
}

func (l *embedding) backward(p *pass, st *state, tokens, _ device.Buffer) {
	for i := range p.parts {
		q := &p.parts[i]
		p.EmbeddingBackward(device.EmbeddingBackward{N: q.n, T: l.to.h, Width: l.to.c, Vocab: l.vocab, Context: l.context,
			DY: q.of(st.dy, l.to.size()), Tokens: q.of(tokens, l.to.h),
			DTable: l.table.of(q.grad), DPositions: l.positions.of(q.grad)})
	}
}

// layerNorm is PyTorch's nn.LayerNorm over the channels of each position.
type layerNorm struct {
	s           shape
	gamma, beta param
}

func (l *layerNorm) out() shape { return l.s }

func (l *layerNorm) memory(a *allocator, st *state) {
	st.mean, st.rstd = a.perSample(device.Float32, l.s.h*l.s.w), a.perSample(device.Float32, l.s.h*l.s.w)
}

func (l *layerNorm) forward(p *pass, st *state, x device.Buffer) {
	p.LayerNorm(device.LayerNorm{Rows: p.n * l.s.h * l.s.w, Cols: l.s.c, Y: st.y, X: x,
		Gamma: l.gamma.of(p.w), Beta: l.beta.of(p.w), Mean: st.mean, RStd: st.rstd, Eps: normEps})
}

func (l *layerNorm) backward(p *pass, st *state, x, dx device.Buffer) {
	for i := range p.parts {
		q, rows, size := &p.parts[i], l.s.h*l.s.w, l.s.size()
		p.LayerNormBackward(device.LayerNormBackward{Rows: q.n * rows, Cols: l.s.c,
			DX: q.of(st.orSpare(dx), size), DY: q.of(st.dy, size), X: q.of(x, size),
			Gamma: l.gamma.of(p.w), DGamma: l.gamma.of(q.grad), DBeta: l.beta.of(q.grad),
			Mean: q.of(st.mean, rows), RStd: q.of(st.rstd, rows)})
	}
}

// attention is causal self-attention from (T, 3*c), Q, K and V side by side, to (T, c).
type attention struct{ geometry device.AttentionShape } // N = 0

func (l *attention) out() shape {
	return shape{c: l.geometry.Heads * l.geometry.Width, h: l.geometry.T, w: 1}
}

func (l *attention) memory(a *allocator, st *state) {
	st.lse = a.perSample(device.Float32, l.geometry.Heads*l.geometry.T)
}

func (l *attention) at(n int) device.AttentionShape {
	g := l.geometry
	g.N = n
	return g
}

func (l *attention) forward(p *pass, st *state, x device.Buffer) {
	p.Attention(device.Attention{Shape: l.at(p.n), Y: st.y, QKV: x, LSE: st.lse})
}

func (l *attention) backward(p *pass, st *state, x, dx device.Buffer) {
	p.AttentionBackward(device.AttentionBackward{Shape: l.at(p.n), DQKV: dx, QKV: x, DY: st.dy, Y: st.y, LSE: st.lse})
}

// function is PyTorch's nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, or a nn.ReLU that no layer before it does. Where vectors end, the
// last bit of an element may be another, so parts are apart.
type function struct {
	s shape
	f device.Function
}

func (l *function) out() shape { return l.s }

func (l *function) forward(p *pass, st *state, x device.Buffer) {
	for i := range p.parts {
		q, size := &p.parts[i], l.s.size()
		p.Apply(q.of(st.y, size), q.of(x, size), q.n*size, l.f)
	}
}

func (l *function) backward(p *pass, st *state, x, dx device.Buffer) {
	if dx.IsNone() {
		return
	}
	for i := range p.parts {
		q, size := &p.parts[i], l.s.size()
		p.ApplyBackward(q.of(dx, size), q.of(st.dy, size), q.of(x, size), q.n*size, l.f)
	}
}

// dropout is PyTorch's nn.Dropout. What it drops is a function of its number and the part's key, so that the backward pass
// drops the same and no mask is kept.
type dropout struct {
	s      shape
	p      float32
	number uint16
}

func (l *dropout) out() shape { return l.s }

func (l *dropout) apply(p *pass, y, x device.Buffer) {
	for i := range p.parts {
		q := &p.parts[i]
		key := q.key
		key.Layer = l.number
		p.Dropout(device.Dropout{N: q.n * l.s.size(), Y: q.of(y, l.s.size()), X: q.of(x, l.s.size()), P: l.drops(p), Key: key})
	}
}

// drops is the probability: none where nothing is learnt.
func (l *dropout) drops(p *pass) float32 {
	if p.training {
		return l.p
	}
	return 0
}

func (l *dropout) forward(p *pass, st *state, x device.Buffer) { l.apply(p, st.y, x) }

func (l *dropout) backward(p *pass, st *state, _, dx device.Buffer) {
	if !dx.IsNone() {
		l.apply(p, dx, st.dy)
	}
}
