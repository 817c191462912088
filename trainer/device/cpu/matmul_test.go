package cpu

import (
	"fmt"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

func TestMatMul(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		var all []float32
		for _, m := range oddSizes {
			for _, n := range append([]int{32, 64}, oddSizes...) {
				for _, k := range []int{1, 7, 33, 127, 300, 513} {
					if k > 127 && (m > 33 || n > 64) {
						continue
					}
					for trans := device.NN; trans <= device.TN; trans++ {
						p := device.MatMul{Trans: trans, M: m, N: n, K: k, Act: device.Activation((m + k) % 2)}
						av, a := b.random(m * k)
						bv, bb := b.random(k * n)
						p.A, p.B, p.C = a, bb, b.room(m*n)
						var bias []float32
						if n%2 == 1 {
							bias, p.Bias = b.random(n)
						}
						b.s.MatMul(p)
						got := b.result(p.C)
						b.near(fmt.Sprintf("%v %dx%dx%d", trans, m, n, k), got, naiveMatMul(p, av, bv, bias), k)
						all = append(all, got...)
					}
				}
			}
		}
		return all
	})
}

// TestMatMulBlocks has more than one block of everything: rows, columns, k, and k so far apart that A is brought
// together. The oracle looks at some elements only.
func TestMatMulBlocks(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		m, n, k := 523, 517, 1031
		if strings.HasSuffix(b.Name(), "/go") {
			m, n = 131, 133 // it takes its time, and the way there is the same
		}
		var all []float32
		for trans := device.NN; trans <= device.TN; trans++ {
			av, a := b.random(m * k)
			bv, bb := b.random(k * n)
			bias, biasB := b.random(n)
			p := device.MatMul{Trans: trans, M: m, N: n, K: k, A: a, B: bb, C: b.room(m * n), Bias: biasB}
			b.s.MatMul(p)
			got := b.result(p.C)
			all = append(all, got...)
			for range 500 {
				i, j := b.r.IntN(m), b.r.IntN(n)
				row, column := make([]float32, k), make([]float32, k)
				for q := range k {
					row[q], column[q] = av[i*k+q], bv[q*n+j]
					if trans == device.TN {
						row[q] = av[q*m+i]
					}
					if trans == device.NT {
						column[q] = bv[j*k+q]
					}
				}
				want := naiveMatMul(device.MatMul{Trans: device.NT, M: 1, N: 1, K: k}, row, column, bias[j:j+1])
				b.near(fmt.Sprintf("%v, element %d,%d", trans, i, j), got[i*n+j:i*n+j+1], want, k)
			}
		}
		return all
	})
}

// TestRandomShapes tries shapes nobody thought of.
func TestRandomShapes(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		var all []float32
		for range 100 {
			p := device.MatMul{Trans: device.Trans(b.r.IntN(3)), M: 1 + b.r.IntN(70), N: 1 + b.r.IntN(70), K: 1 + b.r.IntN(70), Act: device.Activation(b.r.IntN(2))}
			av, a := b.random(p.M * p.K)
			bv, bb := b.random(p.K * p.N)
			p.A, p.B, p.C = a, bb, b.room(p.M*p.N)
			b.s.MatMul(p)
			b.near(fmt.Sprintf("%v %dx%dx%d", p.Trans, p.M, p.N, p.K), b.result(p.C), naiveMatMul(p, av, bv, nil), p.K)
			all = append(all, b.result(p.C)...)

			g := device.ConvShape{N: 1 + b.r.IntN(3), C: 1 + b.r.IntN(20), H: 1 + b.r.IntN(12), W: 1 + b.r.IntN(12), Out: 1 + b.r.IntN(40),
				KH: 1 + b.r.IntN(4), KW: 1 + b.r.IntN(4), Stride: 1 + b.r.IntN(3)}
			g.Pad = b.r.IntN(min(g.KH, g.KW))
			if g.Validate() == nil {
				all = append(all, b.convolve(g, device.Identity, false)...)
			}
		}
		return all
	})
}

// TestMatMulChain checks the promised order of additions in plain Go, where a naive loop gives
// the same bits, and that the result for a row does not depend on how many rows there are.
func TestMatMulChain(t *testing.T) {
	b := newBench(t, "go")
	const m, n, k = 9, 35, 700
	av, a := b.random(m * k)
	bv, bb := b.random(n * k)
	bias, biasB := b.random(n)
	c := b.room(m * n)
	b.s.MatMul(device.MatMul{Trans: device.NT, M: m, N: n, K: k, A: a, B: bb, C: c, Bias: biasB})
	got := b.result(c)
	for i := range m {
		for j := range n {
			sum := bias[j]
			for p := range k {
				sum += float32(av[i*k+p] * bv[j*k+p])
			}
			if sum != got[i*n+j] {
				t.Fatalf("element %d,%d is %v, the chain gives %v", i, j, got[i*n+j], sum)
			}
		}
	}
	for _, set := range InstructionSets() {
		b.s.k = newBench(t, set).s.k
		b.s.chosen = chosen{}
		whole := b.room(m * n)
		b.s.MatMul(device.MatMul{Trans: device.NT, M: m, N: n, K: k, A: a, B: bb, C: whole, Bias: biasB})
		for _, rows := range []int{1, 4} {
			part := b.room(rows * n)
			b.s.MatMul(device.MatMul{Trans: device.NT, M: rows, N: n, K: k, A: a, B: bb, C: part, Bias: biasB})
			sameBits(t, fmt.Sprintf("%s, %d rows", set, rows), b.result(part), b.result(whole)[:rows*n])
		}
	}
}
