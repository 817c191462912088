package collective

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

func newExps(n int) []int32 {
	exps := make([]int32, n)
	for i := range exps {
		exps[i] = ZeroBlock
	}
	return exps
}

// randomGrads mixes magnitudes over the whole range of float32, subnormals and zeros.
func randomGrads(seed uint64, shards, n int) [][]float32 {
	rng := rand.New(rand.NewPCG(seed, 5))
	out := make([][]float32, shards)
	for s := range out {
		out[s] = make([]float32, n)
		for i := range out[s] {
			switch rng.IntN(8) {
			case 0:
			case 1: // any finite pattern
				x := math.Float32frombits(rng.Uint32() &^ (1 << 30))
				out[s][i] = x
			case 2: // a power of two
				out[s][i] = float32(math.Ldexp(1, rng.IntN(20)-10))
			default:
				out[s][i] = float32(rng.NormFloat64() * 1e-3)
			}
		}
	}
	return out
}

func exactSum(e Exact, grads [][]float32) (sum, exps []int32, value []float32) {
	n := len(grads[0])
	exps, sum, value = newExps(e.Blocks(n)), make([]int32, n), make([]float32, n)
	for _, g := range grads {
		e.Exponents(exps, g)
	}
	s := &ExactSum{Exact: e, Exps: exps, Parts: grads}
	s.encode(nil, sum, nil, 0)
	s.decode(nil, value, sum, 0)
	return sum, exps, value
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// Any order, and any split over ranks that add their parts and then each other's sums, gives the same bits.
func TestExactDoesNotDependOnOrder(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		e := Exact{BlockSize: 1 + rng.IntN(40), Shards: 1 + rng.IntN(20)}
		n := rng.IntN(200)
		grads := randomGrads(seed, e.Shards, n)
		_, exps, want := exactSum(e, grads)
		for range 5 {
			rng.Shuffle(len(grads), func(i, k int) { grads[i], grads[k] = grads[k], grads[i] })
			world := 1 + rng.IntN(e.Shards)
			agreed, total := newExps(e.Blocks(n)), make([]int32, n)
			parts := make([][]int32, world)
			for r := range world { // what the ranks' all-reduce of maxima does
				mine := newExps(e.Blocks(n))
				for s := r; s < e.Shards; s += world {
					e.Exponents(mine, grads[s])
				}
				kernels.MaxInt32(agreed, mine)
			}
			if !slices.Equal(agreed, exps) {
				t.Fatalf("exponents %v, want %v", agreed, exps)
			}
			for r := range world {
				parts[r] = make([]int32, n)
				s := &ExactSum{Exact: e, Exps: agreed}
				for i := r; i < e.Shards; i += world {
					s.Parts = append(s.Parts, grads[i])
				}
				s.encode(nil, parts[r], nil, 0)
			}
			for _, p := range parts {
				kernels.AddInt32(total, p)
			}
			got := make([]float32, n)
			(&ExactSum{Exact: e, Exps: agreed}).decode(nil, got, total, 0)
			if !sameBits(got, want) {
				t.Fatalf("seed %d, world %d: other bits", seed, world)
			}
		}
	}
}

// The documented bound, against sums of unlimited precision; and no sum leaves the range that rules out overflow.
func TestExactErrorBound(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 2))
		e := Exact{BlockSize: 1 + rng.IntN(40), Shards: 1 + rng.IntN(40)}
		n := 1 + rng.IntN(150)
		grads := randomGrads(seed, e.Shards, n)
		sum, exps, value := exactSum(e, grads)
		for b, exp := range exps {
			lo, hi := b*e.BlockSize, min(n, (b+1)*e.BlockSize)
			largest := 0.0
			for _, g := range grads {
				for _, x := range g[lo:hi] {
					largest = max(largest, math.Abs(float64(x)))
				}
			}
			if exp == ZeroBlock {
				if largest != 0 || slices.Max(value[lo:hi]) != 0 {
					t.Fatalf("block %d is not zero", b)
				}
				continue
			}
			if limit := math.Ldexp(1, int(exp)); largest > limit || largest <= limit/2 {
				t.Fatalf("exponent %d for a largest magnitude of %g", exp, largest)
			}
			quantum := math.Ldexp(1, int(exp)-e.Width())
			for i := lo; i < hi; i++ {
				if s := int64(sum[i]); s > 1<<30 || s < -1<<30 {
					t.Fatalf("sum %d is beyond 2^30", s)
				}
				truth := new(big.Float).SetPrec(600)
				for _, g := range grads {
					truth.Add(truth, new(big.Float).SetFloat64(float64(g[i])))
				}
				before, _ := new(big.Float).Sub(truth, new(big.Float).SetFloat64(float64(sum[i])*quantum)).Float64()
				if bound := float64(e.Shards) * quantum / 2; math.Abs(before) > bound {
					t.Fatalf("off by %g, bound %g", before, bound)
				}
				if value[i] != float32(float64(sum[i])*quantum) {
					t.Fatal("value is not the sum, rounded once")
				}
			}
		}
	}
}

func TestExactRoundsToNearestEven(t *testing.T) {
	e := Exact{BlockSize: 4, Shards: 1} // quantum 2^-30 of the largest power
	for _, c := range []struct {
		halves float32 // in half quanta
		want   int32
	}{{1, 0}, {3, 2}, {5, 2}, {-1, 0}, {-3, -2}, {7, 4}, {2, 1}, {-2, -1}, {0, 0}} {
		grad := []float32{1, c.halves * float32(math.Ldexp(1, -31))}
		sum, exps := make([]int32, 2), newExps(1)
		e.Exponents(exps, grad)
		(&ExactSum{Exact: e, Exps: exps, Parts: [][]float32{grad}}).encode(nil, sum, nil, 0)
		if exps[0] != 0 || sum[0] != 1<<30 || sum[1] != c.want {
			t.Errorf("%v half quanta: exponent %d, sums %v, want %d", c.halves, exps[0], sum, c.want)
		}
	}
}

func TestExactCorners(t *testing.T) {
	tiny := math.Float32frombits(1)
	huge := float32(math.MaxFloat32)
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for _, c := range []struct {
		name  string
		grads [][]float32
		exp   int32
		want  float32
	}{
		{"zero", [][]float32{{0}, {float32(math.Copysign(0, -1))}}, ZeroBlock, 0},
		{"smallest subnormal", [][]float32{{tiny}, {tiny}}, -149, 2 * tiny},
		{"subnormal", [][]float32{{3 * tiny}, {-tiny}}, -147, 2 * tiny},
		{"largest", [][]float32{{huge}, {0}}, 128, huge},
		{"largest twice", [][]float32{{huge}, {huge}}, 128, float32(math.Inf(1))},
		{"largest cancels", [][]float32{{huge}, {-huge}}, 128, 0},
		{"one", [][]float32{{1}, {-0.25}}, 0, 0.75},
		{"nan", [][]float32{{nan}, {1}}, NonFinite, nan},
		{"infinity", [][]float32{{1}, {inf}}, NonFinite, nan},
	} {
		e := Exact{BlockSize: 3, Shards: 2}
		_, exps, value := exactSum(e, c.grads)
		same := math.Float32bits(value[0]) == math.Float32bits(c.want) || value[0] != value[0] && c.want != c.want
		if exps[0] != c.exp || !same {
			t.Errorf("%s: exponent %d, value %g; want %d, %g", c.name, exps[0], value[0], c.exp, c.want)
		}
	}
	for _, bad := range []Exact{{}, {BlockSize: 1}, {BlockSize: 1, Shards: maxShards + 1}, {Shards: 1}} {
		if bad.Check() == nil {
			t.Errorf("%+v passes", bad)
		}
	}
	if err := (Exact{BlockSize: 1, Shards: maxShards}).Check(); err != nil {
		t.Error(err)
	}
}

// The largest magnitude in every place and every shard, with as many shards as are allowed: the sum must not overflow.
func TestExactNeverOverflows(t *testing.T) {
	for _, shards := range []int{1, 2, 3, 8, 9, 1000, maxShards} {
		e := Exact{BlockSize: 16, Shards: shards}
		grad := make([]float32, 16)
		for i := range grad {
			grad[i] = -1.5
		}
		sum, exps := make([]int32, 16), newExps(1)
		e.Exponents(exps, grad)
		s := &ExactSum{Exact: e, Exps: exps, Parts: [][]float32{grad}}
		for range shards {
			s.add(nil, sum, sum, nil, 0)
		}
		value := make([]float32, 16)
		s.decode(nil, value, sum, 0)
		if want := -1.5 * float32(shards); value[0] != want || value[15] != want {
			t.Errorf("%d shards: %v, want %v", shards, value[0], want)
		}
	}
}
