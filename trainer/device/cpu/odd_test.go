package cpu

import (
	"fmt"
	"slices"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

// The odd sizes where the tests of the operations themselves have none of them.

var allSizes = []int{1, 7, 31, 33, 127, 1000}

// TestMatMulOddSizes has each size once as each dimension, in every form, beside all sizes as the next dimension.
func TestMatMulOddSizes(t *testing.T) {
	eachSet(t, func(b *bench) (all []float32) {
		for i, size := range allSizes {
			for j := range allSizes {
				other := []int{allSizes[j], []int{1, 33, 7}[(i+j)%3]}
				if size*other[0] > 200000 {
					continue
				}
				for turn := range 3 { // which dimension has the size
					d := [3]int{size, other[0], other[1]}
					p := device.MatMul{M: d[turn], N: d[(turn+1)%3], K: d[(turn+2)%3], Act: device.Activation((i + turn) % 2)}
					for p.Trans = device.NN; p.Trans <= device.TN; p.Trans++ {
						all = append(all, b.product(p, (i+j)%2 == 0)...)
					}
				}
			}
		}
		return all
	})
}

func (b *bench) product(p device.MatMul, withBias bool) []float32 {
	b.Helper()
	av, a := b.random(p.M * p.K)
	bv, bb := b.random(p.K * p.N)
	p.A, p.B, p.C = a, bb, b.room(p.M*p.N)
	var bias []float32
	if withBias {
		bias, p.Bias = b.random(p.N)
	}
	b.s.MatMul(p)
	b.near(fmt.Sprintf("%v %dx%dx%d", p.Trans, p.M, p.N, p.K), b.result(p.C), naiveMatMul(p, av, bv, bias), p.K)
	return slices.Clone(b.result(p.C))
}

func TestConv2DOddSizes(t *testing.T) {
	eachSet(t, func(b *bench) (all []float32) {
		for i, size := range allSizes {
			next := allSizes[(i+1)%5]
			for _, g := range []device.ConvShape{
				{N: 1, C: size, H: 3, W: 2, Out: next, KH: 1, KW: 1, Stride: 1},
				{N: 1, C: next, H: 2, W: 3, Out: size, KH: 2, KW: 2, Stride: 1, Pad: 1},
				{N: 1, C: 3, H: size, W: 2, Out: 4, KH: 3, KW: 3, Stride: 1 + i%2, Pad: 2},
				{N: 1, C: 2, H: 1, W: size, Out: 7, KH: 3, KW: 3, Stride: 1, Pad: 1},
				{N: size % 100, C: 1, H: 4, W: 4, Out: 3, KH: 3, KW: 3, Stride: 1, Pad: 1},
			} {
				if g.Validate() == nil {
					all = append(all, b.convolve(g, device.Activation(i%2), i%3 == 0)...)
				}
			}
		}
		return all
	})
}

func TestSumRowsAndLayoutsOddSizes(t *testing.T) {
	eachSet(t, func(b *bench) (all []float32) {
		for _, rows := range allSizes {
			for _, cols := range allSizes {
				xv, x := b.random(rows * cols)
				sums, turned := make([]float64, cols), make([]float64, len(xv))
				for i, v := range xv {
					sums[i%cols] += float64(v)
					turned[i%cols*rows+i/cols] = float64(v)
				}
				out, y := b.room(cols), b.room(len(xv))
				b.s.SumRows(out, x, rows, cols)
				b.s.ToNHWC(y, x, 1, rows, cols, 1)
				b.near(fmt.Sprintf("sum of %dx%d", rows, cols), b.result(out), sums, rows)
				b.near(fmt.Sprintf("layout of %dx%d", rows, cols), b.result(y), turned, 1)
				all = append(all, b.result(out)...)
			}
		}
		return all
	})
}

func TestMaxPoolOddSizes(t *testing.T) {
	var shapes []device.PoolShape
	for _, size := range allSizes {
		shapes = append(shapes, device.PoolShape{N: 1, C: size, H: 4, W: 3, Size: 2, Stride: 2},
			device.PoolShape{N: 1, C: size, H: 3, W: 4, Size: 3, Stride: 1})
		if size > 1 {
			shapes = append(shapes, device.PoolShape{N: 1, C: 16, H: size, W: 2, Size: 2, Stride: 2})
		}
	}
	eachSet(t, func(b *bench) (all []float32) {
		for i, g := range shapes {
			all = append(all, b.maxPool(g, device.Activation(i%2))...)
		}
		return all
	})
}

func TestSoftmaxOddSizes(t *testing.T) {
	eachSet(t, func(b *bench) (all []float32) {
		for i, classes := range allSizes {
			all = append(all, b.softmax(allSizes[len(allSizes)-1-i], classes)...)
		}
		return all
	})
}

func TestFunctionsOddSizes(t *testing.T) {
	eachSet(t, func(b *bench) (all []float32) {
		for f := range device.Functions {
			for _, n := range allSizes {
				xv, x := b.random(n)
				dyv, dy := b.random(n)
				y, dx := b.room(n), b.room(n)
				b.s.Apply(y, x, n, f)
				b.s.ApplyBackward(dx, dy, x, n, f)
				want, slopes := make([]float64, n), make([]float64, n)
				for i, v := range xv {
					want[i], slopes[i] = naiveFunctions[f](float64(v))
					slopes[i] *= float64(dyv[i])
				}
				b.near(fmt.Sprintf("function %d of %d", f, n), b.result(y), want, 1)
				b.near(fmt.Sprintf("slope of function %d of %d", f, n), b.result(dx), slopes, 1)
				all = slices.Concat(all, b.result(y), b.result(dx))
			}
		}
		return all
	})
}
