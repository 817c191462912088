package cpu

import (
	"errors"
	"fmt"
	"math"

	"github.com/musterml/muster/trainer/device"
)

// blocks cuts k into equal parts of at most kcMax. The results do not depend on it.
func blocks(k int) (size int) {
	if k <= kcMax {
		return k
	}
	n := (k + kcMax - 1) / kcMax
	return (k + n - 1) / n
}

// offsets are tables i -> i*step by step, kept between calls: a model has few steps.
type offsets struct {
	all    map[int][]int32
	recent [16]struct { // some of them, which are found sooner
		step  int
		table []int32
	}
}

func (o *offsets) get(n, step int) []int32 {
	r := &o.recent[step%len(o.recent)]
	if r.step != step || len(r.table) < n {
		v := o.all[step]
		if len(v) < n {
			v = make([]int32, max(n, kcMax))
			for i := range v {
				v[i] = int32(i * step)
			}
			o.all[step] = v
		}
		r.step, r.table = step, v
	}
	return r.table[:n]
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
	starts   []float32 // (m) or nil: a bias of each row; of tiles only, and in place of bias
	resume   bool      // start from what is in c
	floor    float32
}

// Sizes of blocks, in elements.
const (
	kcMax   = 1024      // of k: what a tile adds up in one go
	blockA  = 96 << 10  // of A: stays in the second-level cache while all panels of B meet it
	blockB  = 512 << 10 // of B: what is packed at a time,
	wideB   = 512       // of at most so many columns
	closeB  = 8 << 10   // of B: stays in the first-level cache while strips of A meet it
	nearB   = 64 << 10  // of B: is read as it lies, all of it staying in the second-level cache,
	fewRows = 192       // and so is any B that meets no more rows than these
	farA    = 64 << 10  // of A stored transposed: what lies further apart is brought together, or its lines would fall into few sets of the caches
)

// multiplyTiles computes a product block by block. For some columns and some of k, B is packed in panels, unless
// it is as well read as it lies; for some rows and as much of k as a panel has, A is made compact; then each panel
// meets all these rows.
func (s *stream) multiplyTiles(p *product) {
	kc, nr, nc, kb := blocks(p.k), s.k.nr, p.n, p.k
	direct := s.direct(p.m, p.n, p.k*p.ldb, p.bT)
	if !direct {
		if nc = min(p.n, wideB); p.m <= 2*s.k.mr { // panels are used hardly more than once: while they are near
			nc = nr
		}
		kb = max(1, min(p.k, blockB/nc)/kc) * kc
	}
	starts := s.spreadStarts(p.starts, nr)
	mc := p.m
	if mc*kc > blockA {
		mc = rowsOfA(kc, s.k.mr)
	}
	for j0 := 0; j0 < p.n; j0 += nc {
		nn := min(nc, p.n-j0)
		for kb0 := 0; kb0 < p.k; kb0 += kb {
			kbEnd := min(p.k, kb0+kb)
			panels := panels{v: p.b, ld: p.ldb, direct: true}
			if !direct {
				panels = s.pack(p, kb0, kbEnd-kb0, kc, j0, nn)
			}
			for i0 := 0; i0 < p.m; i0 += mc {
				mn := min(mc, p.m-i0)
				for k0 := kb0; k0 < kbEnd; k0 += kc {
					kn := min(kc, kbEnd-k0)
					g := band{ldc: p.ldc, ldb: panels.ld, resume: p.resume || k0 > 0, floor: floorNone}
					s.compact(&g, p, i0, mn, k0, kn, nn)
					g.spread(s.k.mr)
					if k0+kn == p.k {
						g.floor = p.floor
					}
					for j := 0; j < nn; j += nr {
						g.c, g.b, g.width = p.c[i0*p.ldc+j0+j:], panels.at(k0-kb0, kn, j), min(nr, nn-j)
						switch {
						case p.bias != nil:
							g.start = p.bias[j0+j:]
						case starts != nil:
							g.start, g.lds = starts[i0*nr:], nr
						}
						s.run(&g)
					}
				}
			}
		}
	}
}

// spreadStarts is a row of n of each.
func (s *stream) spreadStarts(each []float32, n int) []float32 {
	if each == nil {
		return nil
	}
	all := grown(&s.starts, len(each)*n)
	for i, v := range each {
		fill(all[i*n:(i+1)*n], v)
	}
	return all
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

// direct tells whether a B of n columns, so large with what lies between its rows, is read as it lies.
func (s *stream) direct(m, n, size int, bT bool) bool {
	return !bT && (s.k.masked || n%s.k.nr == 0) && (m <= fewRows || size <= nearB)
}

// pack packs columns [j0, j0+n) of rows [k0, k0+k) of B, kc rows at a time.
func (s *stream) pack(p *product, k0, k, kc, j0, n int) panels {
	nr := s.k.nr
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
	var q product // field by field: the smallest products would wait for a copy
	q.m, q.n, q.k = p.M, p.N, p.K
	q.a, q.ars, q.aks = a, p.K, 1
	q.b, q.ldb = b, p.N
	q.c, q.ldc = c, p.N
	q.bias, q.floor = bias, floorOf(p.Act)
	switch p.Trans {
	case device.NT:
		if p.K > 1 { // a single column lies like a single row
			q.ldb, q.bT = p.K, true
		}
	case device.TN:
		q.ars, q.aks = 1, p.M
	}
	s.multiply(&q)
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
