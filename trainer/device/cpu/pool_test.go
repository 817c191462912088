package cpu

import (
	"fmt"
	"slices"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

var poolShapes = []device.PoolShape{
	{N: 2, C: 32, H: 28, W: 28, Size: 2, Stride: 2},
	{N: 2, C: 64, H: 7, W: 9, Size: 2, Stride: 2},
	{N: 2, C: 33, H: 6, W: 4, Size: 2, Stride: 2},
	{N: 1, C: 7, H: 31, W: 33, Size: 2, Stride: 2},
	{N: 3, C: 5, H: 9, W: 8, Size: 3, Stride: 2}, // overlapping
	{N: 1, C: 127, H: 3, W: 3, Size: 3, Stride: 1},
	{N: 2, C: 1, H: 10, W: 11, Size: 2, Stride: 3}, // gaps
}

// paddedShapes are for the maximum alone.
var paddedShapes = []device.PoolShape{
	{N: 2, C: 33, H: 12, W: 11, Size: 3, Stride: 2, Pad: 1}, // the stem of ResNet
	{N: 1, C: 7, H: 1, W: 1, Size: 3, Stride: 1, Pad: 1},
	{N: 1, C: 16, H: 4, W: 5, Size: 2, Stride: 2, Pad: 1},
	{N: 1, C: 2, H: 9, W: 3, Size: 5, Stride: 3, Pad: 2},
}

func TestMaxPool(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		var all []float32
		for i, g := range append(slices.Clone(poolShapes), paddedShapes...) {
			all = append(all, b.maxPool(g, device.Activation(i%2))...)
		}
		return all
	})
}

// maxPool checks the two operations of one geometry.
func (b *bench) maxPool(g device.PoolShape, act device.Activation) []float32 {
	b.Helper()
	what := fmt.Sprintf("%+v", g)
	xv := make([]float32, g.N*g.H*g.W*g.C)
	for i := range xv {
		xv[i] = float32(b.r.IntN(9) - 4) // many equal values
	}
	x := b.buffer(xv)
	n := g.N * g.OutH() * g.OutW() * g.C
	index, err := b.s.Alloc(device.Uint8, n)
	if err != nil {
		b.Fatal(err)
	}
	y, dx := b.room(n), b.room(len(xv))
	dyv, dy := b.random(n)
	b.s.MaxPool(device.MaxPool{Shape: g, Y: y, X: x, Index: device.Whole(index), Act: act})
	b.s.MaxPoolBackward(device.MaxPoolBackward{Shape: g, DX: dx, DY: dy, Y: y, Index: device.Whole(index), Act: act})
	want, from := naivePool(g, xv, act)
	wantDX := make([]float64, len(xv))
	for i, k := range from {
		if act == device.Identity || want[i] > 0 {
			wantDX[k] += float64(dyv[i])
		}
	}
	b.near(what, b.result(y), want, 1)
	b.near(what+" backward", b.result(dx), wantDX, 1)
	return slices.Concat(b.result(y), b.result(dx))
}
