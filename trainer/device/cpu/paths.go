package cpu

// There are two ways to compute a product: in tiles (multiplyTiles), or in strips where few rows meet a B stored
// transposed (multiplyStrips). Either also computes A*B as the transpose of B'*A'. And columns that fill no
// register may go another way than the others. All give the same bits, since each result is the same chain: the choice
// is free, and made by estimates. What they come to, with AVX-512:
//
//	NN, TN  N of a register and more               tiles; B as it lies where rows are few or B is small, else packed
//	NT      M of some 24 and more                  tiles; B packed
//	NT      fewer rows                             strips
//	NN      N of a few, or few columns left over   flipped, strips: A is the B that is stored transposed
//	any     N fills registers worse than M         flipped, tiles
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

// slot spreads shapes over so many slots.
func (f *form) slot(slots int) int {
	h := uint64(f.m)<<42 ^ uint64(f.n)<<21 ^ uint64(f.k)
	if f.aT {
		h = ^h
	}
	if f.bT {
		h ^= 1 << 63
	}
	return int(h * 0x9e3779b97f4a7c15 >> 40 % uint64(slots))
}

// multiply computes a product on the path that seems best.
func (s *stream) multiply(q *product) {
	f := form{m: q.m, n: q.n, k: q.k, aT: q.aks != 1, bT: q.bT, resume: q.resume}
	p := &s.chosen[f.slot(len(s.chosen))]
	if p.form != f {
		p.form, p.path = f, s.choose(f)
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
	cost = s.costOfTiles(f)
	try := func(other way, c int) {
		if c < cost {
			w, cost = other, c
		}
	}
	if s.stripsDo(f) {
		try(way{strips: true}, s.costOfStrips(f))
	}
	if f.resume { // what is in C would have to be turned first
		return w, cost
	}
	t := f.turned()
	turning := costFlip + f.m*f.n
	if f.n == 1 {
		turning = costFlip / 4
	}
	try(way{flipped: true}, s.costOfTiles(t)+turning)
	if s.stripsDo(t) {
		try(way{flipped: true, strips: true}, s.costOfStrips(t)+turning)
	}
	return w, cost
}

// Costs are in multiplications of a register, of which a processor does two in each cycle. They were fitted to times of
// 400 shapes up to 300 in each form on Zen 5: the way chosen was 0.7% slower than the best one, on average.
const (
	costTile    = 100 // to begin and to end a tile
	costColumns = 100 // to begin with other columns
	costGroup   = 80  // to begin and to end a register's worth of columns in a strip
	costRest    = 70  // of k that fill no register there
	costFlip    = 200 // to flip a product, besides turning C
)

// costOfTiles is that of multiplications, or of waiting for sums; and of packing a B stored transposed.
func (s *stream) costOfTiles(f form) int {
	mr, lanes := s.k.mr, s.k.turns
	tiles := (f.m + mr - 1) / mr
	nv := s.k.nr / lanes
	if !f.bT {
		nv = s.k.widest(f.m)
	}
	columns := func(nv int) int {
		busy := f.m * nv
		if nv == 1 {
			busy += f.m / 8 // each element of A is loaded for one multiplication
		}
		return f.k*max(busy, 8*tiles) + tiles*costTile + costColumns
	}
	cost := f.n / (nv * lanes) * columns(nv)
	if rest := f.n % (nv * lanes); rest > 0 {
		cost += columns((rest + lanes - 1) / lanes)
	}
	if f.bT {
		cost += f.n * f.k
	}
	return cost
}

// stripsDo tells whether a product can be computed in strips; more than two of them would turn B too often.
func (s *stream) stripsDo(f form) bool {
	return f.bT && f.m <= 2*s.k.turnedRows
}

// costOfStrips is that of multiplications and of turning squares of B.
func (s *stream) costOfStrips(f form) int {
	lanes := s.k.turns
	strips := (f.m + s.k.turnedRows - 1) / s.k.turnedRows
	group := (f.k + lanes - 1) / lanes * lanes * (4*strips + f.m*3/4)
	group += strips * costGroup
	if f.k%lanes > 0 {
		group += strips * costRest
	}
	return (f.n+lanes-1)/lanes*group + strips*costColumns
}

// multiplyStrips computes a product of few rows whose B is stored transposed.
func (s *stream) multiplyStrips(p *product) {
	strips := (p.m + s.k.turnedRows - 1) / s.k.turnedRows
	kc, t := blocks(p.k), &s.strip
	for i := range strips {
		i0, i1 := i*p.m/strips, (i+1)*p.m/strips
		for k0 := 0; k0 < p.k; k0 += kc {
			kn := min(kc, p.k-k0)
			*t = strip{kc: kn, rows: i1 - i0, n: p.n, a: &p.a[i0*p.ars+k0*p.aks], ars: p.ars, aks: p.aks,
				b: &p.b[k0], ldb: p.ldb, c: &p.c[i0*p.ldc], ldc: p.ldc, floor: floorNone}
			switch {
			case p.resume || k0 > 0:
				t.init, t.ldi = t.c, t.ldc
			case p.bias != nil:
				t.init = &p.bias[0]
			}
			if k0+kn == p.k {
				t.floor = p.floor
			}
			s.k.turned(t)
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
	if q.bias != nil { // the bias goes along the rows here, so the sums start from memory
		for j, v := range q.bias {
			fill(f.c[j*m:(j+1)*m], v)
		}
		f.resume = true
	}
	s.goWay(&f, way{strips: strips})
	if !inPlace {
		s.transpose(q.c[i0*q.ldc:], q.ldc, f.c, q.n, m)
	}
}
