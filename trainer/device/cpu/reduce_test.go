package cpu

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

func TestScale(t *testing.T) {
	eachSet(t, func(b *bench) (all []float32) {
		for _, n := range allSizes {
			v, x := b.random(n)
			y := b.room(n)
			b.s.Scale(y, x, n, -1.5)
			b.s.Scale(x, x, n, -1.5)
			for i, was := range v {
				if b.result(y)[i] != was*-1.5 {
					b.Fatalf("element %d of %d: %v", i, n, b.result(y)[i])
				}
			}
			sameBits(t, "in place", b.result(x), b.result(y))
			all = append(all, b.result(y)...)
		}
		return all
	})
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
