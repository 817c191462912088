package cpu

// linesAhead is how many lines of 16 elements are asked for before they are copied.
const linesAhead = 32

// packRows copies rows of n values, ld apart, to panels (rows, nr). What is beyond n in the last one is left as it is.
func (s *stream) packRows(dst, src []float32, ld, rows, n int) {
	const together = 128 // columns: the panels that are written to at a time; more may be in one set of the cache
	nr := s.k.nr
	for j := 0; j < n; j += together {
		w := min(together, n-j)
		s.k.pack(&dst[j*rows], nr, rows*nr, &src[j], ld, rows, w, max(1, 16*linesAhead/w))
	}
}

// turnAhead is how many elements lie between what is turned and what is asked for, where rows are read to their ends.
const turnAhead = 64

// scatter writes dst[to[j]+i] = src[i*ld+j] for i < rows and all j. What comes next should begin ahead elements after src, or in its rows.
func (s *stream) scatter(dst []float32, to []int32, src []float32, ld, rows, ahead int) {
	for i := 0; i < rows; i += s.k.turns {
		s.k.transpose(&dst[i], &to[0], &src[i*ld], ld, min(s.k.turns, rows-i), len(to), ahead)
	}
}

// packTransposed is packRows for a panel of a B stored transposed: dst[p*nr+j] = src[j*ld+p] for j < width.
func (s *stream) packTransposed(dst, src []float32, ld, width, kc int) {
	s.scatter(dst, s.offsets.get(kc, s.k.nr), src, ld, width, turnAhead)
}

// transpose is dst (cols, rows), its rows ld apart, = src (rows, cols) transposed. It goes down a few columns at a time, which are written
// from end to end: the beginnings of many rows of dst are in few sets of the cache, which would lose them before they are full.
func (s *stream) transpose(dst []float32, ld int, src []float32, rows, cols int) {
	strip, ahead := s.k.turns, s.k.turns*cols
	if rows <= s.k.turns {
		strip, ahead = cols, turnAhead
	}
	to := s.offsets.get(strip, ld)
	for j := 0; j < cols; j += strip {
		n := min(strip, cols-j)
		s.scatter(dst[j*ld:], to[:n], src[j:], cols, rows, ahead)
	}
}
