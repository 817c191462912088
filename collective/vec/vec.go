// Package vec is the arithmetic of package collective: reductions of one vector into another, and the conversions of
// exact sums. Every function exists in plain Go, which is the oracle and the fallback, and in generated assembly for
// AVX-512 and AVX2; all of them give the same bits.
package vec

import (
	"math"
	"slices"
)

// Set is one instruction set's kernels.
type Set struct {
	name  string
	lanes int // the assembly works on multiples of it; 0: there is none

	addInt32, maxInt32 func(dst, src *int32, n int)
	addFloat32         func(dst, src *float32, n int)
	largest            func(x *float32, n int) uint32
	round              func(dst *int32, x *float32, n int, scale1, scale2 float32)
	addRounded         func(dst, src *int32, x *float32, n int, scale1, scale2 float32)
	unscale            func(dst *float32, sum *int32, n int, quantum float32)
	encodeBF16         func(dst *int32, lo, hi *float32, n int)
	addBF16            func(dst, src *int32, lo, hi *float32, n int)
	decodeBF16         func(lo, hi *float32, src *int32, n int)
	sumBF16            func(lo, hi *float32, src *int32, n int)
	addInt8            func(dst *float32, src *int32, quarter, n int, scale float32)
	decodeInt8         func(dst *float32, src *int32, quarter, n int, scale float32)
	encodeInt8         func(dst *int32, x, rest *float32, quarter, n int, inverse, scale float32)
}

var sets = available() // the best first

// Best is the best set that this processor has.
func Best() *Set { return sets[0] }

// Sets lists all sets that this processor has, the best first.
func Sets() []*Set { return slices.Clone(sets) }

// Name is "avx512", "avx2" or "go".
func (s *Set) Name() string { return s.name }

// whole is how many of n elements the assembly takes.
func (s *Set) whole(n int) int {
	if s.lanes == 0 {
		return 0
	}
	return n - n%s.lanes
}

// AddInt32 adds src to dst, modulo 2^32. In this and the other functions the slices have the same length.
func (s *Set) AddInt32(dst, src []int32) {
	src = src[:len(dst)]
	if n := s.whole(len(dst)); n > 0 {
		s.addInt32(&dst[0], &src[0], n)
		dst, src = dst[n:], src[n:]
	}
	addInt32(dst, src)
}

// MaxInt32 keeps the larger of both in dst.
func (s *Set) MaxInt32(dst, src []int32) {
	src = src[:len(dst)]
	if n := s.whole(len(dst)); n > 0 {
		s.maxInt32(&dst[0], &src[0], n)
		dst, src = dst[n:], src[n:]
	}
	maxInt32(dst, src)
}

// AddFloat32 adds src to dst.
func (s *Set) AddFloat32(dst, src []float32) {
	src = src[:len(dst)]
	if n := s.whole(len(dst)); n > 0 {
		s.addFloat32(&dst[0], &src[0], n)
		dst, src = dst[n:], src[n:]
	}
	addFloat32(dst, src)
}

// Largest is the bit pattern of the largest magnitude in x. Without their sign patterns order like magnitudes;
// infinities and NaNs come last.
func (s *Set) Largest(x []float32) uint32 {
	m := uint32(0)
	if n := s.whole(len(x)); n > 0 {
		m, x = s.largest(&x[0], n), x[n:]
	}
	return max(m, largest(x))
}

// Round writes x * 2^k, rounded to nearest even, to dst, which may be the same memory. k is between -126 and 254, the
// products are at most 2^30 in magnitude, x is finite.
//
// The assembly multiplies in float32, in two steps. That is exact where it matters: going up, a product with a power
// of two is exact short of an overflow, which the limit on the products excludes; going down (k < 0) it is exact unless
// it is subnormal, and then it, as the exact one, rounds to zero.
func (s *Set) Round(dst []int32, x []float32, k int) {
	dst = dst[:len(x)]
	if n := s.whole(len(x)); n > 0 {
		first := min(k, 127)
		s.round(&dst[0], &x[0], n, power(first), power(k-first))
		dst, x = dst[n:], x[n:]
	}
	rounded(dst, x, math.Ldexp(1, k))
}

// AddRounded writes src + what Round makes of x to dst, which may be the memory of either.
func (s *Set) AddRounded(dst, src []int32, x []float32, k int) {
	dst, src = dst[:len(x)], src[:len(x)]
	if n := s.whole(len(x)); n > 0 {
		first := min(k, 127)
		s.addRounded(&dst[0], &src[0], &x[0], n, power(first), power(k-first))
		dst, src, x = dst[n:], src[n:], x[n:]
	}
	addRounded(dst, src, x, math.Ldexp(1, k))
}

// Unscale writes sum * 2^k, rounded once, to dst, which may be the same memory. k is between -1022 and 1022.
//
// The assembly rounds the integer to float32 and then multiplies; the product is exact as long as it is not subnormal,
// so blocks of tiny numbers go the slow way.
func (s *Set) Unscale(dst []float32, sum []int32, k int) {
	dst = dst[:len(sum)]
	if n := s.whole(len(sum)); n > 0 && k >= -126 && k <= 127 {
		s.unscale(&dst[0], &sum[0], n, power(k))
		dst, sum = dst[n:], sum[n:]
	}
	unscale(dst, sum, math.Ldexp(1, k))
}

// power is 2^k for k from -126 to 127.
func power(k int) float32 { return math.Float32frombits(uint32(k+127) << 23) }
