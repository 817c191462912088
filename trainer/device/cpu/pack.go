package cpu

// linesAhead is how many lines of 16 elements are asked for before they are copied.
const linesAhead = 32

// copyRows copies rows of n elements, ld apart, to rows ds apart.
func (s *stream) copyRows(dst []float32, ds int, src []float32, ld, rows, n int) {
	s.k.pack(&dst[0], ds, s.k.nr, &src[0], ld, rows, n, max(1, 16*linesAhead/n))
}

// packRows copies rows of n values, ld apart, to panels (rows, nr). What is beyond n in the last one is left as it is.
func (s *stream) packRows(dst, src []float32, ld, rows, n int) {
	const together = 512 // columns: the panels that are written to at a time
	nr := s.k.nr
	for j := 0; j < n; j += together {
		w := min(together, n-j)
		s.k.pack(&dst[j*rows], nr, rows*nr, &src[j], ld, rows, w, max(1, 16*linesAhead/w))
	}
}

// packTransposed is packRows for a B stored transposed: dst[p][j] = src[j*ld + p].
func (s *stream) packTransposed(dst, src []float32, ld, width, kc int) {
	nr := s.k.nr
	j := 0
	if s.k.transpose8 != nil && kc >= 8 {
		for ; j+8 <= width; j += 8 {
			n8 := kc / 8
			s.k.transpose8(&dst[j], nr, &src[j*ld], ld, n8)
			for p := n8 * 8; p < kc; p++ {
				for r := j; r < j+8; r++ {
					dst[p*nr+r] = src[r*ld+p]
				}
			}
		}
	}
	for ; j < width; j++ {
		q := j
		for _, v := range src[j*ld : j*ld+kc] {
			dst[q] = v
			q += nr
		}
	}
}

// transpose is dst (cols, rows) = src (rows, cols) transposed.
func (s *stream) transpose(dst, src []float32, rows, cols int) {
	i := 0
	if s.k.transpose8 != nil && cols >= 8 {
		for ; i+8 <= rows; i += 8 {
			n8 := cols / 8
			s.k.transpose8(&dst[i], rows, &src[i*cols], cols, n8)
			for j := n8 * 8; j < cols; j++ {
				for r := i; r < i+8; r++ {
					dst[j*rows+r] = src[r*cols+j]
				}
			}
		}
	}
	for ; i < rows; i++ {
		for j, v := range src[i*cols : (i+1)*cols] {
			dst[j*rows+i] = v
		}
	}
}
