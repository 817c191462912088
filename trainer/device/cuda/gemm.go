package cuda

import (
	"strings"

	"github.com/musterml/muster/trainer/device"
)

// product is a tiled product: M x N sums of K products each.
type product struct {
	kernel  string // the base of its name
	m, n, k int
	split   bool // may be cut along K
	bias    pointer
	act     device.Activation
}

const (
	largeTile = 128
	sliceK    = 32   // parts are whole slices
	minPart   = 1024 // of a K that is cut
	mostParts = 32
)

// tiles are the kernels of a precision: on the ordinary cores (kernels/gemm.cuh), or on tensor cores (kernels/tensor.cuh), whose tiles lie in
// shared memory that a launch asks for: 3 stages of 32 by the height and the width, of 4 bytes.
type tiles struct {
	suffix                   string
	small                    int
	sharedSmall, sharedLarge int // bytes
}

func tilesOf(p device.Precision) tiles {
	const stages = 3 * 32 * 4
	switch p {
	case device.TF32, device.BF16:
		return tiles{suffix: "_" + string(p), small: 64, sharedSmall: stages * 2 * 64, sharedLarge: stages * 2 * largeTile}
	}
	return tiles{small: 32}
}

// parts is in how many parts K is cut, and how long they are: a function of the product's shape alone.
func (p *product) parts() (n, length int) {
	tiles := ceil(p.m, largeTile) * ceil(p.n, largeTile)
	if !p.split || tiles >= 2*mostParts || p.k < 2*minPart {
		return 1, p.k
	}
	length = ceil(max(minPart, ceil(p.k, mostParts)), sliceK) * sliceK
	return ceil(p.k, length), length
}

// multiply launches p into out; args makes the kernel's arguments from where the parts go and how long they are.
func multiply[A any](s *stream, p product, out pointer, args func(partial pointer, partK int64) A) {
	parts, length := p.parts()
	t := tilesOf(s.d.precision)
	tile, size, shared := t.small, "_small", t.sharedSmall
	if parts*ceil(p.m, largeTile)*ceil(p.n, largeTile) >= s.d.gpu.processors() {
		tile, size, shared = largeTile, "_large", t.sharedLarge
	}
	var partial pointer
	if parts > 1 {
		partial = s.room(0, 4*parts*p.m*p.n)
	}
	launchShared(s, s.name(p.kernel, t.suffix, size), [3]int{ceil(p.m, tile), ceil(p.n, tile), parts}, blockThreads, shared, args(partial, int64(length)))
	if parts > 1 {
		s.end(out, partial, p.bias, p.m, p.n, parts, p.act)
	}
}

// name joins the parts of a kernel's name, once for each.
func (s *stream) name(parts ...string) string {
	key := [3]string(parts)
	name, ok := s.names[key]
	if !ok {
		name = strings.Join(parts, "")
		s.names[key] = name
	}
	return name
}

// end adds the parts of a product, its bias, and applies its activation.
func (s *stream) end(out, partial, bias pointer, m, n, parts int, act device.Activation) {
	launch(s, "gemm_parts", each(m*n), blockThreads, struct {
		c, partial, bias   pointer
		m, n, parts, apply int64
	}{out, partial, bias, int64(m), int64(n), int64(parts), int64(act)})
}

type matmulArgs struct {
	a, b, c, bias, partial      pointer
	m, n, k, act, partK, vector int64
}

var matmuls = [...]string{device.NN: "matmul_nn", device.NT: "matmul_nt", device.TN: "matmul_tn"}

// MatMul implements device.Ops.
func (s *stream) MatMul(p device.MatMul) {
	const op = "matrix product"
	if !s.sized(op, p.M, p.N, p.K) {
		return
	}
	args := matmulArgs{
		s.floats(op, "A", p.A, p.M*p.K), s.floats(op, "B", p.B, p.K*p.N), s.floats(op, "C", p.C, p.M*p.N), s.optional(op, "Bias", p.Bias, p.N), 0,
		int64(p.M), int64(p.N), int64(p.K), int64(p.Act), 0, 0,
	}
	lineA, lineB := p.K, p.N // elements that follow one another
	if p.Trans == device.TN {
		lineA = p.M
	}
	if p.Trans == device.NT {
		lineB = p.K
	}
	args.vector = vectors(args.a, lineA, args.b, lineB)
	if s.d.library {
		s.multiplyByLibrary(p, args)
		return
	}
	// Rows of NN and NT are samples: their sums must not depend on how many there are.
	g := product{kernel: matmuls[p.Trans%3], m: p.M, n: p.N, k: p.K, split: p.Trans == device.TN, bias: args.bias, act: p.Act}
	multiply(s, g, args.c, func(partial pointer, partK int64) matmulArgs {
		args.partial, args.partK = partial, partK
		return args
	})
}

// vectors says which operands can be read 4 elements at once: their lines begin at multiples of 16 bytes.
func vectors(a pointer, lineA int, b pointer, lineB int) (bits int64) {
	if a%16 == 0 && lineA%4 == 0 {
		bits |= 1
	}
	if b%16 == 0 && lineB%4 == 0 {
		bits |= 2
	}
	return bits
}

type convArgs struct {
	x, w, dy, bias, out, partial                                        pointer
	n, c, h, wide, outs, kh, kw, stride, pad, oh, ow, act, part, vector int64
}

func convOf(g device.ConvShape) convArgs {
	return convArgs{
		n: int64(g.N), c: int64(g.C), h: int64(g.H), wide: int64(g.W), outs: int64(g.Out), kh: int64(g.KH), kw: int64(g.KW),
		stride: int64(g.Stride), pad: int64(g.Pad), oh: int64(g.OutH()), ow: int64(g.OutW()),
	}
}

// convolve launches a convolution, or one of its gradients.
func (s *stream) convolve(p product, args convArgs) {
	p.bias = args.bias
	multiply(s, p, args.out, func(partial pointer, partK int64) convArgs {
		args.partial, args.part = partial, partK
		return args
	})
}

// tapsFirst is weights (Out, C, KH, KW) as tensor cores want them, (Out, KH, KW, C); others take them as they are.
func (s *stream) tapsFirst(w pointer, g device.ConvShape) pointer {
	if s.d.precision == device.FP32 || g.KH*g.KW == 1 || s.err != nil {
		return w
	}
	turned := s.room(1, 4*g.Out*g.C*g.KH*g.KW)
	s.transposeAt(turned, w, g.Out, g.C, g.KH*g.KW, 1)
	return turned
}

func (s *stream) valid(g interface{ Validate() error }) bool {
	if err := g.Validate(); err != nil {
		s.fail(err)
	}
	return s.err == nil
}

// Conv2D implements device.Ops.
func (s *stream) Conv2D(p device.Conv2D) {
	const op = "convolution"
	g := p.Shape
	if !s.valid(g) {
		return
	}
	pixels, taps := g.N*g.OutH()*g.OutW(), g.KH*g.KW*g.C
	args := convOf(g)
	args.x, args.w = s.floats(op, "X", p.X, g.N*g.H*g.W*g.C), s.tapsFirst(s.floats(op, "W", p.W, g.Out*taps), g)
	args.vector = vectors(args.x, g.C, args.w, g.C)
	args.bias, args.out, args.act = s.optional(op, "Bias", p.Bias, g.Out), s.floats(op, "Y", p.Y, pixels*g.Out), int64(p.Act)
	s.convolve(product{kernel: "conv", m: pixels, n: g.Out, k: taps, act: p.Act}, args)
}

// Conv2DBackwardData implements device.Ops.
func (s *stream) Conv2DBackwardData(p device.Conv2DBackwardData) {
	const op = "gradient of a convolution's input"
	g := p.Shape
	if !s.valid(g) {
		return
	}
	args := convOf(g)
	args.out, args.w = s.floats(op, "DX", p.DX, g.N*g.H*g.W*g.C), s.tapsFirst(s.floats(op, "W", p.W, g.Out*g.C*g.KH*g.KW), g)
	args.dy = s.floats(op, "DY", p.DY, g.N*g.OutH()*g.OutW()*g.Out)
	args.vector = vectors(args.dy, g.Out, args.w, g.C)
	s.convolve(product{kernel: "conv_backward_data", m: g.N * g.H * g.W, n: g.C, k: g.KH * g.KW * g.Out}, args)
}

// Conv2DBackwardWeight implements device.Ops.
func (s *stream) Conv2DBackwardWeight(p device.Conv2DBackwardWeight) {
	const op = "gradient of a convolution's weights"
	g := p.Shape
	if !s.valid(g) {
		return
	}
	pixels, taps := g.N*g.OutH()*g.OutW(), g.KH*g.KW*g.C
	args := convOf(g)
	args.x, args.dy = s.floats(op, "X", p.X, g.N*g.H*g.W*g.C), s.floats(op, "DY", p.DY, pixels*g.Out)
	args.out = s.floats(op, "DW", p.DW, g.Out*taps)
	args.vector = vectors(args.dy, g.Out, args.x, g.C)
	s.convolve(product{kernel: "conv_backward_weight", m: g.Out, n: taps, k: pixels, split: true}, args)
}
