package cuda

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

var products = [][3]int{{1, 1, 1}, {7, 31, 33}, {33, 7, 127}, {128, 10, 64}, {1, 100, 9}, {152, 140, 52}, {31, 33, 2100}, {260, 270, 68}}

// productBounds is how far products may be from the CPU's, whose factors have no more bits than a precision keeps. Tensor cores add few at a time and
// cut the sum each time instead of rounding it: so it comes out too small by up to half a unit in the last place for each (emulator/tensor.h).
var productBounds = map[device.Precision]float64{device.FP32: 3e-6, device.TF32: 1e-5, device.BF16: 1e-5}

func TestMatMul(t *testing.T) {
	for trans := device.NN; trans <= device.TN; trans++ {
		eachPrecision(t, trans.String(), func(b *bench) {
			for i, g := range products {
				m, n, k := g[0], g[1], g[2]
				p := device.MatMul{Trans: trans, M: m, N: n, K: k, A: b.random(m * k), B: b.random(k * n), C: b.room(m * n), Act: device.Activation(i % 2)}
				if i%3 != 0 {
					p.Bias = b.random(n)
				}
				b.MatMul(p)
				b.keep(fmt.Sprint(g), p.C)
			}
		})
	}
}

// A row does not depend on how many rows there are.
func TestRowsAreIndependent(t *testing.T) {
	const m, n, k = 131, 70, 300
	for _, d := range gpus(t) {
		s, err := d.NewStream()
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{TB: t, Stream: s, rng: rand.New(rand.NewPCG(1, 2))}
		x, w, all, single := b.random(m*k), b.random(k*n), b.room(m*n), b.room(n)
		b.MatMul(device.MatMul{M: m, N: n, K: k, A: x, B: w, C: all})
		b.MatMul(device.MatMul{M: 1, N: n, K: k, A: x.Range(129*k, k), B: w, C: single})
		b.keep("row of many", all.Range(129*n, n))
		b.keep("row alone", single)
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := differ(b.results[1], b.results[0], 0); err != nil {
			t.Errorf("%s: %v", d.Name(), err)
		}
		_ = s.Close()
	}
}

// A grid has fewer blocks across than some matrices need.
func TestTooManyColumns(t *testing.T) {
	const n = mostGridY*32 + 1
	d := newDevice(&counter{}, nil)
	s, err := d.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{TB: t, Stream: s}
	b.MatMul(device.MatMul{M: 1, N: n, K: 1, A: b.room(1), B: b.room(n), C: b.room(n)})
	if err := s.Sync(); err == nil || !strings.Contains(err.Error(), "matmul_nn: 2097121 columns are too many for a GPU: at most 2097120") {
		t.Errorf("%v", err)
	}
}

var convolutions = []device.ConvShape{
	{N: 2, C: 1, H: 8, W: 7, Out: 3, KH: 5, KW: 5, Stride: 1, Pad: 0},
	{N: 3, C: 5, H: 9, W: 8, Out: 7, KH: 3, KW: 3, Stride: 1, Pad: 1},
	{N: 2, C: 4, H: 11, W: 9, Out: 6, KH: 3, KW: 3, Stride: 2, Pad: 1},
	{N: 2, C: 3, H: 8, W: 8, Out: 33, KH: 1, KW: 1, Stride: 2, Pad: 0},
	{N: 1, C: 3, H: 15, W: 14, Out: 2, KH: 7, KW: 7, Stride: 2, Pad: 3},
	{N: 2, C: 8, H: 9, W: 7, Out: 12, KH: 3, KW: 2, Stride: 2, Pad: 1},  // 4 channels at once
	{N: 9, C: 2, H: 16, W: 16, Out: 3, KH: 3, KW: 3, Stride: 1, Pad: 1}, // the gradient of its weights is cut
	// In the larger tiles: forward and weights in the largest, data and weights in the two largest, forward and data in those between.
	{N: 3, C: 29, H: 13, W: 13, Out: 130, KH: 3, KW: 3, Stride: 1, Pad: 1},
	{N: 3, C: 132, H: 13, W: 13, Out: 130, KH: 1, KW: 2, Stride: 1, Pad: 0},
	{N: 3, C: 70, H: 13, W: 13, Out: 70, KH: 1, KW: 2, Stride: 1, Pad: 0},
	{N: 3, C: 132, H: 26, W: 25, Out: 130, KH: 1, KW: 1, Stride: 2, Pad: 0}, // of the gradient of x three quarters are zeros
	{N: 2, C: 5, H: 6, W: 7, Out: 9, KH: 1, KW: 1, Stride: 1, Pad: 0},       // these are matrix products
	{N: 3, C: 70, H: 13, W: 13, Out: 70, KH: 1, KW: 1, Stride: 1, Pad: 0},
	// Pixels of x that see other taps than their neighbours, or none.
	{N: 2, C: 3, H: 13, W: 11, Out: 20, KH: 2, KW: 4, Stride: 3, Pad: 0},
	{N: 3, C: 9, H: 10, W: 17, Out: 5, KH: 5, KW: 3, Stride: 3, Pad: 2},
	{N: 2, C: 10, H: 7, W: 6, Out: 17, KH: 5, KW: 6, Stride: 2, Pad: 3},
	{N: 2, C: 2, H: 3, W: 2, Out: 3, KH: 3, KW: 2, Stride: 4, Pad: 1},
}

func TestConvolutions(t *testing.T) {
	eachPrecision(t, "", func(b *bench) {
		for i, g := range convolutions {
			image, pooled, weights := g.N*g.H*g.W*g.C, g.N*g.OutH()*g.OutW()*g.Out, g.Out*g.C*g.KH*g.KW
			x, w, dy, y, dx, dw := b.random(image), b.random(weights), b.random(pooled), b.room(pooled), b.room(image), b.room(weights)
			b.Conv2D(device.Conv2D{Shape: g, Y: y, X: x, W: w, Bias: b.random(g.Out), Act: device.Activation(i % 2)})
			b.Conv2DBackwardData(device.Conv2DBackwardData{Shape: g, DX: dx, DY: dy, W: w})
			b.Conv2DBackwardWeight(device.Conv2DBackwardWeight{Shape: g, DW: dw, X: x, DY: dy})
			b.keep(fmt.Sprintf("y %+v", g), y)
			b.keep(fmt.Sprintf("dx %+v", g), dx)
			b.keep(fmt.Sprintf("dw %+v", g), dw)
		}
	})
}
