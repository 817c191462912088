package data

import (
	"fmt"
	"math"
	"testing"
)

// For every n the order must be a permutation: no sample left out, none taken twice.
func TestOrderIsAPermutation(t *testing.T) {
	sizes := []int{20000, 60000, 65535, 65536, 65537, 1 << 20}
	for n := 1; n <= 2000; n++ {
		sizes = append(sizes, n)
	}
	seen := make([]bool, 1<<20)
	for _, n := range sizes {
		p := Order(uint64(n), n)
		clear(seen[:n])
		for i := range n {
			at := p.At(7, i)
			if at < 0 || at >= n || seen[at] {
				t.Fatalf("n %d: position %d gives %d, out of range or already given", n, i, at)
			}
			seen[at] = true
		}
	}
}

func TestOrderDependsOnSeedAndPass(t *testing.T) {
	const n = 1000
	base := Order(1, n)
	same := map[string]int{}
	for i := range n {
		if base.At(0, i) == base.At(1, i) {
			same["pass 0 and 1"]++
		}
		if base.At(0, i) == Order(2, n).At(0, i) {
			same["seed 1 and 2"]++
		}
		if base.At(0, i) == i {
			same["fixed points"]++
		}
		if base.At(0, i) != Order(1, n).At(0, i) {
			t.Fatal("the same seed and pass gave another order")
		}
	}
	for what, count := range same { // 1 is expected; 10 has probability 1e-7
		if count > 10 {
			t.Errorf("%s: %d of %d places equal", what, count, n)
		}
	}
}

// Over many passes each sample must come at each position equally often.
func TestOrderIsUniform(t *testing.T) {
	for _, n := range []int{2, 3, 5, 16, 37} {
		passes := 600 * n
		counts := make([]int, n*n)
		p := Order(42, n)
		for pass := range passes {
			for i := range n {
				counts[i*n+p.At(uint64(pass), i)]++
			}
		}
		chi := 0.0
		for _, c := range counts {
			d := float64(c) - 600
			chi += d * d / 600
		}
		// (n-1)² degrees of freedom: mean k, variance 2k.
		k := float64((n - 1) * (n - 1))
		if dev := chi - k; dev*dev > 25*2*k {
			t.Errorf("n %d: chi-square %.1f for %.0f degrees of freedom", n, chi, k)
		}
	}
}

// Which neighbour follows which must vary too: with few rounds successive positions
// stay correlated although each alone is uniform.
func TestOrderPairsAreUniform(t *testing.T) {
	const n, passes = 8, 56 * 300
	counts := map[[2]int]int{}
	p := Order(9, n)
	for pass := range uint64(passes) {
		counts[[2]int{p.At(pass, 0), p.At(pass, 1)}]++
	}
	chi := 0.0
	for a := range n {
		for b := range n {
			if a != b {
				d := float64(counts[[2]int{a, b}]) - 300
				chi += d * d / 300
			}
		}
	}
	if chi > 55+5*10.5 { // 55 degrees of freedom, five sigma
		t.Errorf("chi-square %.1f for 55 degrees of freedom", chi)
	}
}

func TestOrderHuge(t *testing.T) {
	const n = math.MaxInt/2 + 12345
	p := Order(3, n)
	seen := map[int]bool{}
	for _, i := range []int{0, 1, 2, n / 2, n - 2, n - 1} {
		at := p.At(1<<60, i)
		if at < 0 || at >= n || seen[at] {
			t.Fatalf("position %d gives %d", i, at)
		}
		seen[at] = true
	}
}

// The order is part of what a run promises to repeat: a change here changes every
// run's weights.
func TestOrderGolden(t *testing.T) {
	p := Order(1, 20000)
	got := ""
	for _, at := range []Position{0, 1, 2, 19999, 20000, 20001, 1 << 40} {
		got += fmt.Sprintf("%d ", p.Sample(at))
	}
	const want = "6141 5164 9779 19552 17932 11998 8323 "
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func BenchmarkOrderAt(b *testing.B) {
	for _, n := range []int{20000, 65537, 1 << 30} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := Order(1, n)
			for i := range b.N {
				p.At(3, i%n)
			}
		})
	}
}
