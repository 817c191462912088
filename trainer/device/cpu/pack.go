package cpu

// packRows copies kc rows of width values, ld apart, to rows of nr values, the rest zero.
func packRows(dst []float32, nr int, src []float32, ld, width, kc int) {
	if width == 32 && nr == 32 {
		for p := range kc {
			*(*[32]float32)(dst[p*32:]) = *(*[32]float32)(src[p*ld:])
		}
		return
	}
	for p := range kc {
		row := dst[p*nr : p*nr+nr]
		n := copy(row[:width], src[p*ld:p*ld+width])
		clear(row[n:])
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
	if j < nr {
		for p := range kc {
			clear(dst[p*nr+j : p*nr+nr])
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
