package cpu

import "github.com/musterml/muster/trainer/device"

// convPlan is what convolutions of one geometry need besides their operands: offset tables
// and scratch. "Window" tables give the place of an element (kh, kw, channel) of a window
// relative to the window's corner, "pixel" tables that of a window's corner in the padded image.
type convPlan struct {
	shape device.ConvShape // N = 0

	// Forward and weights: the input, zero-padded by Pad (PH, PW, C).
	ph, pw         int
	padded         []float32 // the border stays zero for ever; nil when Pad = 0
	pixels, window []int32   // (OutH*OutW), (KH*KW*C)

	// Backward data: the output's gradient with Stride-1 zeros between its pixels and a border
	// such that a KH x KW window fits at every input pixel (H+KH-1, W+KW-1, Out).
	spread             []float32
	backPixels, across []int32 // (H*W), (KH*KW*Out)

	weights []float32 // packed for the current call: panels of (K, nr)
	wgrad   []float32 // (KH*KW*C, Out), the gradient before it takes the layout of the weights
}

func (s *stream) plan(shape device.ConvShape) *convPlan {
	shape.N = 0
	if p := s.plans[shape]; p != nil {
		return p
	}
	p := &convPlan{shape: shape, ph: shape.H + 2*shape.Pad, pw: shape.W + 2*shape.Pad}
	oh, ow := shape.OutH(), shape.OutW()
	if shape.Pad > 0 {
		p.padded = make([]float32, p.ph*p.pw*shape.C)
	}
	p.pixels = grid(oh, ow, 1, shape.Stride*p.pw*shape.C, shape.Stride*shape.C)
	p.window = grid(shape.KH, shape.KW, shape.C, p.pw*shape.C, shape.C)
	sh, sw := shape.H+shape.KH-1, shape.W+shape.KW-1
	p.spread = make([]float32, sh*sw*shape.Out)
	p.backPixels = grid(shape.H, shape.W, 1, sw*shape.Out, shape.Out)
	p.across = grid(shape.KH, shape.KW, shape.Out, sw*shape.Out, shape.Out)
	nr := s.k.nr
	up := func(n int) int { return (n + nr - 1) / nr * nr }
	taps := shape.KH * shape.KW
	p.weights = make([]float32, max(taps*shape.C*up(shape.Out), taps*shape.Out*up(shape.C)))
	p.wgrad = make([]float32, taps*shape.C*shape.Out)
	s.plans[shape] = p
	return p
}

// grid is the table (i, j, l) -> i*di + j*dj + l.
func grid(ni, nj, nl, di, dj int) []int32 {
	t := make([]int32, 0, ni*nj*nl)
	for i := range ni {
		for j := range nj {
			for l := range nl {
				t = append(t, int32(i*di+j*dj+l))
			}
		}
	}
	return t
}

// check validates a convolution's geometry.
func (s *stream) check(shape device.ConvShape) bool {
	if s.err != nil {
		return false
	}
	if err := shape.Validate(); err != nil {
		s.fail(err)
		return false
	}
	c := max(shape.C, shape.Out)
	if !fits((shape.H+2*shape.KH)*(shape.W+2*shape.KW)*c, shape.N*shape.H*shape.W*c, shape.KH*shape.KW*shape.C*shape.Out) {
		s.fail(errTooLarge)
		return false
	}
	return true
}

// Conv2D implements device.Ops.
func (s *stream) Conv2D(c device.Conv2D) {
	if !s.check(c.Shape) {
		return
	}
	const op = "convolution"
	g := c.Shape
	pixels := g.OutH() * g.OutW()
	x := s.floats(op, "X", c.X, g.N*g.H*g.W*g.C)
	w := s.floats(op, "W", c.W, g.Out*g.C*g.KH*g.KW)
	y := s.floats(op, "Y", c.Y, g.N*pixels*g.Out)
	bias := s.optional(op, "Bias", c.Bias, g.Out)
	if s.err != nil {
		return
	}
	p := s.plan(g)
	p.packWeights(w, s.k.nr)
	for n := range g.N {
		s.correlate(correlation{
			image: p.pad(x[n*g.H*g.W*g.C:]), pixels: p.pixels, window: p.window, weights: p.weights,
			out: y[n*pixels*g.Out : (n+1)*pixels*g.Out], channels: g.Out, bias: bias, floor: floorOf(c.Act),
		})
	}
}

// Conv2DBackwardData implements device.Ops: a correlation of the spread gradient with the
// weights turned by 180 degrees.
func (s *stream) Conv2DBackwardData(c device.Conv2DBackwardData) {
	if !s.check(c.Shape) {
		return
	}
	const op = "convolution backward, data"
	g := c.Shape
	pixels := g.OutH() * g.OutW()
	dx := s.floats(op, "DX", c.DX, g.N*g.H*g.W*g.C)
	w := s.floats(op, "W", c.W, g.Out*g.C*g.KH*g.KW)
	dy := s.floats(op, "DY", c.DY, g.N*pixels*g.Out)
	if s.err != nil {
		return
	}
	p := s.plan(g)
	p.packTurned(w, s.k.nr)
	for n := range g.N {
		p.spreadOut(dy[n*pixels*g.Out:])
		s.correlate(correlation{
			image: p.spread, pixels: p.backPixels, window: p.across, weights: p.weights,
			out: dx[n*g.H*g.W*g.C : (n+1)*g.H*g.W*g.C], channels: g.C, floor: floorNone,
		})
	}
}

// correlation is one image's convolution: out (len(pixels), channels).
type correlation struct {
	image          []float32
	pixels, window []int32
	weights        []float32 // panels of (len(window), nr)
	out            []float32
	channels       int
	bias           []float32
	floor          float32
}

func (s *stream) correlate(c correlation) {
	k, nr := len(c.window), s.k.nr
	kc := blocks(k)
	for j := 0; j < c.channels; j += nr {
		g := band{a: c.image, ro: c.pixels, ldb: nr, c: c.out[j:], ldc: c.channels, width: min(nr, c.channels-j)}
		if c.bias != nil {
			g.start = c.bias[j:]
		}
		for k0 := 0; k0 < k; k0 += kc {
			kn := min(kc, k-k0)
			g.ko, g.b = c.window[k0:k0+kn], c.weights[j*k+k0*nr:]
			g.resume, g.floor = k0 > 0, floorNone
			if k0+kn == k {
				g.floor = c.floor
			}
			s.run(&g)
		}
	}
}

// Conv2DBackwardWeight implements device.Ops: rows are the places in the window, k runs
// over the pixels of all samples, B is dy as it lies.
func (s *stream) Conv2DBackwardWeight(c device.Conv2DBackwardWeight) {
	if !s.check(c.Shape) {
		return
	}
	const op = "convolution backward, weights"
	g := c.Shape
	pixels := g.OutH() * g.OutW()
	x := s.floats(op, "X", c.X, g.N*g.H*g.W*g.C)
	dw := s.floats(op, "DW", c.DW, g.Out*g.C*g.KH*g.KW)
	dy := s.floats(op, "DY", c.DY, g.N*pixels*g.Out)
	if s.err != nil {
		return
	}
	p := s.plan(g)
	for n := range g.N {
		s.addWeights(p, p.pad(x[n*g.H*g.W*g.C:]), dy[n*pixels*g.Out:(n+1)*pixels*g.Out], n > 0)
	}
	taps := g.KH * g.KW
	for t := range taps {
		for ci := range g.C {
			row := p.wgrad[(t*g.C+ci)*g.Out : (t*g.C+ci+1)*g.Out]
			for o, v := range row {
				dw[(o*g.C+ci)*taps+t] = v
			}
		}
	}
}

// addWeights adds one sample's contribution to p.wgrad, or begins it.
func (s *stream) addWeights(p *convPlan, image, dy []float32, resume bool) {
	nr, out := s.k.nr, p.shape.Out
	kc := blocks(len(p.pixels))
	for j := 0; j < out; j += nr {
		g := band{a: image, ro: p.window, c: p.wgrad[j:], ldc: out, width: min(nr, out-j), floor: floorNone}
		for k0 := 0; k0 < len(p.pixels); k0 += kc {
			kn := min(kc, len(p.pixels)-k0)
			g.ko = p.pixels[k0 : k0+kn]
			g.b, g.ldb = dy[k0*out+j:], out
			if g.width < nr {
				packRows(s.panel, nr, dy[k0*out+j:], out, g.width, kn)
				g.b, g.ldb = s.panel, nr
			}
			g.resume = resume || k0 > 0
			s.run(&g)
		}
	}
}

// pad is one image (H, W, C) with its border of zeros.
func (p *convPlan) pad(x []float32) []float32 {
	g := p.shape
	if g.Pad == 0 {
		return x
	}
	row := g.W * g.C
	for h := range g.H {
		copy(p.padded[((h+g.Pad)*p.pw+g.Pad)*g.C:][:row], x[h*row:(h+1)*row])
	}
	return p.padded
}

// spreadOut lays one image of dy (OutH, OutW, Out) out in p.spread.
func (p *convPlan) spreadOut(dy []float32) {
	g := p.shape
	oh, ow, sw := g.OutH(), g.OutW(), g.W+g.KW-1
	for h := range oh {
		base := ((h*g.Stride+g.KH-1-g.Pad)*sw + g.KW - 1 - g.Pad) * g.Out
		row := dy[h*ow*g.Out : (h+1)*ow*g.Out]
		if g.Stride == 1 {
			copy(p.spread[base:], row)
			continue
		}
		for w := range ow {
			copy(p.spread[base+w*g.Stride*g.Out:], row[w*g.Out:(w+1)*g.Out])
		}
	}
}

// packWeights turns w (Out, C, KH, KW) into panels of (KH*KW*C, nr) for output channels.
func (p *convPlan) packWeights(w []float32, nr int) {
	g := p.shape
	taps := g.KH * g.KW
	k := taps * g.C
	clear(p.weights)
	for o := range g.Out {
		panel := p.weights[o/nr*nr*k+o%nr:]
		for c := range g.C {
			for t, v := range w[(o*g.C+c)*taps : (o*g.C+c+1)*taps] {
				panel[(t*g.C+c)*nr] = v
			}
		}
	}
}

// packTurned turns w (Out, C, KH, KW) into panels of (KH*KW*Out, nr) for input channels, the
// window turned by 180 degrees.
func (p *convPlan) packTurned(w []float32, nr int) {
	g := p.shape
	taps := g.KH * g.KW
	k := taps * g.Out
	clear(p.weights)
	for o := range g.Out {
		for c := range g.C {
			panel := p.weights[c/nr*nr*k+c%nr:]
			for t, v := range w[(o*g.C+c)*taps : (o*g.C+c+1)*taps] {
				panel[((taps-1-t)*g.Out+o)*nr] = v
			}
		}
	}
}
