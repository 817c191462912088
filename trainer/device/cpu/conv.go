package cpu

import "github.com/musterml/muster/trainer/device"

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
	if !fits(groupRows*(shape.H+2*shape.KH)*(shape.W+2*shape.KW)*c, shape.N*shape.H*shape.W*c, shape.KH*shape.KW*shape.C*shape.Out) {
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
	pixels, size := g.OutH()*g.OutW(), g.H*g.W*g.C
	x := s.floats(op, "X", c.X, g.N*size)
	w := s.floats(op, "W", c.W, g.Out*g.C*g.KH*g.KW)
	y := s.floats(op, "Y", c.Y, g.N*pixels*g.Out)
	bias := s.optional(op, "Bias", c.Bias, g.Out)
	if s.err != nil {
		return
	}
	p := s.plan(g)
	weights := s.packWeights(p, w)
	for n := 0; n < g.N; n += p.group {
		m := min(p.group, g.N-n)
		s.correlate(correlation{
			image: p.in.fill(x[n*size:], m), pixels: p.pixels[:m*pixels], window: p.window, weights: weights,
			out: y[n*pixels*g.Out : (n+m)*pixels*g.Out], channels: g.Out, bias: bias, floor: floorOf(c.Act),
		})
	}
}

// Conv2DBackwardData implements device.Ops: for each phase a correlation of the output's gradient
// with its part of the weights, turned by 180 degrees.
func (s *stream) Conv2DBackwardData(c device.Conv2DBackwardData) {
	if !s.check(c.Shape) {
		return
	}
	const op = "convolution backward, data"
	g := c.Shape
	pixels, size := g.OutH()*g.OutW(), g.H*g.W*g.C
	dx := s.floats(op, "DX", c.DX, g.N*size)
	w := s.floats(op, "W", c.W, g.Out*g.C*g.KH*g.KW)
	dy := s.floats(op, "DY", c.DY, g.N*pixels*g.Out)
	if s.err != nil {
		return
	}
	p := s.plan(g)
	weights := s.packPhases(p, w)
	for n := 0; n < g.N; n += p.group {
		m := min(p.group, g.N-n)
		image := p.out.fill(dy[n*pixels*g.Out:], m)
		for i := range p.phases {
			a := &p.phases[i]
			out := dx[n*size : (n+m)*size]
			if g.Stride > 1 {
				out = grown(&s.phased, m*a.nh*a.nw*g.C)
			}
			if len(a.taps) == 0 {
				clear(out)
			} else {
				s.correlate(correlation{
					image: image, pixels: a.pixels[:m*a.nh*a.nw], window: a.across,
					weights: weights[p.panelsOfPhases(i, s.k.nr):], out: out, channels: g.C, floor: floorNone,
				})
			}
			if g.Stride > 1 {
				a.scatter(g, dx[n*size:], out, m)
			}
		}
	}
}

// scatter puts the pixels of a phase where they belong in the first m images of dx.
func (a *phase) scatter(g device.ConvShape, dx, from []float32, m int) {
	for n := range m {
		for i := range a.nh {
			row := dx[((n*g.H+a.h0+i*g.Stride)*g.W+a.w0)*g.C:]
			for j := range a.nw {
				copy(row[j*g.Stride*g.C:][:g.C], from[((n*a.nh+i)*a.nw+j)*g.C:])
			}
		}
	}
}

// correlation is the convolution of a group of images: out (len(pixels), channels).
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
			g.spread(s.k.mr)
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
	pixels, size := g.OutH()*g.OutW(), g.H*g.W*g.C
	x := s.floats(op, "X", c.X, g.N*size)
	dw := s.floats(op, "DW", c.DW, g.Out*g.C*g.KH*g.KW)
	dy := s.floats(op, "DY", c.DY, g.N*pixels*g.Out)
	if s.err != nil {
		return
	}
	p := s.plan(g)
	sums := grown(&s.weights, len(dw))
	for n := 0; n < g.N; n += p.sums {
		m := min(p.sums, g.N-n)
		var to []float32
		if n+m == g.N {
			to = dw
		}
		s.addWeights(p, sums, p.in.fill(x[n*size:], m), dy[n*pixels*g.Out:(n+m)*pixels*g.Out], n > 0, to)
	}
}

// addWeights adds a group's contribution to sums (len(p.places), Out), or begins it: a matrix product whose rows are
// the places in the window. With the last group they are complete, and go to dw.
func (s *stream) addWeights(p *convPlan, sums, image, dy []float32, resume bool, dw []float32) {
	nr, out := s.k.nr, p.shape.Out
	q := product{m: len(p.places), n: out, k: len(dy) / out, b: dy, ldb: out}
	kc := blocks(q.k)
	for k0 := 0; k0 < q.k; k0 += kc {
		kn := min(kc, q.k-k0)
		dys := panels{v: dy[k0*out:], ld: out, direct: true}
		if !s.direct(q.m, out, kn*out, false) {
			dys = s.pack(&q, k0, kn, kn, 0, out)
		}
		for i0 := 0; i0 < q.m; i0 += p.some {
			rows := p.places[i0:min(q.m, i0+p.some)]
			for j := 0; j < out; j += nr {
				g := band{a: image, ro: rows, ko: p.pixels[k0 : k0+kn], b: dys.at(0, kn, j), ldb: dys.ld,
					c: sums[i0*out+j:], ldc: out, width: min(nr, out-j), resume: resume || k0 > 0, floor: floorNone}
				g.spread(s.k.mr)
				s.run(&g)
				if dw != nil && k0+kn == q.k {
					s.turnWeights(p, dw, &g, i0, j)
				}
			}
		}
	}
}

// turnWeights writes what a band has computed, for some input channels and the output channels from j on, to dw
// (Out, C, KH, KW). There output channels are far apart, so few are turned at a time: their lines stay in the cache until they are full.
func (s *stream) turnWeights(p *convPlan, dw []float32, g *band, i0, j int) {
	k := len(p.places)
	taps := p.shape.KH * p.shape.KW
	channels := len(g.ro) / taps
	for o := 0; o < g.width; o += s.k.turns {
		to := s.offsets.get(min(s.k.turns, g.width-o), k)
		for c := range channels {
			s.scatter(dw[(j+o)*k+i0+c*taps:], to, g.c[c*g.ldc+o:], channels*g.ldc, taps, 2*g.ldc)
		}
	}
}
