package cpu

import "github.com/musterml/muster/trainer/device"

func (s *stream) checkPool(shape device.PoolShape) bool {
	if s.err != nil {
		return false
	}
	if err := shape.Validate(); err != nil {
		s.fail(err)
		return false
	}
	return true
}

// quick tells whether the vector kernels for windows of 2x2 side by side can be used for the
// first channels, and for how many.
func (s *stream) quick(g device.PoolShape) int {
	if s.k.lanes == 0 || g.Size != 2 || g.Stride != 2 || g.Pad != 0 {
		return 0
	}
	return g.C / s.k.lanes * s.k.lanes
}

// MaxPool implements device.Ops.
func (s *stream) MaxPool(p device.MaxPool) {
	if !s.checkPool(p.Shape) {
		return
	}
	const op = "max pooling"
	g := p.Shape
	oh, ow := g.OutH(), g.OutW()
	x := s.floats(op, "X", p.X, g.N*g.H*g.W*g.C)
	y := s.floats(op, "Y", p.Y, g.N*oh*ow*g.C)
	index := s.bytes(op, "Index", p.Index, g.N*oh*ow*g.C)
	if s.err != nil {
		return
	}
	floor, quick := floorOf(p.Act), s.quick(g)
	for n := range g.N {
		image := x[n*g.H*g.W*g.C : (n+1)*g.H*g.W*g.C]
		for h := range oh {
			for w := range ow {
				o := ((n*oh+h)*ow + w) * g.C
				corner := ((h*g.Stride-g.Pad)*g.W + w*g.Stride - g.Pad) * g.C // not in the image where that is padding
				if quick > 0 {
					s.k.max4(&y[o], &index[o], &image[corner], &image[corner+g.C],
						&image[corner+g.W*g.C], &image[corner+(g.W+1)*g.C], quick, floor)
				}
				if quick < g.C {
					maxWindow(y[o:o+g.C], index[o:o+g.C], image, corner, quick, insideOf(g, h, w), floor)
				}
			}
		}
	}
}

// inside is the part of a window that is in the image: rows [i0, i1), columns [j0, j1).
type inside struct {
	i0, i1, j0, j1 int
	g              device.PoolShape
}

func insideOf(g device.PoolShape, h, w int) inside {
	top, left := h*g.Stride-g.Pad, w*g.Stride-g.Pad
	return inside{max(0, -top), min(g.Size, g.H-top), max(0, -left), min(g.Size, g.W-left), g}
}

// maxWindow does one window, for channels from c0 on.
func maxWindow(y []float32, index []uint8, image []float32, corner, c0 int, in inside, floor float32) {
	g := in.g
	for c := c0; c < g.C; c++ {
		at := in.i0*g.Size + in.j0
		best := image[corner+(in.i0*g.W+in.j0)*g.C+c]
		for i := in.i0; i < in.i1; i++ {
			for j := in.j0; j < in.j1; j++ {
				// A NaN wins, so that it is not lost.
				if v := image[corner+(i*g.W+j)*g.C+c]; v > best || v != v {
					best, at = v, i*g.Size+j
				}
			}
		}
		y[c], index[c] = atLeast(floor, best), uint8(at)
	}
}

// MaxPoolBackward implements device.Ops.
func (s *stream) MaxPoolBackward(p device.MaxPoolBackward) {
	if !s.checkPool(p.Shape) {
		return
	}
	const op = "max pooling backward"
	g := p.Shape
	oh, ow := g.OutH(), g.OutW()
	dx := s.floats(op, "DX", p.DX, g.N*g.H*g.W*g.C)
	dy := s.floats(op, "DY", p.DY, g.N*oh*ow*g.C)
	y := s.floats(op, "Y", p.Y, g.N*oh*ow*g.C)
	index := s.bytes(op, "Index", p.Index, g.N*oh*ow*g.C)
	if s.err != nil {
		return
	}
	floor, quick := floorOf(p.Act), s.quick(g)
	if quick < g.C || g.H%2 != 0 || g.W%2 != 0 {
		clear(dx) // else every element is written below
	}
	for n := range g.N {
		image := dx[n*g.H*g.W*g.C : (n+1)*g.H*g.W*g.C]
		for h := range oh {
			for w := range ow {
				o := ((n*oh+h)*ow + w) * g.C
				corner := ((h*g.Stride-g.Pad)*g.W + w*g.Stride - g.Pad) * g.C
				if quick > 0 {
					s.k.spread4(&image[corner], &image[corner+g.C], &image[corner+g.W*g.C],
						&image[corner+(g.W+1)*g.C], &dy[o], &y[o], &index[o], quick, floor)
				}
				for c := quick; c < g.C; c++ {
					if !(y[o+c] <= floor) {
						i := int(index[o+c])
						image[corner+(i/g.Size*g.W+i%g.Size)*g.C+c] += dy[o+c]
					}
				}
			}
		}
	}
}
