package cpu

import (
	"math"

	"github.com/musterml/muster/trainer/device"
)

// The naive versions of the operations, in float64 and from the definitions in package device,
// with nothing in common with the fast ones.

func naiveMatMul(p device.MatMul, a, b, bias []float32) []float64 {
	c := make([]float64, p.M*p.N)
	for i := range p.M {
		for j := range p.N {
			sum := 0.0
			if bias != nil {
				sum = float64(bias[j])
			}
			for k := range p.K {
				x, y := 0.0, 0.0
				switch p.Trans {
				case device.NN:
					x, y = float64(a[i*p.K+k]), float64(b[k*p.N+j])
				case device.NT:
					x, y = float64(a[i*p.K+k]), float64(b[j*p.K+k])
				case device.TN:
					x, y = float64(a[k*p.M+i]), float64(b[k*p.N+j])
				}
				sum += x * y
			}
			c[i*p.N+j] = activate(p.Act, sum)
		}
	}
	return c
}

func activate(a device.Activation, v float64) float64 {
	if a == device.ReLU {
		return math.Max(0, v)
	}
	return v
}

// eachTap calls f for every product of a convolution with the indices of its operands.
func eachTap(g device.ConvShape, f func(y, x, w int)) {
	oh, ow := g.OutH(), g.OutW()
	for n := range g.N {
		for i := range oh {
			for j := range ow {
				for o := range g.Out {
					for c := range g.C {
						for r := range g.KH {
							for q := range g.KW {
								h, w := i*g.Stride+r-g.Pad, j*g.Stride+q-g.Pad
								if h < 0 || w < 0 || h >= g.H || w >= g.W {
									continue
								}
								f(((n*oh+i)*ow+j)*g.Out+o, ((n*g.H+h)*g.W+w)*g.C+c, ((o*g.C+c)*g.KH+r)*g.KW+q)
							}
						}
					}
				}
			}
		}
	}
}

func naiveConv(g device.ConvShape, x, w, bias []float32, act device.Activation) []float64 {
	y := make([]float64, g.N*g.OutH()*g.OutW()*g.Out)
	eachTap(g, func(iy, ix, iw int) { y[iy] += float64(x[ix]) * float64(w[iw]) })
	for i := range y {
		if bias != nil {
			y[i] += float64(bias[i%g.Out])
		}
		y[i] = activate(act, y[i])
	}
	return y
}

func naiveConvData(g device.ConvShape, w, dy []float32) []float64 {
	dx := make([]float64, g.N*g.H*g.W*g.C)
	eachTap(g, func(iy, ix, iw int) { dx[ix] += float64(dy[iy]) * float64(w[iw]) })
	return dx
}

func naiveConvWeight(g device.ConvShape, x, dy []float32) []float64 {
	dw := make([]float64, g.Out*g.C*g.KH*g.KW)
	eachTap(g, func(iy, ix, iw int) { dw[iw] += float64(dy[iy]) * float64(x[ix]) })
	return dw
}

// naivePool returns y, and for each element of y the index in x of its maximum.
func naivePool(g device.PoolShape, x []float32, act device.Activation) (y []float64, from []int) {
	for n := range g.N {
		for i := range g.OutH() {
			for j := range g.OutW() {
				for c := range g.C {
					at := -1
					for r := range g.Size {
						for q := range g.Size {
							h, w := i*g.Stride+r-g.Pad, j*g.Stride+q-g.Pad
							if h < 0 || h >= g.H || w < 0 || w >= g.W {
								continue
							}
							k := ((n*g.H+h)*g.W+w)*g.C + c
							if at < 0 || x[k] > x[at] {
								at = k
							}
						}
					}
					y, from = append(y, activate(act, float64(x[at]))), append(from, at)
				}
			}
		}
	}
	return y, from
}

func naiveSoftmax(n, classes int, logits []float32, labels []int32, scale float64) (loss float64, correct int, grad []float64) {
	grad = make([]float64, n*classes)
	for i := range n {
		row := logits[i*classes : (i+1)*classes]
		sum, best := 0.0, 0
		for j, v := range row {
			sum += math.Exp(float64(v))
			if v > row[best] {
				best = j
			}
		}
		l := int(labels[i])
		if best == l {
			correct++
		}
		loss -= math.Log(math.Exp(float64(row[l])) / sum)
		for j, v := range row {
			grad[i*classes+j] = math.Exp(float64(v)) / sum * scale
		}
		grad[i*classes+l] -= scale
	}
	return loss, correct, grad
}
