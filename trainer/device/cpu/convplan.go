package cpu

import "github.com/musterml/muster/trainer/device"

// groupRows is how many pixels should meet a panel of weights at least: small images are done several
// at a time, or the weights would come from far away for each. groupSums is how many a gradient of the weights
// should add at a time, lest its sums be loaded and stored for a few products only. The results do not depend on either.
const (
	groupRows = 128
	groupSums = 512
)

// groupChannels is for how many input channels a gradient of the weights is computed and then brought to its layout, while
// it is near.
const groupChannels = 64

// convPlan is what convolutions of one geometry need besides their operands: offset tables and frames.
// "Window" tables give the place of an element (kh, kw, channel) of a window relative to the window's
// corner, "pixel" tables that of a window's corner in the frame, of one image after the other.
type convPlan struct {
	shape device.ConvShape // N = 0
	group int              // images at a time
	sums  int              // images at a time for the gradient of the weights, no fewer

	// Forward and weights.
	in             frame   // the input with its padding
	pixels, window []int32 // (sums*OutH*OutW), (KH*KW*C)
	packed         []int32 // where in a panel the element (channel, kh, kw) of a window is
	places         []int32 // the window again, but groupChannels by groupChannels,
	some           int     // which are so many places

	// Backward data. With a stride the pixels of the input fall into Stride*Stride phases, each of which saw
	// other elements of the window.
	out    frame // the output's gradient with what windows reach beyond it
	phases []phase
}

// phase is the pixels (h0 + i*Stride, w0 + j*Stride), i < nh and j < nw, of the input.
type phase struct {
	h0, w0, nh, nw int
	taps           []int   // the places kh*KW + kw that met them, in falling order
	packed         []int32 // where in a panel these places are, for output channel 0; of others, anywhere before the last
	pixels, across []int32 // (group*nh*nw), (len(taps)*Out)
}

func (s *stream) plan(shape device.ConvShape) *convPlan {
	shape.N = 0
	if p := s.plans[shape]; p != nil {
		return p
	}
	g := shape
	oh, ow := g.OutH(), g.OutW()
	p := &convPlan{shape: g, group: max(1, groupRows/(oh*ow)), sums: max(1, groupSums/(oh*ow))}
	p.in = newFrame(p.sums, g.H, g.W, g.C, g.Pad, g.Pad, g.H+2*g.Pad, g.W+2*g.Pad)
	p.pixels = table(dim{p.sums, p.in.size()}, dim{oh, g.Stride * p.in.row()}, dim{ow, g.Stride * g.C})
	p.window = table(dim{g.KH, p.in.row()}, dim{g.KW, g.C}, dim{g.C, 1})
	p.some = groupChannels * g.KH * g.KW
	for c := 0; c < g.C; c += groupChannels {
		for _, at := range table(dim{g.KH, p.in.row()}, dim{g.KW, g.C}, dim{min(groupChannels, g.C-c), 1}) {
			p.places = append(p.places, int32(c)+at)
		}
	}
	p.packed = table(dim{g.C, s.k.nr}, dim{g.KH * g.KW, g.C * s.k.nr})
	// Pixel h met the window's row kh in row (h+Pad-kh)/Stride of the output.
	top, left := (g.KH-1-g.Pad)/g.Stride, (g.KW-1-g.Pad)/g.Stride
	p.out = newFrame(p.group, oh, ow, g.Out, top, left,
		top+max(oh, (g.H-1+g.Pad)/g.Stride+1), left+max(ow, (g.W-1+g.Pad)/g.Stride+1))
	for h0 := range min(g.Stride, g.H) {
		for w0 := range min(g.Stride, g.W) {
			p.phases = append(p.phases, p.phase(h0, w0, s.k.nr))
		}
	}
	s.plans[shape] = p
	return p
}

func (p *convPlan) phase(h0, w0, nr int) phase {
	g, f := p.shape, &p.out
	a := phase{h0: h0, w0: w0, nh: (g.H-h0-1)/g.Stride + 1, nw: (g.W-w0-1)/g.Stride + 1}
	a.pixels = table(dim{p.group, f.size()}, dim{a.nh, f.row()}, dim{a.nw, f.c})
	for kh := g.KH - 1; kh >= 0; kh-- {
		for kw := g.KW - 1; kw >= 0; kw-- {
			dh, dw := h0+g.Pad-kh, w0+g.Pad-kw
			if dh%g.Stride != 0 || dw%g.Stride != 0 {
				continue
			}
			a.taps = append(a.taps, kh*g.KW+kw)
			corner := (f.top+dh/g.Stride)*f.row() + (f.left+dw/g.Stride)*f.c
			for o := range g.Out {
				a.across = append(a.across, int32(corner+o))
			}
		}
	}
	if len(a.taps) > 0 {
		a.packed = make([]int32, a.taps[0]+1)
		for i, t := range a.taps {
			a.packed[t] = int32(i * g.Out * nr)
		}
	}
	return a
}

// dim is a dimension of a table: how many, how far apart.
type dim struct{ n, step int }

// table lists the offsets of all places of a box, the last dimension fastest.
func table(dims ...dim) []int32 {
	t := []int32{0}
	for _, d := range dims {
		next := make([]int32, 0, len(t)*d.n)
		for _, base := range t {
			for i := range d.n {
				next = append(next, base+int32(i*d.step))
			}
		}
		t = next
	}
	return t
}

// frame holds images (h, w, c) within a border of zeros.
type frame struct {
	h, w, c   int
	top, left int       // border before
	fh, fw    int       // with the border
	v         []float32 // (images, fh, fw, c), the border zero for ever; nil when there is none
}

func newFrame(images, h, w, c, top, left, fh, fw int) frame {
	f := frame{h: h, w: w, c: c, top: top, left: left, fh: fh, fw: fw}
	if fh > h || fw > w {
		f.v = make([]float32, images*f.size())
	}
	return f
}

func (f *frame) size() int { return f.fh * f.fw * f.c }
func (f *frame) row() int  { return f.fw * f.c }

// fill puts the first n images of x into the frame.
func (f *frame) fill(x []float32, n int) []float32 {
	if f.v == nil {
		return x
	}
	row := f.w * f.c
	for i := range n {
		for h := range f.h {
			copy(f.v[i*f.size()+(f.top+h)*f.row()+f.left*f.c:][:row], x[(i*f.h+h)*row:][:row])
		}
	}
	return f.v
}

// grown is b with at least n elements, made anew if it has fewer.
func grown[T any](b *[]T, n int) []T {
	if len(*b) < n {
		*b = make([]T, n)
	}
	return (*b)[:n]
}

// packWeights turns w (Out, C, KH, KW) into panels of (KH*KW*C, nr) for output channels.
func (s *stream) packWeights(p *convPlan, w []float32) []float32 {
	nr, out, k := s.k.nr, p.shape.Out, len(p.window)
	weights := grown(&s.weights, (out+nr-1)/nr*nr*k)
	for o := 0; o < out; o += nr {
		s.scatter(weights[o*k:], p.packed, w[o*k:], k, min(nr, out-o), turnAhead)
	}
	return weights
}

// packPhases turns w (Out, C, KH, KW) into panels of (len(taps)*Out, nr) for input channels, phase after phase.
func (s *stream) packPhases(p *convPlan, w []float32) []float32 {
	g, nr := p.shape, s.k.nr
	taps := g.KH * g.KW
	weights := grown(&s.weights, p.panelsOfPhases(len(p.phases), nr))
	for i := range p.phases {
		a := &p.phases[i]
		if len(a.taps) == 0 {
			continue
		}
		panels := weights[p.panelsOfPhases(i, nr):]
		for c := 0; c < g.C; c += nr {
			panel := panels[c*len(a.across):]
			for o := range g.Out {
				s.scatter(panel[o*nr:], a.packed, w[(o*g.C+c)*taps:], taps, min(nr, g.C-c), 2*g.C*taps)
			}
		}
	}
	return weights
}

// panelsOfPhases is the size of the panels of the first n phases.
func (p *convPlan) panelsOfPhases(n, nr int) (size int) {
	for i := range p.phases[:n] {
		size += len(p.phases[i].across) * (p.shape.C + nr - 1) / nr * nr
	}
	return size
}
