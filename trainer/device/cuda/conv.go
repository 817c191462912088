package cuda

import (
	"fmt"
	"math"

	"github.com/musterml/muster/trainer/device"
)

type convArgs struct {
	x, w, dy, bias, out, partial                                pointer
	n, c, h, wide, outs, kh, kw, stride, pad, oh, ow, act, part int64
}

// tensorConvArgs are the same for tensor cores.
type tensorConvArgs struct {
	x, w, dy, bias, out, partial                                      pointer
	n, c, h, wide, outs, kh, kw, stride, pad, oh, ow, act, half, part int64
	firstH, firstW                                                    int64
}

func convOf(g device.ConvShape) convArgs {
	return convArgs{
		n: int64(g.N), c: int64(g.C), h: int64(g.H), wide: int64(g.W), outs: int64(g.Out), kh: int64(g.KH), kw: int64(g.KW),
		stride: int64(g.Stride), pad: int64(g.Pad), oh: int64(g.OutH()), ow: int64(g.OutW()),
	}
}

// convolve launches a convolution, or one of its gradients. For tensor cores its two factors, the others being 0, are rounded before; x and dy say of what kind these
// are.
func (s *stream) convolve(p product, g device.ConvShape, args convArgs, x, dy device.Kind) {
	p.bias = args.bias
	n := chunk(s.d.precision)
	if n == 0 || s.err != nil {
		multiply(s, p, args.out, func(partial pointer, partK int64) convArgs {
			args.partial, args.part = partial, partK
			return args
		})
		return
	}
	words := 4 * max(g.N*g.H*g.W*ceil(g.C, n), g.N*g.OutH()*g.OutW()*ceil(g.Out, n))
	if max(g.N*g.H*g.W, p.m, p.k) > math.MaxInt32 || max(g.C, g.Out, g.H*g.W*g.C, g.OutH()*g.OutW()*g.Out) > math.MaxInt32/16 || words > math.MaxUint32 {
		s.fail(fmt.Errorf("convolution %+v: too large for %s", g, s.d.precision))
		return
	}
	if args.x != 0 {
		args.x = s.rounded(roomOfRight, factor{args.x, x, g.N * g.H * g.W, g.C, 1})
	}
	if args.w != 0 {
		args.w = s.rounded(roomOfWeights, factor{args.w, device.Float32, g.Out * g.KH * g.KW, g.C, g.KH * g.KW})
	}
	if args.w == 0 {
		p.padded = g.KH * g.KW * ceil(g.C, n) * n
	}
	if args.dy != 0 {
		args.dy = s.rounded(roomOfLeft, factor{args.dy, dy, g.N * g.OutH() * g.OutW(), g.Out, 1})
	}
	part := func(firstH, firstW int) {
		multiply(s, p, args.out, func(partial pointer, partK int64) tensorConvArgs {
			return tensorConvArgs{
				args.x, args.w, args.dy, args.bias, args.out, partial, args.n, args.c, args.h, args.wide, args.outs, args.kh, args.kw, args.stride, args.pad,
				args.oh, args.ow, args.act, outputs{kind: p.out}.half(), partK, int64(firstH), int64(firstW),
			}
		})
	}
	if args.x != 0 {
		part(0, 0)
		return
	}
	for h := range min(g.Stride, g.H) { // each launch makes every stride-th pixel of x: those that see the same taps
		for w := range min(g.Stride, g.W) {
			p.m = g.N * ceil(g.H-h, g.Stride) * ceil(g.W-w, g.Stride)
			part(h, w)
		}
	}
	s.factors.wrote(args.out, sizeOf(p.out)*g.N*g.H*g.W*g.C, len(s.calls))
}

func (s *stream) valid(g interface{ Validate() error }) bool {
	if err := g.Validate(); err != nil {
		s.fail(err)
	}
	return s.err == nil
}

// pointwise tells that a convolution sees each pixel by itself: so it is a matrix product, and so are its gradients.
func pointwise(g device.ConvShape) bool { return g.KH*g.KW == 1 && g.Stride == 1 && g.Pad == 0 }

// Conv2D implements device.Ops.
func (s *stream) Conv2D(p device.Conv2D) {
	const op = "convolution"
	g := p.Shape
	if !s.valid(g) {
		return
	}
	if pointwise(g) {
		s.MatMul(device.MatMul{Trans: device.NT, M: g.N * g.H * g.W, N: g.Out, K: g.C, A: p.X, B: p.W, C: p.Y, Bias: p.Bias, Act: p.Act})
		return
	}
	pixels, taps := g.N*g.OutH()*g.OutW(), g.KH*g.KW*g.C
	args, in, out := convOf(g), s.outputs(op, p.X), s.outputs(op, p.Y)
	args.x, args.w = in.at("X", p.X, g.N*g.H*g.W*g.C), s.floats(op, "W", p.W, g.Out*taps)
	args.bias, args.out, args.act = s.optional(op, "Bias", p.Bias, g.Out), out.at("Y", p.Y, pixels*g.Out), int64(p.Act)
	s.convolve(product{kernel: "conv", m: pixels, n: g.Out, k: taps, act: p.Act, out: out.kind}, g, args, in.kind, 0)
}

// Conv2DBackwardData implements device.Ops.
func (s *stream) Conv2DBackwardData(p device.Conv2DBackwardData) {
	const op = "gradient of a convolution's input"
	g := p.Shape
	if !s.valid(g) {
		return
	}
	if pointwise(g) {
		s.MatMul(device.MatMul{Trans: device.NN, M: g.N * g.H * g.W, N: g.C, K: g.Out, A: p.DY, B: p.W, C: p.DX})
		return
	}
	args, o := convOf(g), s.outputs(op, p.DY)
	args.out, args.w = o.at("DX", p.DX, g.N*g.H*g.W*g.C), s.floats(op, "W", p.W, g.Out*g.C*g.KH*g.KW)
	args.dy = o.at("DY", p.DY, g.N*g.OutH()*g.OutW()*g.Out)
	s.convolve(product{kernel: "conv_backward_data", m: g.N * g.H * g.W, n: g.C, k: g.KH * g.KW * g.Out, out: o.kind}, g, args, 0, o.kind)
}

// Conv2DBackwardWeight implements device.Ops.
func (s *stream) Conv2DBackwardWeight(p device.Conv2DBackwardWeight) {
	const op = "gradient of a convolution's weights"
	g := p.Shape
	if !s.valid(g) {
		return
	}
	if pointwise(g) {
		s.MatMul(device.MatMul{Trans: device.TN, M: g.Out, N: g.C, K: g.N * g.H * g.W, A: p.DY, B: p.X, C: p.DW})
		return
	}
	pixels, taps := g.N*g.OutH()*g.OutW(), g.KH*g.KW*g.C
	args, x, dy := convOf(g), s.outputs(op, p.X), s.outputs(op, p.DY)
	args.x, args.dy = x.at("X", p.X, g.N*g.H*g.W*g.C), dy.at("DY", p.DY, pixels*g.Out)
	args.out = s.floats(op, "DW", p.DW, g.Out*taps)
	s.convolve(product{kernel: "conv_backward_weight", m: g.Out, n: taps, k: pixels, split: true}, g, args, x.kind, dy.kind)
}
