package cpu

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

// TestWaysAgree computes products on every way there is, and cut in two, too: all must give the same bits,
// whichever multiply would choose; those of the oracle but for roundings. Rows of C are further apart than they need be.
func TestWaysAgree(t *testing.T) {
	eachSet(t, func(b *bench) (all []float32) {
		for i := range 300 {
			most := []int{4, 20, 70}[i%3]
			p := device.MatMul{Trans: device.Trans(i / 3 % 3), M: 1 + b.r.IntN(most), N: 1 + b.r.IntN(most), K: 1 + b.r.IntN(70)}
			if i%50 == 0 {
				p.K += kcMax
			}
			all = append(all, b.everyWay(p, i/9%3)...)
		}
		return all
	})
}

// everyWay starts the sums from zero, a bias, or what is in C.
func (b *bench) everyWay(p device.MatMul, from int) (first []float32) {
	b.Helper()
	av, a := b.random(p.M * p.K)
	bv, bb := b.random(p.K * p.N)
	host := func(v device.Buffer) []float32 { return v.Mem.(*memory).f[v.Off:] }
	q := product{m: p.M, n: p.N, k: p.K, a: host(a), ars: p.K, aks: 1, b: host(bb), ldb: p.N, ldc: p.N + 3, floor: -0.5, resume: from == 2}
	switch p.Trans {
	case device.NT:
		q.ldb, q.bT = p.K, true
	case device.TN:
		q.ars, q.aks = 1, p.M
	}
	var bias []float32
	if from == 1 {
		var buf device.Buffer
		bias, buf = b.random(p.N)
		q.bias = host(buf)
	}
	before, _ := b.random((p.M-1)*q.ldc + p.N)
	sums := naiveMatMul(p, av, bv, bias)
	oracle := make([]float64, len(before)) // what is between the rows stays
	for i, v := range before {
		switch r, c := i/q.ldc, i%q.ldc; {
		case c >= p.N:
			oracle[i] = float64(v)
		case q.resume:
			oracle[i] = math.Max(-0.5, float64(v)+sums[r*p.N+c])
		default:
			oracle[i] = math.Max(-0.5, sums[r*p.N+c])
		}
	}
	f := form{m: q.m, n: q.n, k: q.k, aT: q.aks != 1, bT: q.bT, resume: q.resume}
	for _, w := range []way{{}, {strips: true}, {flipped: true}, {flipped: true, strips: true}} {
		if w.flipped && q.resume || w.strips && !b.s.stripsDo(map[bool]form{false: f, true: f.turned()}[w.flipped]) {
			continue
		}
		for _, cut := range []int{p.N, p.N * 2 / 3} {
			buf := b.buffer(before)
			g := q
			g.c = host(buf)
			if cut > 0 && cut < p.N {
				last := g
				last.from(cut)
				b.s.goWay(&last, w)
				g.n = cut
			}
			b.s.goWay(&g, w)
			got := b.result(buf)
			what := fmt.Sprintf("%v %dx%dx%d from %d, %+v cut at %d", p.Trans, p.M, p.N, p.K, from, w, cut)
			if first == nil {
				b.near(what, got, oracle, p.K)
				first = slices.Clone(got)
			}
			sameBits(b.TB.(*testing.T), what, got, first)
		}
	}
	return first
}
