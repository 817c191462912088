package nn

import "github.com/musterml/muster/trainer/device"

// sparseLinear is linear over samples of which only the entries that are not zero are there. It is the first
// layer, so nobody asks for the gradient of its input.
type sparseLinear struct {
	to           shape
	in           int // features
	weight, bias param
	act          device.Activation
}

func (l *sparseLinear) out() shape { return l.to }

func (l *sparseLinear) activation() *device.Activation { return &l.act }

func (l *sparseLinear) forward(p *pass, st *state, _ device.Buffer) {
	p.SparseMatMul(device.SparseMatMul{X: p.sparse, Out: l.to.c, Y: st.y, W: l.weight.of(p.w), Bias: l.bias.of(p.w), Act: l.act})
}

func (l *sparseLinear) backward(p *pass, st *state, _, _ device.Buffer) {
	if l.act == device.ReLU {
		p.ReLUBackward(st.dy, st.dy, st.y, p.n*l.to.c)
	}
	for i := range p.parts {
		q := &p.parts[i]
		rows, dy := p.sparse, q.of(st.dy, l.to.c)
		rows.Rows, rows.Starts = q.n, p.sparse.Starts.Range(q.first, q.n+1)
		if l.bias.n > 0 {
			p.SumRows(l.bias.of(q.grad), dy, q.n, l.to.c)
		}
		p.SparseMatMulBackwardWeight(device.SparseMatMulBackwardWeight{X: rows, Out: l.to.c, DW: l.weight.of(q.grad), DY: dy})
	}
}
