package cpu

import (
	"errors"
	"fmt"
	"math"

	"github.com/musterml/muster/trainer/device"
)

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

// Sizes of blocks, in elements.
const (
	kcMax  = 1024      // of k: what a tile adds up in one go
	blockA = 96 << 10  // of A: stays in the second-level cache while all panels of B meet it
	blockB = 512 << 10 // of B: what is packed at a time,
	wideB  = 512       // of at most so many columns
	nearB  = 64 << 10  // of B: is read as it lies, all of it staying in the second-level cache
	farA   = 256 << 10 // of A stored transposed: what lies further apart is brought together
)

// multiply computes a product block by block: for some columns and some of k, B is packed in panels; for
// some rows and as much of k as a panel has, A is made compact; then each panel, which the first-level cache holds,
// meets all these rows.
func (s *stream) multiply(p *product) {
	kc, nr := blocks(p.k), s.k.nr
	nc := min(p.n, wideB)
	if p.m <= 2*s.k.mr { // panels are used hardly more than once: while they are near
		nc = nr
	}
	kb := max(1, min(p.k, blockB/nc)/kc) * kc
	mc := rowsOfA(kc, s.k.mr)
	for j0 := 0; j0 < p.n; j0 += nc {
		nn := min(nc, p.n-j0)
		for kb0 := 0; kb0 < p.k; kb0 += kb {
			kbEnd := min(p.k, kb0+kb)
			panels := s.panelsOf(p, kb0, kbEnd-kb0, kc, j0, nn)
			for i0 := 0; i0 < p.m; i0 += mc {
				mn := min(mc, p.m-i0)
				for k0 := kb0; k0 < kbEnd; k0 += kc {
					kn := min(kc, kbEnd-k0)
					g := band{c: p.c[i0*p.ldc+j0:], ldc: p.ldc, ldb: panels.ld, resume: p.resume || k0 > 0, floor: floorNone}
					s.compact(&g, p, i0, mn, k0, kn, nn)
					if k0+kn == p.k {
						g.floor = p.floor
					}
					for j := 0; j < nn; j += nr {
						g.c, g.b, g.width = p.c[i0*p.ldc+j0+j:], panels.at(k0-kb0, kn, j), min(nr, nn-j)
						if p.bias != nil {
							g.start = p.bias[j0+j:]
						}
						s.run(&g)
					}
				}
			}
		}
	}
}

// rowsOfA is how many rows of A, kc each, are done at a time.
func rowsOfA(kc, mr int) int { return max(1, blockA/kc/mr) * mr }

// panels is a block of B as the kernels read it, packed or as it lies.
type panels struct {
	v      []float32
	ld     int
	direct bool
	width  int // of all panels
}

// at is the panel that begins at row k0, which is the first of kn packed together, and column j.
func (b *panels) at(k0, kn, j int) []float32 {
	if b.direct {
		return b.v[k0*b.ld+j:]
	}
	return b.v[k0*b.width+j*kn:]
}

// panelsOf packs columns [j0, j0+n) of rows [k0, k0+k) of B, kc rows at a time, unless it is as well read as it is.
func (s *stream) panelsOf(p *product, k0, k, kc, j0, n int) panels {
	nr := s.k.nr
	if !p.bT && (s.k.masked || n%nr == 0) && (p.m <= 2*s.k.mr || k*p.ldb <= nearB) {
		return panels{v: p.b[k0*p.ldb+j0:], ld: p.ldb, direct: true}
	}
	width := (n + nr - 1) / nr * nr
	b := panels{v: grown(&s.panel, k*width), ld: nr, width: width}
	for q := 0; q < k; q += kc {
		kn := min(kc, k-q)
		if !p.bT {
			s.packRows(b.at(q, kn, 0), p.b[(k0+q)*p.ldb+j0:], p.ldb, kn, n)
			continue
		}
		for j := 0; j < n; j += nr {
			s.packTransposed(b.at(q, kn, j), p.b[(j0+j)*p.ldb+k0+q:], p.ldb, min(nr, n-j), kn)
		}
	}
	return b
}

// compact sets what a band sees of A: rows [i0, i0+m), columns [k0, k0+k), as they lie. Only where A is stored
// transposed and n columns make that pay they are copied together, in panels of nr rows.
func (s *stream) compact(g *band, p *product, i0, m, k0, k, n int) {
	a := p.a[i0*p.ars+k0*p.aks:]
	if k*p.aks <= farA || n <= s.k.nr {
		g.a, g.ro, g.ko = a, s.offsets.get(m, p.ars), s.offsets.get(k, p.aks)
		return
	}
	nr := s.k.nr
	g.a = grown(&s.block, (m+nr-1)/nr*nr*k)
	s.packRows(g.a, a, p.aks, k, m)
	ro := grown(&s.rows, m)
	for i := range ro {
		ro[i] = int32(i/nr*nr*k + i%nr)
	}
	g.ro, g.ko = ro, s.offsets.get(k, nr)
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
	case device.TN:
		q.ars, q.aks = 1, p.M
	}
	if s.flipPays(&q) {
		s.multiplyFlipped(&q)
	} else {
		s.multiply(&q)
	}
}

// flipPays tells whether A*B is better computed as the transpose of B'*A': where that fills registers better, or
// has less to turn when packing. Either way gives the same bits, since each result is the same chain.
func (s *stream) flipPays(q *product) bool {
	there, flipped := s.effort(q.m, q.n)*q.k, s.effort(q.n, q.m)*q.k+2*q.m*q.n
	if q.bT {
		there += q.n * q.k / 3
	}
	if q.aks == 1 {
		flipped += q.m * q.k / 3
	}
	return flipped < there
}

// effort is about how many instructions m rows and n columns take for each k: multiplications, or loads, or as many as
// would go while a tile waits for its sums.
func (s *stream) effort(m, n int) int {
	mr, nr := s.k.mr, s.k.nr
	tiles := (m + mr - 1) / mr
	of := func(nv int) int { return max(m*nv, m+tiles*nv, 8*tiles) }
	sum := n / nr * of(nr/s.k.turns)
	if rest := n % nr; rest > 0 {
		sum += of((rest + s.k.turns - 1) / s.k.turns)
	}
	return sum
}

func (s *stream) multiplyFlipped(q *product) {
	f := product{m: q.n, n: q.m, k: q.k, a: q.b, ars: 1, aks: q.ldb, b: q.a, ldb: q.aks, c: grown(&s.flip, q.m*q.n), ldc: q.m, floor: q.floor}
	if q.bT {
		f.ars, f.aks = q.ldb, 1
	}
	if q.aks == 1 {
		f.ldb, f.bT = q.ars, true
	}
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
