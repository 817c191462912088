package cpu

import (
	"errors"

	"github.com/musterml/muster/trainer/device"
)

var errPadded = errors.New("average pooling: padding is not supported")

// GlobalAveragePool implements device.Ops.
func (s *stream) GlobalAveragePool(yb, xb device.Buffer, n, pixels, c int) {
	const op = "global average pooling"
	if !s.sized(op, n, pixels, c) {
		return
	}
	y, x := s.floats(op, "Y", yb, n*c), s.floats(op, "X", xb, n*pixels*c)
	if s.err != nil {
		return
	}
	clear(y)
	for i := range n {
		row := y[i*c : (i+1)*c]
		s.addRows(row, x[i*pixels*c:(i+1)*pixels*c], pixels)
		s.k.scale(row, row, 1/float32(pixels))
	}
}

// GlobalAveragePoolBackward implements device.Ops.
func (s *stream) GlobalAveragePoolBackward(dxb, dyb device.Buffer, n, pixels, c int) {
	const op = "global average pooling backward"
	if !s.sized(op, n, pixels, c) {
		return
	}
	dx, dy := s.floats(op, "DX", dxb, n*pixels*c), s.floats(op, "DY", dyb, n*c)
	if s.err != nil {
		return
	}
	for i := range n {
		image := dx[i*pixels*c : (i+1)*pixels*c]
		s.k.scale(image[:c], dy[i*c:(i+1)*c], 1/float32(pixels))
		for p := 1; p < pixels; p++ {
			copy(image[p*c:(p+1)*c], image[:c])
		}
	}
}

// AveragePool implements device.Ops.
func (s *stream) AveragePool(p device.AveragePool) {
	if !s.checkPool(p.Shape) {
		return
	}
	const op = "average pooling"
	g := p.Shape
	if g.Pad != 0 {
		s.fail(errPadded)
		return
	}
	y, x := s.floats(op, "Y", p.Y, g.N*g.OutH()*g.OutW()*g.C), s.floats(op, "X", p.X, g.N*g.H*g.W*g.C)
	if s.err != nil {
		return
	}
	clear(y)
	eachWindow(g, func(out, pixel int) {
		to := y[out : out+g.C]
		s.k.add(to, to, x[pixel:pixel+g.C], floorNone)
	})
	s.k.scale(y, y, 1/float32(g.Size*g.Size))
}

// AveragePoolBackward implements device.Ops.
func (s *stream) AveragePoolBackward(p device.AveragePoolBackward) {
	if !s.checkPool(p.Shape) {
		return
	}
	const op = "average pooling backward"
	g := p.Shape
	if g.Pad != 0 {
		s.fail(errPadded)
		return
	}
	dx, dy := s.floats(op, "DX", p.DX, g.N*g.H*g.W*g.C), s.floats(op, "DY", p.DY, g.N*g.OutH()*g.OutW()*g.C)
	if s.err != nil {
		return
	}
	clear(dx)
	eachWindow(g, func(out, pixel int) {
		to := dx[pixel : pixel+g.C]
		s.k.add(to, to, dy[out:out+g.C], floorNone)
	})
	s.k.scale(dx, dx, 1/float32(g.Size*g.Size))
}

// eachWindow calls f for each pixel of each window, in the order of the windows, with the places of the first
// channels of the window's output and of the pixel.
func eachWindow(g device.PoolShape, f func(out, pixel int)) {
	out := 0
	for n := range g.N {
		for h := range g.OutH() {
			for w := range g.OutW() {
				for i := range g.Size {
					for j := range g.Size {
						f(out, ((n*g.H+h*g.Stride+i)*g.W+w*g.Stride+j)*g.C)
					}
				}
				out += g.C
			}
		}
	}
}
