package vec

import "math"

// bf16 is the upper half of a float32: 8 significant bits. Two of them lie in a word, and which two is chosen so that
// no lane of a vector register need cross another: word i of a vector of n elements holds element i in its lower half
// and element i+Words(n) in its upper half; where n is odd the last upper half is zero.

// Words is how many words n bf16 take.
func Words(n int) int { return (n + 1) / 2 }

// AddBF16 adds both halves of each word of src to those of dst, each rounded to nearest even.
func (s *Set) AddBF16(dst, src []int32) {
	src = src[:len(dst)]
	if n := s.whole(len(dst)); n > 0 {
		s.addBF16(&dst[0], &src[0], n)
		dst, src = dst[n:], src[n:]
	}
	for i, v := range src {
		d := uint32(dst[i])
		lo := toBF16(fromBF16(d<<16) + fromBF16(uint32(v)<<16))
		hi := toBF16(fromBF16(d&upper) + fromBF16(uint32(v)&upper))
		dst[i] = int32(lo>>16 | hi)
	}
}

// EncodeBF16 rounds x + rest to nearest even into dst, of Words(len(x)) words, and writes what the rounding took,
// exactly, to next; nothing where the result is infinite or no number.
func (s *Set) EncodeBF16(dst []int32, x, rest, next []float32) {
	h := Words(len(x))
	dst, rest, next = dst[:h], rest[:len(x)], next[:len(x)]
	lo, hi, restLo, restHi, nextLo, nextHi := x[:h], x[h:], rest[:h], rest[h:], next[:h], next[h:]
	n := s.whole(len(hi))
	if n > 0 {
		s.encodeBF16(&dst[0], &lo[0], &hi[0], &restLo[0], &restHi[0], &nextLo[0], &nextHi[0], n)
	}
	for i := n; i < h; i++ {
		word := encode(lo[i], restLo[i], &nextLo[i]) >> 16
		if i < len(hi) {
			word |= encode(hi[i], restHi[i], &nextHi[i])
		}
		dst[i] = int32(word)
	}
}

// DecodeBF16 writes the elements of src, of Words(len(dst)) words, to dst.
func (s *Set) DecodeBF16(dst []float32, src []int32) {
	h := Words(len(dst))
	src = src[:h]
	lo, hi := dst[:h], dst[h:]
	n := s.whole(len(hi))
	if n > 0 {
		s.decodeBF16(&lo[0], &hi[0], &src[0], n)
	}
	for i := n; i < h; i++ {
		lo[i] = fromBF16(uint32(src[i]) << 16)
		if i < len(hi) {
			hi[i] = fromBF16(uint32(src[i]) & upper)
		}
	}
}

const (
	upper    = 0xffff0000
	infinity = 0x7f800000
	sign     = 1 << 31
)

func fromBF16(u uint32) float32 { return math.Float32frombits(u) }

// toBF16 is the pattern of the nearest bf16, in the upper half.
func toBF16(v float32) uint32 {
	u := math.Float32bits(v)
	if u&^sign > infinity {
		return 0x7fc00000 // rounding might carry into the sign
	}
	return (u + 0x7fff + u>>16&1) & upper
}

func encode(x, rest float32, next *float32) uint32 {
	v := x + rest
	u := toBF16(v)
	if *next = v - fromBF16(u); u&^sign >= infinity {
		*next = 0
	}
	return u
}
