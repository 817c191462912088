package cpu

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

func TestMultiplyAndScale(t *testing.T) {
	eachSet(t, func(b *bench) (all []float32) {
		for _, n := range allSizes {
			av, a := b.random(n)
			bv, bb := b.random(n)
			product, scaled := b.room(n), b.room(n)
			b.s.Multiply(product, a, bb, n)
			b.s.Scale(scaled, a, n, -1.5)
			for i, v := range av {
				if b.result(product)[i] != v*bv[i] || b.result(scaled)[i] != v*-1.5 {
					b.Fatalf("element %d of %d: %v and %v", i, n, b.result(product)[i], b.result(scaled)[i])
				}
			}
			b.s.Multiply(bb, a, bb, n)
			sameBits(t, "in place", b.result(bb), b.result(product))
			all = slices.Concat(all, b.result(product), b.result(scaled))
		}
		return all
	})
}

// TestReductions: the order is the one that is promised, in float64, on every set and in every class alike.
func TestReductions(t *testing.T) {
	for _, set := range InstructionSets() {
		b := newBench(t, set)
		for _, n := range allSizes {
			xv, x := b.random(n)
			var sum, squares float64
			var ps, pq [16]float64
			for i, v := range xv {
				ps[i%16] += float64(v)
				pq[i%16] += float64(v) * float64(v)
			}
			fold := func(p [16]float64) float64 {
				e := [8]float64{}
				for k := range e {
					e[k] = p[k] + p[k+8]
				}
				return ((e[0] + e[4]) + (e[2] + e[6])) + ((e[1] + e[5]) + (e[3] + e[7]))
			}
			b.s.Sum(x, n, &sum)
			b.s.SumSquares(x, n, &squares)
			if err := b.s.Sync(); err != nil {
				t.Fatal(err)
			}
			if sum != fold(ps) || squares != fold(pq) {
				t.Errorf("%s, %d elements: %v and %v, want %v and %v", set, n, sum, squares, fold(ps), fold(pq))
			}
		}
		nan := b.buffer([]float32{1, float32(math.NaN())})
		var sum, squares float64
		b.s.Sum(nan, 2, &sum)
		b.s.SumSquares(nan, 2, &squares)
		if sum == sum || squares == squares {
			t.Errorf("%s: sums with a NaN are %v and %v", set, sum, squares)
		}
	}
}

func naiveAverage(g device.PoolShape, x []float64) []float64 {
	var y []float64
	for n := range g.N {
		for i := range g.OutH() {
			for j := range g.OutW() {
				for c := range g.C {
					sum := 0.0
					for k := range g.Size * g.Size {
						sum += x[((n*g.H+i*g.Stride+k/g.Size)*g.W+j*g.Stride+k%g.Size)*g.C+c]
					}
					y = append(y, sum/float64(g.Size*g.Size))
				}
			}
		}
	}
	return y
}

func TestAveragePool(t *testing.T) {
	eachSet(t, func(b *bench) (all []float32) {
		for _, g := range append([]device.PoolShape{{N: 1, C: 1000, H: 3, W: 4, Size: 2, Stride: 1}, {N: 2, C: 31, H: 7, W: 7, Size: 7, Stride: 7}}, poolShapes...) {
			what := fmt.Sprintf("%+v", g)
			xv, x := b.random(g.N * g.H * g.W * g.C)
			dyv, dy := b.random(g.N * g.OutH() * g.OutW() * g.C)
			y, dx := b.room(len(dyv)), b.room(len(xv))
			b.s.AveragePool(device.AveragePool{Shape: g, Y: y, X: x})
			b.s.AveragePoolBackward(device.AveragePoolBackward{Shape: g, DX: dx, DY: dy})
			b.near(what, b.result(y), naiveAverage(g, wide(xv)), 1)
			want := gradientOf(func(x []float64) []float64 { return naiveAverage(g, x) }, wide(xv), wide(dyv), 20)
			b.close(what+" backward", b.result(dx), want, 1e-6)
			all = slices.Concat(all, b.result(y), b.result(dx))
		}
		return all
	})
}

func TestBatchNormInference(t *testing.T) {
	eachSet(t, func(b *bench) (all []float32) {
		for _, n := range allSizes {
			rows := 1 + n%5
			xv, x := b.random(rows * n)
			gv, gamma := b.random(n)
			bv, beta := b.random(n)
			mv, mean := b.random(n)
			vv, _ := b.random(n)
			for i := range vv {
				vv[i] = vv[i]*vv[i] + 0.01
			}
			y := b.room(rows * n)
			p := device.BatchNormInference{Rows: rows, Channels: n, Y: y, X: x, Gamma: gamma, Beta: beta, Mean: mean,
				Variance: b.buffer(vv), Eps: 1e-5, Act: device.Activation(n % 2)}
			b.s.BatchNormInference(p)
			want := make([]float64, rows*n)
			for i, v := range xv {
				c := i % n
				want[i] = activate(p.Act, (float64(v)-float64(mv[c]))/math.Sqrt(float64(vv[c])+1e-5)*float64(gv[c])+float64(bv[c]))
			}
			b.close(fmt.Sprint(n, " channels"), b.result(y), want, 1e-6)
			all = append(all, b.result(y)...)
			p.Y = x
			b.s.BatchNormInference(p)
			sameBits(t, "in place", b.result(x), b.result(y))
		}
		return all
	})
}
