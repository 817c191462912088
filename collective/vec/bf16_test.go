package vec

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

var plain = &Set{name: "go"}

func TestBF16(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set, rng *rand.Rand, n int) {
		for range 10 {
			x, src := anyFloats(rng, n), ints(rng, Words(n))
			got, want := make([]int32, Words(n)), make([]int32, Words(n))
			s.EncodeBF16(got, x)
			plain.EncodeBF16(want, x)
			if !slices.Equal(got, want) {
				t.Fatalf("encoding %v: %x; want %x", x, got, want)
			}
			a, b := make([]float32, n), make([]float32, n)
			s.DecodeBF16(a, got)
			plain.DecodeBF16(b, got)
			if !slices.Equal(patterns(a), patterns(b)) {
				t.Fatalf("decoding %x: %v, want %v", got, a, b)
			}
			s.SumBF16(a, src)
			plain.SumBF16(b, src)
			if !slices.Equal(patterns(a), patterns(b)) {
				t.Fatalf("summing %x: %v, want %v", src, a, b)
			}
			s.AddBF16(got, src, x)
			plain.AddBF16(want, src, x)
			if !slices.Equal(got, want) {
				t.Fatalf("adding %v to %x: %x; want %x", x, src, got, want)
			}
		}
	})
}

// No bf16 is nearer, and of two that are as near it is the even one.
func TestBF16RoundsToNearestEven(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 2000 {
		x := []float32{float32(math.Ldexp(rng.Float64()-0.5, rng.IntN(60)-30)), 1, -3.140625}
		words, back := make([]int32, Words(3)), make([]float32, 3)
		Best().EncodeBF16(words, x)
		Best().DecodeBF16(back, words)
		for i := range x {
			if math.Abs(float64(back[i]-x[i])) > math.Abs(float64(x[i]))/256 {
				t.Fatalf("%v became %v", x[i], back[i])
			}
		}
	}
	for x, want := range map[float32]float32{1 + 1./256: 1, 1 + 3./256: 1 + 4./256, 1 + 1./250: 1 + 2./256, -1 - 1./256: -1} {
		words, back := make([]int32, 1), make([]float32, 1)
		Best().EncodeBF16(words, []float32{x})
		if Best().DecodeBF16(back, words); back[0] != want {
			t.Errorf("%v became %v, want %v", x, back[0], want)
		}
	}
}
