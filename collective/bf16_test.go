package collective

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
)

// The documented bound, and the same bits on all ranks, for any world, either way.
func TestBF16(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		for _, world := range []int{1, 2, 3, 5, 8} {
			synctest.Test(t, func(t *testing.T) {
				net := newMemNet(100).by(w)
				rings := joinAll(t, world, func(rank int) Config { return net.config(rank, world) })
				defer closeAll(rings)
				for _, n := range []int{0, 1, 2, 7, 64, 501} {
					checkBF16(t, rings, n)
				}
			})
		}
	})
}

func checkBF16(t *testing.T, rings []*Ring, n int) {
	world := len(rings)
	rng := rand.New(rand.NewPCG(uint64(world), uint64(n)))
	sums := make([]*BF16, world)
	for i := range sums {
		sums[i] = NewBF16(n)
	}
	wanted, got := make([]float64, n), make([]float64, n) // over all rounds
	slack := make([]float64, n)
	for range 20 {
		x := make([][]float32, world)
		size := make([]float64, n)
		for r := range x {
			x[r] = make([]float32, n)
			for i := range x[r] {
				x[r][i] = float32(math.Ldexp(rng.Float64()-0.5, rng.IntN(8)))
				wanted[i] += float64(x[r][i])
				size[i] += math.Abs(float64(x[r][i])) * (1 + 1./64)
			}
		}
		if err := errors.Join(onAll(rings, func(i int, r *Ring) error { return sums[i].AllReduce(bg, r, Op{}, x[i]) })...); err != nil {
			t.Fatal(err)
		}
		for r := range x {
			if !slices.Equal(x[r], x[0]) {
				t.Fatalf("world %d, n %d: rank %d has other bits", world, n, r)
			}
		}
		for i := range got {
			got[i] += float64(x[0][i])
			// What partial sums may lose. A contribution may be larger than the gradient by what was left before.
			slack[i] += float64(world-1) / 256 * math.Pow(1+1./256, float64(world-1)) * (size[i] + float64(world))
		}
	}
	for i := range got {
		left := 0.0 // is still to be sent
		for _, s := range sums {
			left += float64(s.rest[i])
		}
		if d := math.Abs(got[i] + left - wanted[i]); d > slack[i]+1e-4 {
			t.Fatalf("world %d, n %d: element %d is off by %g, bound %g", world, n, i, d, slack[i])
		}
	}
}

// Elements too small to change a sum of bf16 arrive in the end: only what is remembered is missing.
func TestBF16ErrorFeedback(t *testing.T) {
	r, err := Join(bg, Config{Peers: []Peer{{Node: "alone"}}})
	if err != nil {
		t.Fatal(err)
	}
	b := NewBF16(1)
	total := 0.0
	for range 1000 {
		x := []float32{1 + 1./1024}
		if err := b.AllReduce(bg, r, Op{}, x); err != nil {
			t.Fatal(err)
		}
		total += float64(x[0])
	}
	if want := 1000 * (1 + 1./1024); math.Abs(total-want) > 1./128 {
		t.Errorf("%v, want %v", total, want)
	}
}

// A broken ring costs nothing: neither x nor what is remembered changes.
func TestBF16AfterAnError(t *testing.T) {
	net := newMemNet(4096)
	rings := joinAll(t, 2, func(rank int) Config { return net.config(rank, 2) })
	defer closeAll(rings)
	rings[1].Abort(errBoom)
	b, x := NewBF16(3), []float32{1.2345678, 2, 3}
	b.rest[0] = 0.001
	if err := b.AllReduce(bg, rings[0], Op{}, x); !errors.Is(err, ErrAborted) {
		t.Error(err)
	}
	if fmt.Sprint(x, b.rest) != "[1.2345678 2 3] [0.001 0 0]" {
		t.Error(x, b.rest)
	}
	if err := b.AllReduce(bg, rings[0], Op{}, x[:2]); !errors.Is(err, ErrArgument) {
		t.Error(err)
	}
	if err := rings[0].AllReduce(bg, Op{}, Int32s(b.words), SumBF16); !errors.Is(err, ErrArgument) {
		t.Error(err)
	}
}
