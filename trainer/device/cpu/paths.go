package cpu

// There are two ways to compute a product: in tiles with B packed (multiplyTiles), or in strips from the operands as
// they lie (multiplyStrips), where those are near or few rows meet a B stored transposed. Either also computes A*B as
// the transpose of B'*A'. And columns that fill no register may go another way than the others. All give the same bits,
// since each result is the same chain: the choice is free, and made by estimates. What they come to, with AVX-512:
//
//	NN, TN  few rows, or a small B                 strips, B as it lies
//	NT      fewer than some 24 rows                strips, B turned
//	NN      N of a few, or few columns left over   flipped, strips: A is the B that is turned
//	any     more                                   tiles
//	any     N fills registers worse than M         flipped, tiles or strips
//
// A product of one row waits for its sums, if it has not many columns: each is one chain over k, four cycles a link.

// way is how some columns of a product are computed.
type way struct {
	flipped, strips bool // flipped: as the transpose of B'*A'
}

// path is how a product is computed: columns [0, cut), and the others.
type path struct {
	cut         int
	first, last way
}

// form is what the path depends on.
type form struct {
	m, n, k int
	aT, bT  bool // stored transposed
	resume  bool // starts from what is in C
}

// turned is the form of the transpose.
func (f form) turned() form { return form{m: f.n, n: f.m, k: f.k, aT: !f.bT, bT: !f.aT} }

// chosen is what a stream remembers of paths, each shape at its slot: a model has some dozens of products. A map would
// take longer to find one than the smallest take to compute.
type chosen [256]struct {
	form
	path
}

// at is the slot of a shape.
func (c *chosen) at(m, n, k int, aT, bT bool) int {
	h := uint64(m)<<42 ^ uint64(n)<<21 ^ uint64(k)
	if aT {
		h = ^h
	}
	if bT {
		h ^= 1 << 63
	}
	return int(h * 0x9e3779b97f4a7c15 >> 40 % uint64(len(c)))
}

// multiply computes a product on the path that seems best.
func (s *stream) multiply(q *product) {
	aT := q.aks != 1
	p := &s.chosen[s.chosen.at(q.m, q.n, q.k, aT, q.bT)]
	if p.m != q.m || p.n != q.n || p.k != q.k || p.aT != aT || p.bT != q.bT || p.resume != q.resume {
		p.form = form{m: q.m, n: q.n, k: q.k, aT: aT, bT: q.bT, resume: q.resume}
		p.path = s.choose(p.form)
	}
	if p.cut < q.n {
		last := *q
		last.from(p.cut)
		s.goWay(&last, p.last)
		q.n = p.cut
	}
	s.goWay(q, p.first)
}

// from leaves out the columns before j.
func (p *product) from(j int) {
	step := 1
	if p.bT {
		step = p.ldb
	}
	p.n, p.b, p.c = p.n-j, p.b[j*step:], p.c[j:]
	if p.bias != nil {
		p.bias = p.bias[j:]
	}
}

func (s *stream) goWay(q *product, w way) {
	switch {
	case w.flipped:
		s.multiplyFlipped(q, w.strips)
	case w.strips:
		s.multiplyStrips(q)
	default:
		s.multiplyTiles(q)
	}
}

func (s *stream) choose(f form) path {
	w, cost := s.best(f)
	p := path{cut: f.n, first: w}
	rest := f.n % s.k.turns
	if rest == 0 || rest == f.n {
		return p
	}
	whole, last := f, f
	whole.n, last.n = f.n-rest, rest
	first, c1 := s.best(whole)
	then, c2 := s.best(last)
	if c1+c2 < cost {
		p = path{cut: whole.n, first: first, last: then}
	}
	return p
}

// best is the cheapest way to compute a product, and its cost.
func (s *stream) best(f form) (w way, cost int) {
	w.strips, cost = s.unflipped(f)
	if f.resume { // what is in C would have to be turned first
		return w, cost
	}
	strips, c := s.unflipped(f.turned())
	if f.n > 1 {
		lanes := s.k.turns
		c += costFlip + over(f.m, lanes)*over(f.n, lanes)*lanes*costSquare + f.m*f.n/2
	}
	if c < cost {
		return way{flipped: true, strips: strips}, c
	}
	return w, cost
}

// unflipped tells whether a product is better computed in strips, unless flipped, and the cost.
func (s *stream) unflipped(f form) (strips bool, cost int) {
	switch {
	case !s.stripsDo(f):
		return false, s.costOfTiles(f)
	case !f.bT:
		return true, s.costOfDirect(f)
	}
	tiles, turned := s.costOfTiles(f), s.costOfTurned(f)
	return turned < tiles, min(tiles, turned)
}

// Costs are in multiplications of a register, of which a processor does two in each cycle. They were fitted to times of
// 480 shapes up to 300 on Zen 5, in each form on every way.
const (
	costStrips  = 200 // to begin a product in strips,
	costTiles   = 400 // or in tiles
	costTile    = 35  // to begin and to end a tile, of whichever kind
	costColumns = 85  // to begin with other columns
	costFlip    = 100 // to flip a product, besides turning C:
	costSquare  = 7   // as much for a row of a square
)

// over is n/d, rounded up.
func over(n, d int) int { return (n + d - 1) / d }

// costOfTiles is that of multiplications, or of waiting for sums; and of packing a B stored transposed.
func (s *stream) costOfTiles(f form) int {
	tiles, lanes := over(f.m, s.k.mr), s.k.turns
	panels, registers := over(f.n, s.k.nr), over(f.n, lanes)
	cost := f.k*max(f.m*registers, 8*tiles*panels) + panels*(tiles*costTile+costColumns) + costTiles
	if f.bT {
		cost += registers * lanes * over(f.k, lanes) * lanes / 2
	}
	return cost
}

// stripsDo tells whether a product can be computed in strips. Operands read as they lie must be near; and turning
// the same B for more than two strips would cost too much.
func (s *stream) stripsDo(f form) bool {
	switch {
	case s.k.direct == nil:
		return false
	case f.bT:
		return f.m <= 2*s.k.turnedRows
	}
	return f.m <= fewRows && f.k <= kcMax || f.k*max(f.m, f.n) <= nearB
}

// costOfDirect is that of multiplications, of waiting for sums, or of loading what is multiplied.
func (s *stream) costOfDirect(f form) int {
	strips := over(f.m, s.k.directRows(f.n))
	rows, registers := over(f.m, strips), over(f.n, s.k.turns)
	panels := over(registers, s.k.wide(rows))
	each := max(rows*registers, 8*panels, rows*panels+2*registers)
	return strips*(f.k*each+panels*costTile+rows*registers) + costStrips
}

// costOfTurned is that of multiplications and of turning squares of B.
func (s *stream) costOfTurned(f form) int {
	lanes, strips := s.k.turns, over(f.m, s.k.turnedRows)
	squares := over(f.k, lanes) * lanes * (19*strips + f.m*5/2) / 4
	return over(f.n, lanes)*(squares+strips*costTile) + costStrips
}

// multiplyStrips computes a product from the operands as they lie, for some columns and some of k at a time.
func (s *stream) multiplyStrips(p *product) {
	kc, nc, step := blocks(p.k), p.n, 1
	if !p.bT {
		step = p.ldb
		if p.m > s.k.tall { // what a strip reads of B is there for the next one
			nc = max(1, closeB/kc/64) * 64
		}
	}
	for j := 0; j < p.n; j += nc {
		for k0 := 0; k0 < p.k; k0 += kc {
			t := &s.strip
			t.kc, t.n, t.floor = min(kc, p.k-k0), min(nc, p.n-j), floorNone
			if k0+kc >= p.k {
				t.floor = p.floor
			}
			s.runStrips(p, j, k0, k0*step)
		}
	}
}

// runStrips computes columns from j on, for k from k0 on, which B has from there on. Strips have as many rows each, or one more.
func (s *stream) runStrips(p *product, j, k0, at int) {
	t, kernel, most := &s.strip, s.k.turned, s.k.turnedRows
	t.ars, t.aks, t.ldb, t.ldc = p.ars, p.aks, p.ldb, p.ldc
	if p.bT {
		t.b = &p.b[j*p.ldb+at]
	} else {
		t.b, kernel, most = &p.b[j+at], s.k.direct, s.k.directRows(p.n)
	}
	strips := over(p.m, most)
	rows, more := p.m/strips, p.m%strips
	t.rows, t.strips = rows+1, more
	if more == 0 {
		t.rows, t.strips = rows, strips
	}
	for i := 0; ; t.rows, t.strips = rows, strips-more {
		t.a, t.c = &p.a[i*p.ars+k0*p.aks], &p.c[i*p.ldc+j]
		switch {
		case p.resume || k0 > 0:
			t.init, t.ldi = t.c, t.ldc
		case p.bias != nil:
			t.init, t.ldi = &p.bias[j], 0
		default:
			t.init, t.ldi = nil, 0
		}
		i += t.rows * t.strips // which the kernel counts down
		kernel(t)
		if i == p.m {
			return
		}
	}
}

// fill sets all of x to v, more and more of it at a time.
func fill(x []float32, v float32) {
	n := min(16, len(x))
	for i := range x[:n] {
		x[i] = v
	}
	for n < len(x) {
		n += copy(x[n:], x[:n])
	}
}

// flipC is how large a transposed C may become: it should stay near.
const flipC = 64 << 10

// multiplyFlipped computes A*B as the transpose of B'*A', some rows of A at a time.
func (s *stream) multiplyFlipped(q *product, strips bool) {
	rows := max(1, flipC/q.n/s.k.nr) * s.k.nr
	for i0 := 0; i0 < q.m; i0 += rows {
		s.flip(q, i0, min(rows, q.m-i0), strips)
	}
}

func (s *stream) flip(q *product, i0, m int, strips bool) {
	f := product{m: q.n, n: m, k: q.k, a: q.b, ars: 1, aks: q.ldb, b: q.a[i0*q.ars:], ldb: q.aks, ldc: m, floor: q.floor}
	inPlace := q.n == 1 && q.ldc == 1
	if inPlace {
		f.c = q.c[i0:]
	} else {
		f.c = grown(&s.flipped, m*q.n)
	}
	if q.bT {
		f.ars, f.aks = q.ldb, 1
	}
	if q.aks == 1 {
		f.ldb, f.bT = q.ars, true
	}
	switch { // the bias goes along the rows here
	case q.bias == nil:
	case strips: // the sums start from memory
		for j, v := range q.bias[:q.n] {
			fill(f.c[j*m:(j+1)*m], v)
		}
		f.resume = true
	default:
		f.starts = q.bias[:q.n]
	}
	s.goWay(&f, way{strips: strips})
	if !inPlace {
		s.transpose(q.c[i0*q.ldc:], q.ldc, f.c, q.n, m)
	}
}
