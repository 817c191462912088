package cpu

// band is a block of rows that meets one panel of B: columns [0, width) of
//
//	c[r][j] = max(floor, start + sum over p of a[ro[r]+ko[p]] * b[p*ldb+j])
type band struct {
	a      []float32
	ro, ko []int32
	b      []float32
	ldb    int // unless the kernels mask, b has nr columns whatever the width
	c      []float32
	ldc    int
	width  int       // at most nr
	start  []float32 // the start of each column's sums (width); nil: zero
	resume bool      // start from what is in c
	floor  float32
}

// run computes a band tile by tile. Rows that do not come out even are spread over all tiles: a tile of few
// rows waits for its sums.
func (s *stream) run(g *band) {
	t, m := &s.t, len(g.ro)
	t.kc, t.a, t.ko, t.b, t.ldb = len(g.ko), &g.a[0], &g.ko[0], &g.b[0], g.ldb
	t.ldc, t.width, t.floor = g.ldc, g.width, g.floor
	tiles := (m + s.k.mr - 1) / s.k.mr
	more := m % tiles
	s.runTiles(g, 0, more, m/tiles+1)
	s.runTiles(g, more*(m/tiles+1), tiles-more, m/tiles)
}

// runTiles computes tiles of so many rows each, from row i on.
func (s *stream) runTiles(g *band, i, tiles, rows int) {
	if tiles == 0 {
		return
	}
	t := &s.t
	t.tiles, t.rows, t.ro, t.c = tiles, rows, &g.ro[i], &g.c[i*g.ldc]
	switch {
	case g.resume:
		t.init, t.ldi = t.c, t.ldc
	case g.start != nil:
		t.init, t.ldi = &g.start[0], 0
	default:
		t.init, t.ldi = &s.zeros[0], 0
	}
	if rows == s.k.mr && g.width == s.k.nr {
		s.k.multiply(t)
	} else {
		s.k.edge(t)
	}
}
