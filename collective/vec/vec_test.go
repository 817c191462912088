package vec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// lengths around every border of the loops.
var lengths = []int{0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 200, 1031}

func ints(rng *rand.Rand, n int) []int32 {
	x := make([]int32, n)
	for i := range x {
		x[i] = int32(rng.Uint32())
	}
	return x
}

// anyFloats is any pattern at all: subnormals, infinities, NaNs.
func anyFloats(rng *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		if x[i] = math.Float32frombits(rng.Uint32()); rng.IntN(4) == 0 {
			x[i] = float32(rng.IntN(5) - 2)
		}
	}
	return x
}

func patterns(x []float32) []uint32 {
	out := make([]uint32, len(x))
	for i, v := range x {
		if out[i] = math.Float32bits(v); v != v {
			out[i] = 0x7fc00000 // which NaN is the compiler's choice
		}
	}
	return out
}

// eachSet compares every set with plain Go on every length, at any alignment.
func eachSet(t *testing.T, f func(t *testing.T, s *Set, rng *rand.Rand, n int)) {
	for _, s := range Sets() {
		t.Run(s.Name(), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			for range 3 {
				for _, n := range lengths {
					f(t, s, rng, n)
				}
			}
		})
	}
}

func TestReductions(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set, rng *rand.Rand, n int) {
		at := rng.IntN(5)
		for name, f := range map[string][2]func(dst, src []int32){
			"add": {s.AddInt32, addInt32}, "max": {s.MaxInt32, maxInt32},
		} {
			dst, src := ints(rng, at+n+3), ints(rng, n)
			want := slices.Clone(dst)
			f[0](dst[at:at+n], src)
			f[1](want[at:at+n], src)
			if !slices.Equal(dst, want) {
				t.Fatalf("%s of %d at %d: %v, want %v", name, n, at, dst, want)
			}
		}
		dst, src := anyFloats(rng, at+n+3), anyFloats(rng, n)
		want := slices.Clone(dst)
		s.AddFloat32(dst[at:at+n], src)
		addFloat32(want[at:at+n], src)
		if !slices.Equal(patterns(dst), patterns(want)) {
			t.Fatalf("add of %d at %d: %v, want %v", n, at, dst, want)
		}
	})
}

func TestLargest(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set, rng *rand.Rand, n int) {
		x := anyFloats(rng, n)
		if got, want := s.Largest(x), largest(x); got != want {
			t.Fatalf("%d: %#x, want %#x", n, got, want)
		}
	})
}

// Every scale that package collective can ask for, with magnitudes from far below the quantum to the limit.
func TestAddRounded(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set, rng *rand.Rand, n int) {
		for k := -114; k <= 179; k++ {
			x := make([]float32, n)
			for i := range x {
				x[i] = float32(math.Ldexp(2*rng.Float64()-1, 30-k-rng.IntN(40)))
				switch rng.IntN(6) {
				case 0: // halves, to be rounded to even
					x[i] = float32(math.Ldexp(float64(rng.IntN(4000)-2000)+0.5, -k))
				case 1:
					x[i] = float32(math.Copysign(math.Ldexp(1, min(30-k, 127)), float64(rng.IntN(2))-0.5))
				case 2:
					x[i] = float32(math.Copysign(0, -1))
				case 3:
					if k >= 0 {
						x[i] = math.Float32frombits(uint32(rng.IntN(1 << 20))) // subnormal
					}
				}
				if math.Abs(math.Ldexp(float64(x[i]), k)) > 1<<30 {
					x[i] = 0
				}
			}
			sum := ints(rng, n)
			want := slices.Clone(sum)
			s.AddRounded(sum, sum, x, k)
			addRounded(want, want, x, math.Ldexp(1, k))
			if !slices.Equal(sum, want) {
				t.Fatalf("2^%d of %v: %v, want %v", k, x, sum, want)
			}
			s.Round(sum, x, k)
			rounded(want, x, math.Ldexp(1, k))
			if !slices.Equal(sum, want) {
				t.Fatalf("2^%d of %v: %v, want %v", k, x, sum, want)
			}
		}
	})
}

func TestUnscale(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set, rng *rand.Rand, n int) {
		for k := -190; k <= 130; k++ {
			sum, dst, want := ints(rng, n), make([]float32, n), make([]float32, n)
			for i := range sum {
				sum[i] >>= rng.IntN(32)
			}
			s.Unscale(dst, sum, k)
			unscale(want, sum, math.Ldexp(1, k))
			if !slices.Equal(patterns(dst), patterns(want)) {
				t.Fatalf("2^%d of %v: %v, want %v", k, sum, dst, want)
			}
		}
	})
}

func BenchmarkKernels(b *testing.B) {
	const n = 64 << 10 // words: in cache
	x, y, f, g := make([]int32, n), make([]int32, n), make([]float32, n), make([]float32, n)
	for _, s := range Sets() {
		for name, do := range map[string]func(){
			"AddInt32": func() { s.AddInt32(x, y) }, "AddFloat32": func() { s.AddFloat32(f, g) }, "MaxInt32": func() { s.MaxInt32(x, y) },
			"Largest": func() { s.Largest(f) }, "Round": func() { s.Round(x, f, 3) }, "AddRounded": func() { s.AddRounded(x, y, f, 3) },
			"Unscale":    func() { s.Unscale(f, x, -3) },
			"EncodeBF16": func() { s.EncodeBF16(x[:n/2], f) }, "AddBF16": func() { s.AddBF16(x[:n/2], y[:n/2], f) }, "DecodeBF16": func() { s.DecodeBF16(f, y[:n/2]) },
			"EncodeInt8": func() { s.EncodeInt8(x[:n/4], f, g, 1, 1) }, "AddInt8": func() { s.AddInt8(f, y[:n/4], 1) }, "DecodeInt8": func() { s.DecodeInt8(f, y[:n/4], 1) },
		} {
			b.Run(fmt.Sprintf("%s/%s", name, s.Name()), func(b *testing.B) {
				b.SetBytes(4 * n)
				for b.Loop() {
					do()
				}
			})
		}
	}
}
