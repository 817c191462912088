package cpu

import (
	"fmt"
	"slices"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

// convolve checks the three operations of one geometry and returns their results.
func (b *bench) convolve(g device.ConvShape, act device.Activation, withBias bool) []float32 {
	b.Helper()
	what := fmt.Sprintf("%+v", g)
	pixels, k := g.OutH()*g.OutW(), g.KH*g.KW*g.C
	xv, x := b.random(g.N * g.H * g.W * g.C)
	wv, w := b.random(g.Out * k)
	dyv, dy := b.random(g.N * pixels * g.Out)
	p := device.Conv2D{Shape: g, Y: b.room(g.N * pixels * g.Out), X: x, W: w, Act: act}
	var bias []float32
	if withBias {
		bias, p.Bias = b.random(g.Out)
	}
	dx, dw := b.room(len(xv)), b.room(len(wv))
	for range 2 { // the second time with scratch that has been used
		b.s.Conv2D(p)
		b.s.Conv2DBackwardData(device.Conv2DBackwardData{Shape: g, DX: dx, DY: dy, W: w})
		b.s.Conv2DBackwardWeight(device.Conv2DBackwardWeight{Shape: g, DW: dw, X: x, DY: dy})
		b.near(what, b.result(p.Y), naiveConv(g, xv, wv, bias, act), k)
		b.near(what+" data", b.result(dx), naiveConvData(g, wv, dyv), g.KH*g.KW*g.Out)
		b.near(what+" weights", b.result(dw), naiveConvWeight(g, xv, dyv), g.N*pixels)
	}
	return slices.Concat(b.result(p.Y), b.result(dx), b.result(dw))
}

var convShapes = []device.ConvShape{
	{N: 2, C: 1, H: 28, W: 28, Out: 32, KH: 3, KW: 3, Stride: 1, Pad: 1},
	{N: 3, C: 32, H: 14, W: 14, Out: 64, KH: 3, KW: 3, Stride: 1, Pad: 1},
	{N: 2, C: 3, H: 7, W: 9, Out: 5, KH: 3, KW: 2, Stride: 1, Pad: 0},
	{N: 1, C: 33, H: 5, W: 4, Out: 31, KH: 1, KW: 1, Stride: 1, Pad: 0},
	{N: 2, C: 2, H: 31, W: 33, Out: 7, KH: 5, KW: 5, Stride: 1, Pad: 4},
	{N: 2, C: 4, H: 11, W: 8, Out: 33, KH: 3, KW: 3, Stride: 2, Pad: 1},
	{N: 1, C: 3, H: 17, W: 16, Out: 8, KH: 2, KW: 4, Stride: 3, Pad: 1},
	{N: 5, C: 1, H: 1, W: 1, Out: 1, KH: 1, KW: 1, Stride: 1, Pad: 0},
	{N: 37, C: 67, H: 4, W: 4, Out: 39, KH: 3, KW: 3, Stride: 1, Pad: 1}, // groups of images, and of fewer at the end
	{N: 9, C: 40, H: 8, W: 8, Out: 70, KH: 3, KW: 3, Stride: 2, Pad: 1},
	{N: 9, C: 40, H: 8, W: 8, Out: 70, KH: 1, KW: 1, Stride: 2, Pad: 0},
}

func TestConv2D(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		var all []float32
		for i, g := range convShapes {
			all = append(all, b.convolve(g, device.Activation(i%2), i%3 != 2)...)
		}
		return all
	})
}
