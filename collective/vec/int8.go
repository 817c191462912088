package vec

import "math"

// int8 with a scale: n elements are n integers from -127 to 127, times one float32. Four of them lie in a word; which four
// is chosen so that no lane of a vector register need cross another: byte j of word i is element i + j*Quarter(n), and zero
// where there is none.

// Quarter is how many words n int8 take.
func Quarter(n int) int { return (n + 3) / 4 }

// smallest is the least magnitude that is worth a scale: its inverse must be a float32.
const smallest = 0x1p-100

// Scale is what to multiply elements of up to the magnitude of the pattern m by to get integers of up to 127, and what to
// multiply these by. Both are zero where all is too small; the second is NaN where m is infinite or none.
func Scale(m uint32) (inverse, scale float32) {
	switch v := math.Float32frombits(m); {
	case m >= infinity:
		return 0, math.Float32frombits(0x7fc00000)
	case v < smallest:
		return 0, 0
	default:
		return 127 / v, v / 127
	}
}

// EncodeInt8 rounds x * inverse to nearest even into dst, of Quarter(len(x)) words, and writes what that took of x, times
// scale, to rest. Both are those of Scale, finite. dst is none of the memory of x; rest may be x.
func (s *Set) EncodeInt8(dst []int32, x, rest []float32, inverse, scale float32) {
	h := Quarter(len(x))
	dst, rest = dst[:h], rest[:len(x)]
	n := s.whole(max(0, len(x)-3*h)) // words of which all four are there
	if n > 0 {
		s.encodeInt8(&dst[0], &x[0], &rest[0], h, n, inverse, scale)
	}
	for i := n; i < h; i++ {
		word := uint32(0)
		for j, k := 0, i; k < len(x); j, k = j+1, k+h {
			q := int32(math.RoundToEven(float64(x[k] * inverse)))
			rest[k] = x[k] - float32(float32(q)*scale) // two roundings: never fused
			word |= uint32(q) & 0xff << (8 * j)
		}
		dst[i] = int32(word)
	}
}

// AddInt8 adds the elements of src, of Quarter(len(dst)) words, times scale, to dst.
func (s *Set) AddInt8(dst []float32, src []int32, scale float32) {
	h := Quarter(len(dst))
	src = src[:h]
	n := s.whole(max(0, len(dst)-3*h))
	if n > 0 {
		s.addInt8(&dst[0], &src[0], h, n, scale)
	}
	for i := n; i < h; i++ {
		for j, k := 0, i; k < len(dst); j, k = j+1, k+h {
			dst[k] += float32(float32(int8(src[i]>>(8*j))) * scale)
		}
	}
}

// DecodeInt8 writes the elements of src, of Quarter(len(dst)) words, times scale, to dst, which is none of its memory.
func (s *Set) DecodeInt8(dst []float32, src []int32, scale float32) {
	h := Quarter(len(dst))
	src = src[:h]
	n := s.whole(max(0, len(dst)-3*h))
	if n > 0 {
		s.decodeInt8(&dst[0], &src[0], h, n, scale)
	}
	for i := n; i < h; i++ {
		for j, k := 0, i; k < len(dst); j, k = j+1, k+h {
			dst[k] = float32(int8(src[i]>>(8*j))) * scale
		}
	}
}
