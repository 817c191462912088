package cuda

import "github.com/musterml/muster/trainer/device"

type poolArgs struct {
	out, in, y, index                            pointer
	n, c, h, w, size, stride, pad, oh, ow, apply int64
	factor                                       float32
}

// pool launches a kernel with a thread for each of the elements.
func (s *stream) pool(kernel string, elements int, g device.PoolShape, act device.Activation, a poolArgs) {
	a.n, a.c, a.h, a.w, a.size, a.stride, a.pad = int64(g.N), int64(g.C), int64(g.H), int64(g.W), int64(g.Size), int64(g.Stride), int64(g.Pad)
	a.oh, a.ow, a.apply, a.factor = int64(g.OutH()), int64(g.OutW()), int64(act), 1/float32(g.Size*g.Size)
	launch(s, kernel, each(elements), blockThreads, a)
}

// poolSizes are the elements of the image and of the pooled one.
func poolSizes(g device.PoolShape) (image, pooled int) {
	return g.N * g.H * g.W * g.C, g.N * g.OutH() * g.OutW() * g.C
}

// MaxPool implements device.Ops.
func (s *stream) MaxPool(p device.MaxPool) {
	const op = "max pooling"
	if s.valid(p.Shape) {
		image, n := poolSizes(p.Shape)
		o := s.outputs(op, p.X)
		s.pool(o.kernel("max_pool"), n, p.Shape, p.Act, poolArgs{
			out: o.at("Y", p.Y, n), in: o.at("X", p.X, image), index: s.want(op, "Index", p.Index, n, device.Uint8),
		})
	}
}

// MaxPoolBackward implements device.Ops.
func (s *stream) MaxPoolBackward(p device.MaxPoolBackward) {
	const op = "gradient of max pooling"
	if s.valid(p.Shape) {
		image, n := poolSizes(p.Shape)
		o := s.outputs(op, p.DY)
		s.pool(o.kernel("max_pool_backward"), image, p.Shape, p.Act, poolArgs{
			out: o.at("DX", p.DX, image), in: o.at("DY", p.DY, n),
			y: o.at("Y", p.Y, n), index: s.want(op, "Index", p.Index, n, device.Uint8),
		})
	}
}

// AveragePool implements device.Ops.
func (s *stream) AveragePool(p device.AveragePool) {
	const op = "average pooling"
	if s.valid(p.Shape) {
		image, n := poolSizes(p.Shape)
		o := s.outputs(op, p.X)
		s.pool(o.kernel("average_pool"), n, p.Shape, device.Identity, poolArgs{out: o.at("Y", p.Y, n), in: o.at("X", p.X, image)})
	}
}

// AveragePoolBackward implements device.Ops.
func (s *stream) AveragePoolBackward(p device.AveragePoolBackward) {
	const op = "gradient of average pooling"
	if s.valid(p.Shape) {
		image, n := poolSizes(p.Shape)
		o := s.outputs(op, p.DY)
		s.pool(o.kernel("average_pool_backward"), image, p.Shape, device.Identity, poolArgs{out: o.at("DX", p.DX, image), in: o.at("DY", p.DY, n)})
	}
}

type globalPoolArgs struct {
	out, in      pointer
	n, pixels, c int64
}

// GlobalAveragePool implements device.Ops.
func (s *stream) GlobalAveragePool(y, x device.Buffer, n, pixels, c int) {
	const op = "global average pooling"
	if s.sized(op, n, pixels, c) {
		o := s.outputs(op, x)
		launch(s, o.kernel("global_average_pool"), each(n*c), blockThreads,
			globalPoolArgs{o.at("y", y, n*c), o.at("x", x, n*pixels*c), int64(n), int64(pixels), int64(c)})
	}
}

// GlobalAveragePoolBackward implements device.Ops.
func (s *stream) GlobalAveragePoolBackward(dx, dy device.Buffer, n, pixels, c int) {
	const op = "gradient of global average pooling"
	if s.sized(op, n, pixels, c) {
		o := s.outputs(op, dy)
		launch(s, o.kernel("global_average_pool_backward"), each(n*pixels*c), blockThreads,
			globalPoolArgs{o.at("dx", dx, n*pixels*c), o.at("dy", dy, n*c), int64(n), int64(pixels), int64(c)})
	}
}
