package cpu

import (
	"errors"
	"fmt"
	"math"

	"github.com/musterml/muster/trainer/device"
)

// kcMax is how much of k a panel of B holds: 256 rows of 32 floats are 32 KiB, what the
// smallest first-level cache of today has.
const kcMax = 256

// blocks cuts k into equal parts of at most kcMax. The results do not depend on it.
func blocks(k int) (size int) {
	n := (k + kcMax - 1) / kcMax
	return (k + n - 1) / n
}

// offsets are tables i -> i*step by step, kept between calls: a model has few steps.
type offsets map[int][]int32

func (o offsets) get(n, step int) []int32 {
	v := o[step]
	if len(v) < n {
		v = make([]int32, max(n, kcMax))
		for i := range v {
			v[i] = int32(i * step)
		}
		o[step] = v
	}
	return v[:n]
}

// band is a block of rows that meets one panel of B: columns [0, width) of
//
//	c[r][j] = max(floor, start + sum over p of a[ro[r]+ko[p]] * b[p*ldb+j])
type band struct {
	a      []float32
	ro, ko []int32
	b      []float32
	ldb    int // b has at least (len(ko)-1)*ldb + nr elements
	c      []float32
	ldc    int
	width  int       // at most nr
	start  []float32 // the start of each column's sums (width); nil: zero
	resume bool      // start from what is in c
	floor  float32
}

// run computes a band tile by tile.
func (s *stream) run(g *band) {
	t, mr, nr := &s.t, s.k.mr, s.k.nr
	t.kc, t.a, t.ko, t.b, t.ldb, t.floor = len(g.ko), &g.a[0], &g.ko[0], &g.b[0], g.ldb, g.floor
	m := len(g.ro)
	for i := 0; i < m; i += mr {
		rows := min(mr, m-i)
		if rows < mr || g.width < nr {
			s.runEdge(g, i, rows)
			continue
		}
		t.ro, t.c, t.ldc = &g.ro[i], &g.c[i*g.ldc], g.ldc
		switch {
		case g.resume:
			t.init, t.ldi = t.c, t.ldc
		case g.start != nil:
			t.init, t.ldi = &g.start[0], 0
		default:
			t.init, t.ldi = &s.zeros[0], 0
		}
		s.k.multiply(t)
	}
}

// runEdge computes a tile that is cut off by the border of c, in a tile of its own: missing rows
// repeat the last one, missing columns are whatever b holds there.
func (s *stream) runEdge(g *band, i, rows int) {
	t, nr := &s.t, s.k.nr
	for r := range s.k.mr {
		s.edgeRO[r] = g.ro[i+min(r, rows-1)]
	}
	t.ro, t.c, t.ldc = &s.edgeRO[0], &s.edge[0], nr
	t.init, t.ldi = t.c, t.ldc
	for r := range rows {
		row := s.edge[r*nr : r*nr+g.width]
		switch {
		case g.resume:
			copy(row, g.c[(i+r)*g.ldc:])
		case g.start != nil:
			copy(row, g.start)
		default:
			clear(row)
		}
	}
	s.k.multiply(t)
	for r := range rows {
		copy(g.c[(i+r)*g.ldc:(i+r)*g.ldc+g.width], s.edge[r*nr:])
	}
}

// product is a matrix product of any layout: C (m, n), leading dimension ldc, with
// A(i,p) = a[i*ars + p*aks], and B(p,j) = b[p*ldb+j], or b[j*ldb+p] when bT.
type product struct {
	m, n, k  int
	a        []float32
	ars, aks int
	b        []float32
	ldb      int
	bT       bool
	c        []float32
	ldc      int
	bias     []float32 // (n) or nil
	resume   bool      // start from what is in c
	floor    float32
}

func (s *stream) multiply(p *product) {
	nr := s.k.nr
	kc := blocks(p.k)
	ko, ro := s.offsets.get(kc, p.aks), s.offsets.get(p.m, p.ars)
	for j := 0; j < p.n; j += nr {
		g := band{ro: ro, c: p.c[j:], ldc: p.ldc, width: min(nr, p.n-j)}
		if p.bias != nil {
			g.start = p.bias[j:]
		}
		for k0 := 0; k0 < p.k; k0 += kc {
			kn := min(kc, p.k-k0)
			switch {
			case p.bT:
				s.packTransposed(s.panel, p.b[j*p.ldb+k0:], p.ldb, g.width, kn)
				g.b, g.ldb = s.panel, nr
			case g.width == nr && p.m <= s.k.mr: // read once: packing is of no use
				g.b, g.ldb = p.b[k0*p.ldb+j:], p.ldb
			default:
				packRows(s.panel, nr, p.b[k0*p.ldb+j:], p.ldb, g.width, kn)
				g.b, g.ldb = s.panel, nr
			}
			g.a, g.ko = p.a[k0*p.aks:], ko[:kn]
			g.resume = p.resume || k0 > 0
			g.floor = floorNone
			if k0+kn == p.k {
				g.floor = p.floor
			}
			s.run(&g)
		}
	}
}

// MatMul implements device.Ops.
func (s *stream) MatMul(p device.MatMul) {
	if s.err != nil {
		return
	}
	if p.M < 1 || p.N < 1 || p.K < 1 || p.Trans > device.TN {
		s.fail(fmt.Errorf("matrix product %v of M=%d, N=%d, K=%d: sizes must be at least 1", p.Trans, p.M, p.N, p.K))
		return
	}
	if !fits(p.M*p.N, p.M*p.K, p.K*p.N) {
		s.fail(errTooLarge)
		return
	}
	const op = "matrix product"
	a := s.floats(op, "A", p.A, p.M*p.K)
	b := s.floats(op, "B", p.B, p.K*p.N)
	c := s.floats(op, "C", p.C, p.M*p.N)
	bias := s.optional(op, "Bias", p.Bias, p.N)
	if s.err != nil {
		return
	}
	q := product{m: p.M, n: p.N, k: p.K, a: a, ars: p.K, aks: 1, b: b, ldb: p.N, c: c, ldc: p.N, bias: bias, floor: floorOf(p.Act)}
	switch p.Trans {
	case device.NT:
		q.ldb, q.bT = p.K, true
		if s.flipPays(p.M, p.N) {
			s.multiplyFlipped(&q)
			return
		}
	case device.TN:
		q.ars, q.aks = 1, p.M
	}
	s.multiply(&q)
}

// flipPays tells whether A*B' is better computed as the transpose of B*A', in which it is A
// that gets packed: packing costs about as much as 64 operations an element. Either way
// gives the same bits, since each result is the same chain.
func (s *stream) flipPays(m, n int) bool {
	up := func(x, q int) int { return (x + q - 1) / q * q }
	mr, nr := s.k.mr, s.k.nr
	return 2*up(n, mr)*up(m, nr)+64*m < 2*up(m, mr)*up(n, nr)+64*n
}

func (s *stream) multiplyFlipped(q *product) {
	if len(s.flip) < q.m*q.n {
		s.flip = make([]float32, q.m*q.n)
	}
	f := product{m: q.n, n: q.m, k: q.k, a: q.b, ars: q.ldb, aks: 1, b: q.a, ldb: q.ars, bT: true, c: s.flip[:q.m*q.n], ldc: q.m, floor: q.floor}
	if q.bias != nil { // the bias goes along the rows here, so the sums start from memory
		for j, v := range q.bias {
			row := f.c[j*q.m : (j+1)*q.m]
			for i := range row {
				row[i] = v
			}
		}
		f.resume = true
	}
	s.multiply(&f)
	s.transpose(q.c, f.c, q.n, q.m)
}

func floorOf(a device.Activation) float32 {
	if a == device.ReLU {
		return 0
	}
	return floorNone
}

var errTooLarge = errors.New("an operand has more than 2^31 elements")

// fits tells whether the offset tables (int32) can address operands of these sizes.
func fits(sizes ...int) bool {
	for _, n := range sizes {
		if n > math.MaxInt32 || n < 0 {
			return false
		}
	}
	return true
}
