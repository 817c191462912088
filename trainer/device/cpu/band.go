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
	start  []float32 // what the sums of a row start from (width), lds before that of the next row; nil: zero
	lds    int       // 0: all rows start from the same
	resume bool      // start from what is in c
	floor  float32

	// How the rows are cut into tiles, see spread.
	tiles, rows, more int
}

// spread cuts the rows into tiles of at most mr. Those that do not come out even are spread over all tiles: a tile
// of few rows waits for its sums. So the first more tiles have rows+1, the others rows.
func (g *band) spread(mr int) {
	m := len(g.ro)
	if m <= mr {
		g.tiles, g.rows, g.more = 1, m, 0
		return
	}
	g.tiles = (m + mr - 1) / mr
	g.rows = m / g.tiles
	g.more = m - g.rows*g.tiles
}

// run computes a band tile by tile, after spread.
func (s *stream) run(g *band) {
	t := &s.t
	t.kc, t.a, t.ko, t.b, t.ldb = len(g.ko), &g.a[0], &g.ko[0], &g.b[0], g.ldb
	t.ldc, t.width, t.floor = g.ldc, g.width, g.floor
	s.runTiles(g, 0, g.more, g.rows+1)
	s.runTiles(g, g.more*(g.rows+1), g.tiles-g.more, g.rows)
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
		t.init, t.ldi = &g.start[i*g.lds], g.lds
	default:
		t.init, t.ldi = nil, 0
	}
	if rows == s.k.mr && g.width == s.k.nr {
		s.k.multiply(t)
	} else {
		s.k.edge(t)
	}
}
