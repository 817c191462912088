package cpu

import (
	"github.com/musterml/muster/internal/samebits"
	"github.com/musterml/muster/trainer/device"
)

// attentionRows is how many positions of Q meet K and V at a time. The scores of so many rows stay
// in the second-level cache, and of a causal mask's empty half most is never computed. The results do
// not depend on it.
const attentionRows = 64

// attention is the view of one head of one sample: matrices (T, Width) whose rows lie ld apart.
type attention struct {
	t, d, ld, ldy int
	ldp           int // of scores: T rounded up, so that no row kernel has elements left over
	causal        bool
	scale         float32
	q, k, v       []float32
	p, dp         []float32 // scratch (attentionRows, ldp): probabilities, their gradient
}

func (s *stream) checkAttention(op string, g device.AttentionShape) bool {
	if s.err != nil {
		return false
	}
	if err := g.Validate(); err != nil {
		s.fail(err)
		return false
	}
	if !fits(g.N * g.T * 3 * g.Heads * g.Width) {
		s.fail(errTooLarge)
		return false
	}
	return s.sized(op, g.N)
}

func (s *stream) attention(g device.AttentionShape) attention {
	a := attention{t: g.T, d: g.Width, ld: 3 * g.Heads * g.Width, ldy: g.Heads * g.Width, causal: g.Causal, scale: g.Scale()}
	a.ldp = (g.T + rowBlock - 1) / rowBlock * rowBlock
	if n := attentionRows * a.ldp; len(s.scores) < 2*n {
		s.scores = make([]float32, 2*n)
	}
	a.p, a.dp = s.scores[:attentionRows*a.ldp], s.scores[attentionRows*a.ldp:2*attentionRows*a.ldp]
	return a
}

// at sets the head that is looked at: part h of sample n of qkv.
func (a *attention) at(qkv []float32, n, h int) {
	base := n*a.t*a.ld + h*a.d
	a.q, a.k, a.v = qkv[base:], qkv[base+a.ldy:], qkv[base+2*a.ldy:]
}

// seen is how many positions row i sees.
func (a *attention) seen(i int) int {
	if a.causal {
		return i + 1
	}
	return a.t
}

// scoresOf computes a.p = Q K' for rows [from, to), as far as any of them sees, which it returns.
func (s *stream) scoresOf(a *attention, from, to int) (end int) {
	end = a.seen(to - 1)
	s.multiply(&product{m: to - from, n: end, k: a.d, a: a.q[from*a.ld:], ars: a.ld, aks: 1,
		b: a.k, ldb: a.ld, bT: true, c: a.p, ldc: a.ldp, floor: floorNone})
	return end
}

// row is row r of m, up to what position i sees rounded up; what is beyond is set: to fill in the row, to zero
// between it and end.
func (a *attention) row(m []float32, r, i, end int, fill float32) []float32 {
	seen := a.seen(i)
	up := (seen + rowBlock - 1) / rowBlock * rowBlock
	row := m[r*a.ldp : r*a.ldp+up]
	for j := seen; j < up; j++ {
		row[j] = fill
	}
	if up < end {
		clear(m[r*a.ldp+up : r*a.ldp+end])
	}
	return row
}

// Attention implements device.Ops.
func (s *stream) Attention(p device.Attention) {
	const op = "attention"
	g := p.Shape
	if !s.checkAttention(op, g) {
		return
	}
	y := s.floats(op, "Y", p.Y, g.N*g.T*g.Heads*g.Width)
	qkv := s.floats(op, "QKV", p.QKV, 3*g.N*g.T*g.Heads*g.Width)
	lse := s.floats(op, "LSE", p.LSE, g.N*g.Heads*g.T)
	if s.err != nil {
		return
	}
	a := s.attention(g)
	for nh := range g.N * g.Heads {
		n, h := nh/g.Heads, nh%g.Heads
		a.at(qkv, n, h)
		s.attend(&a, y[n*g.T*a.ldy+h*g.Width:], lse[nh*g.T:(nh+1)*g.T])
	}
}

// attend does one head.
func (s *stream) attend(a *attention, y, lse []float32) {
	for from := 0; from < a.t; from += attentionRows {
		to := min(from+attentionRows, a.t)
		end := s.scoresOf(a, from, to)
		for i := from; i < to; i++ {
			row := a.row(a.p, i-from, i, end, floorNone)
			top := float32(s.k.max(row) * a.scale)
			sum := s.k.exps(row, row, a.scale, -top)
			lse[i] = top + float32(samebits.Log(float64(sum)))
			s.k.scale(row, row, 1/sum)
		}
		s.multiply(&product{m: to - from, n: a.d, k: end, a: a.p, ars: a.ldp, aks: 1,
			b: a.v, ldb: a.ld, c: y[from*a.ldy:], ldc: a.ldy, floor: floorNone})
	}
}

// AttentionBackward implements device.Ops.
func (s *stream) AttentionBackward(p device.AttentionBackward) {
	const op = "attention backward"
	g := p.Shape
	if !s.checkAttention(op, g) {
		return
	}
	dy := s.floats(op, "DY", p.DY, g.N*g.T*g.Heads*g.Width)
	qkv := s.floats(op, "QKV", p.QKV, 3*g.N*g.T*g.Heads*g.Width)
	dqkv := s.floats(op, "DQKV", p.DQKV, 3*g.N*g.T*g.Heads*g.Width)
	lse := s.floats(op, "LSE", p.LSE, g.N*g.Heads*g.T)
	if s.err != nil {
		return
	}
	clear(dqkv)
	a, d := s.attention(g), attention{}
	for nh := range g.N * g.Heads {
		n, h := nh/g.Heads, nh%g.Heads
		a.at(qkv, n, h)
		d = a
		d.at(dqkv, n, h)
		s.attendBack(&a, &d, dy[n*g.T*a.ldy+h*g.Width:], lse[nh*g.T:(nh+1)*g.T])
	}
}

// attendBack does one head; d is the view of the gradients.
func (s *stream) attendBack(a, d *attention, dy, lse []float32) {
	for from := 0; from < a.t; from += attentionRows {
		to := min(from+attentionRows, a.t)
		rows, end := to-from, s.scoresOf(a, from, to)
		s.multiply(&product{m: rows, n: end, k: a.d, a: dy[from*a.ldy:], ars: a.ldy, aks: 1,
			b: a.v, ldb: a.ld, bT: true, c: a.dp, ldc: a.ldp, floor: floorNone})
		for i := from; i < to; i++ {
			row, grad := a.row(a.p, i-from, i, end, floorNone), a.row(a.dp, i-from, i, end, 0)
			s.k.exps(row, row, a.scale, -lse[i])
			s.k.softmaxBack(grad, grad, row, s.k.dot(grad, row), a.scale)
		}
		s.multiply(&product{m: end, n: a.d, k: rows, a: a.p, ars: 1, aks: a.ldp,
			b: dy[from*a.ldy:], ldb: a.ldy, c: d.v, ldc: a.ld, resume: true, floor: floorNone})
		s.multiply(&product{m: rows, n: a.d, k: end, a: a.dp, ars: a.ldp, aks: 1,
			b: a.k, ldb: a.ld, c: d.q[from*a.ld:], ldc: a.ld, floor: floorNone})
		s.multiply(&product{m: end, n: a.d, k: rows, a: a.dp, ars: 1, aks: a.ldp,
			b: a.q[from*a.ld:], ldb: a.ld, c: d.k, ldc: a.ld, resume: true, floor: floorNone})
	}
}
