package vec

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

var plain = &Set{name: "go"}

// sameBF16 takes all NaNs for one.
func sameBF16(a, b []int32) bool {
	canonical := func(u uint32) uint32 {
		if u&^sign > infinity {
			return 0x7fc00000
		}
		return u
	}
	return slices.EqualFunc(a, b, func(x, y int32) bool {
		return canonical(uint32(x)<<16) == canonical(uint32(y)<<16) && canonical(uint32(x)&upper) == canonical(uint32(y)&upper)
	})
}

func TestBF16(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set, rng *rand.Rand, n int) {
		dst, src := ints(rng, n), ints(rng, n)
		want := slices.Clone(dst)
		s.AddBF16(dst, src)
		plain.AddBF16(want, src)
		if !sameBF16(dst, want) {
			t.Fatalf("add of %d: %x, want %x", n, dst, want)
		}
		for range 10 {
			x, rest := anyFloats(rng, n), anyFloats(rng, n)
			next, nextWant := make([]float32, n), make([]float32, n)
			got, want := make([]int32, Words(n)), make([]int32, Words(n))
			s.EncodeBF16(got, x, rest, next)
			plain.EncodeBF16(want, x, rest, nextWant)
			if !slices.Equal(got, want) || !slices.Equal(patterns(next), patterns(nextWant)) {
				t.Fatalf("encoding %v: %x, %v; want %x, %v", x, got, next, want, nextWant)
			}
			a, b := make([]float32, n), make([]float32, n)
			s.DecodeBF16(a, got)
			plain.DecodeBF16(b, got)
			if !slices.Equal(patterns(a), patterns(b)) {
				t.Fatalf("decoding %x: %v, want %v", got, a, b)
			}
		}
	})
}

// What is sent and what is left are together what was there, exactly; and no bf16 is nearer.
func TestBF16LosesNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 2000 {
		x := []float32{float32(math.Ldexp(rng.Float64()-0.5, rng.IntN(60)-30)), 1, -3.140625}
		rest, words, back := make([]float32, 3), make([]int32, Words(3)), make([]float32, 3)
		Best().EncodeBF16(words, x, rest, rest)
		Best().DecodeBF16(back, words)
		for i := range x {
			if back[i]+rest[i] != x[i] || math.Abs(float64(rest[i])) > math.Abs(float64(x[i]))/256 {
				t.Fatalf("%v became %v and %v", x[i], back[i], rest[i])
			}
		}
	}
}
