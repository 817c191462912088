package vec

import "math"

// bf16 is the upper half of a float32: 8 significant bits. Two of them lie in a word, and which two is chosen so that
// no lane of a vector register need cross another: word i of a vector of n elements holds element i in its lower half
// and element i+Words(n) in its upper half; where n is odd the last upper half is zero. So words may also lie in the first
// half of the memory of the elements that they are made of, or that are made of them: word i replaces element i.

// Words is how many words n bf16 take.
func Words(n int) int { return (n + 1) / 2 }

// EncodeBF16 rounds x to nearest even into dst, of Words(len(x)) words, which may begin where x does.
func (s *Set) EncodeBF16(dst []int32, x []float32) {
	h := Words(len(x))
	dst = dst[:h]
	lo, hi := x[:h], x[h:]
	n := s.whole(len(hi))
	if n > 0 {
		s.encodeBF16(&dst[0], &lo[0], &hi[0], n)
	}
	for i := n; i < h; i++ {
		word := toBF16(lo[i]) >> 16
		if i < len(hi) {
			word |= toBF16(hi[i])
		}
		dst[i] = int32(word)
	}
}

// AddBF16 adds x to the elements of src and rounds the sums to nearest even into dst, which may begin where either does.
func (s *Set) AddBF16(dst, src []int32, x []float32) {
	h := Words(len(x))
	dst, src = dst[:h], src[:h]
	lo, hi := x[:h], x[h:]
	n := s.whole(len(hi))
	if n > 0 {
		s.addBF16(&dst[0], &src[0], &lo[0], &hi[0], n)
	}
	for i := n; i < h; i++ {
		v := uint32(src[i])
		word := toBF16(fromBF16(v<<16)+lo[i]) >> 16
		if i < len(hi) {
			word |= toBF16(fromBF16(v&upper) + hi[i])
		}
		dst[i] = int32(word)
	}
}

// DecodeBF16 writes the elements of src, of Words(len(dst)) words, to dst, which may begin where src does.
func (s *Set) DecodeBF16(dst []float32, src []int32) {
	h := Words(len(dst))
	src = src[:h]
	lo, hi := dst[:h], dst[h:]
	n := s.whole(len(hi))
	if n > 0 {
		s.decodeBF16(&lo[0], &hi[0], &src[0], n)
	}
	for i := n; i < h; i++ {
		v := uint32(src[i])
		lo[i] = fromBF16(v << 16)
		if i < len(hi) {
			hi[i] = fromBF16(v & upper)
		}
	}
}

// SumBF16 adds the elements of src, of Words(len(dst)) words, to dst.
func (s *Set) SumBF16(dst []float32, src []int32) {
	h := Words(len(dst))
	src = src[:h]
	lo, hi := dst[:h], dst[h:]
	n := s.whole(len(hi))
	if n > 0 {
		s.sumBF16(&lo[0], &hi[0], &src[0], n)
	}
	for i := n; i < h; i++ {
		v := uint32(src[i])
		lo[i] += fromBF16(v << 16)
		if i < len(hi) {
			hi[i] += fromBF16(v & upper)
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
