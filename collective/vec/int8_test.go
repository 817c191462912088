package vec

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestInt8(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set, rng *rand.Rand, n int) {
		x := make([]float32, n)
		size := math.Ldexp(1, rng.IntN(200)-90)
		for i := range x {
			x[i] = float32(size * rng.NormFloat64())
			if rng.IntN(3) == 0 {
				x[i] = float32(size * (float64(rng.IntN(9)) + 0.5)) // halves, to be rounded to even
			}
		}
		inverse, scale := Scale(s.Largest(x))
		if rng.IntN(3) == 0 && n > 0 {
			inverse, scale = float32(1/size), float32(size)
			for i := range x {
				x[i] = float32(size * (float64(rng.IntN(253)) - 126.5))
			}
		}
		words, want := make([]int32, Quarter(n)), make([]int32, Quarter(n))
		rest, restWant := make([]float32, n), make([]float32, n)
		s.EncodeInt8(words, x, rest, inverse, scale)
		plain.EncodeInt8(want, x, restWant, inverse, scale)
		if !slices.Equal(words, want) || !slices.Equal(patterns(rest), patterns(restWant)) {
			t.Fatalf("encoding %v times %v: %x, %v; want %x, %v", x, inverse, words, rest, want, restWant)
		}
		for i, r := range rest {
			if math.Abs(float64(r)) > float64(scale)/2*1.001 {
				t.Fatalf("element %d, %v: %v is left, of steps of %v", i, x[i], r, scale)
			}
		}
		a, b := make([]float32, n), make([]float32, n)
		s.DecodeInt8(a, words, scale)
		plain.DecodeInt8(b, words, scale)
		if !slices.Equal(patterns(a), patterns(b)) {
			t.Fatalf("decoding %x: %v, want %v", words, a, b)
		}
		for i := range a {
			if x[i] != a[i]+rest[i] && math.Abs(float64(x[i]-a[i]-rest[i])) > 1e-6*math.Abs(float64(x[i])) {
				t.Fatalf("%v became %v and %v", x[i], a[i], rest[i])
			}
		}
		s.AddInt8(a, words, scale/3)
		plain.AddInt8(b, words, scale/3)
		if !slices.Equal(patterns(a), patterns(b)) {
			t.Fatalf("adding %x: %v, want %v", words, a, b)
		}
	})
}

func TestScale(t *testing.T) {
	for _, m := range []float32{0, 1e-45, 1e-38, 1e-30, 0x1p-100, 1, 127, 3e38, math.MaxFloat32} {
		inverse, scale := Scale(math.Float32bits(m))
		if inverse == 0 && scale == 0 && m < 1e-30 {
			continue
		}
		if q := m * inverse; q < 126.99 || q > 127.01 || math.Abs(float64(scale)*127/float64(m)-1) > 1e-6 {
			t.Errorf("%v: %v, %v", m, inverse, scale)
		}
	}
	for _, m := range []float32{float32(math.Inf(1)), float32(math.NaN())} {
		if inverse, scale := Scale(math.Float32bits(m)); inverse != 0 || scale == scale {
			t.Errorf("%v: %v, %v", m, inverse, scale)
		}
	}
}
