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
	t, mr := &s.t, s.k.mr
	t.kc, t.a, t.ko, t.b, t.ldb = len(g.ko), &g.a[0], &g.ko[0], &g.b[0], g.ldb
	t.ldc, t.width, t.floor = g.ldc, g.width, g.floor
	m := len(g.ro)
	tiles := (m + mr - 1) / mr
	rows, more := m/tiles, m%tiles
	for i := 0; i < m; i += t.rows {
		t.rows = rows
		if more > 0 {
			t.rows++
			more--
		}
		t.ro, t.c = &g.ro[i], &g.c[i*g.ldc]
		switch {
		case g.resume:
			t.init, t.ldi = t.c, t.ldc
		case g.start != nil:
			t.init, t.ldi = &g.start[0], 0
		default:
			t.init, t.ldi = &s.zeros[0], 0
		}
		if t.rows == mr && t.width == s.k.nr {
			s.k.multiply(t)
		} else {
			s.k.edge(t)
		}
	}
}
