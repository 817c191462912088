package nn

import (
	"fmt"

	"github.com/musterml/muster/trainer/device"
)

// builder appends layers to a Spec. The first fault is kept; nothing happens after it.
type builder struct {
	spec     *Spec
	layers   []layer // of the chain that is being built
	declared []int   // by layer of that chain, as Spec.declared
	now      shape   // of the samples at this point
	err      error
}

func (b *builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// maxSize bounds every size, so that products of a few of them cannot overflow.
const maxSize = 1 << 20

func (b *builder) input(in []int) {
	if len(in) == 0 || len(in) > 3 {
		b.fail("samples of shape %v: one to three dimensions are needed (C, H, W)", in)
		return
	}
	total := 1
	for _, d := range in {
		if d < 1 || d > maxSize || total*d > 1<<28 {
			b.fail("samples of shape %v: sizes must be from 1 to %d and their product at most %d", in, maxSize, 1<<28)
			return
		}
		total *= d
	}
	dims := [3]int{1, 1, 1} // [n] is n channels of 1x1, [h, w] one channel
	switch len(in) {
	case 1:
		dims[0] = in[0]
	default:
		copy(dims[3-len(in):], in)
	}
	b.now = shape{dims[0], dims[1], dims[2]}
	b.spec.in = b.now
}

func (b *builder) add(l layer) {
	b.layers = append(b.layers, l)
	b.declared = append(b.declared, b.spec.params)
	b.now = l.out()
}

func (b *builder) param(name string, start Start, fanIn int, dims ...int) param {
	t := Tensor{Name: name, Shape: dims, Offset: b.spec.params, FanIn: fanIn, Start: start}
	b.spec.tensors = append(b.spec.tensors, t)
	b.spec.params += t.Len()
	if b.spec.params > 1<<31-1 {
		b.fail("more than 2^31 parameters")
	}
	return param{offset: t.Offset, n: t.Len()}
}

// weights are the parameters of one layer; bias may be none.
type weights struct{ weight, bias param }

// linearWeights declares the parameters of a linear layer.
func (b *builder) linearWeights(name string, in, out int, bias bool) (w weights) {
	w.weight = b.param(name+".weight", Uniform, in, out, in)
	if bias {
		w.bias = b.param(name+".bias", Uniform, in, out)
	}
	return w
}

// normWeights declares the parameters of a norm.
func (b *builder) normWeights(name string, channels int) weights {
	return weights{b.param(name+".weight", Ones, channels, channels), b.param(name+".bias", Zeros, channels, channels)}
}

// linear takes whole samples, as they lie in memory.
func (b *builder) linear(name string, out int, act device.Activation) {
	if b.err != nil {
		return
	}
	in := b.now.size()
	b.now = shape{c: in, h: 1, w: 1}
	b.everywhere(out, act, b.linearWeights(name, in, out, true))
}

// everywhere is a linear layer for each position.
func (b *builder) everywhere(out int, act device.Activation, w weights) {
	if b.err == nil {
		b.add(&linear{to: shape{c: out, h: b.now.h, w: b.now.w}, in: b.now.c, act: act, weight: w.weight, bias: w.bias})
	}
}

// conv is a square convolution whose padding keeps the size if the stride is 1.
func (b *builder) conv(name string, out, kernel, stride int, bias bool) {
	if b.err != nil {
		return
	}
	g := device.ConvShape{C: b.now.c, H: b.now.h, W: b.now.w, Out: out, KH: kernel, KW: kernel, Stride: stride, Pad: kernel / 2}
	fan := g.C * kernel * kernel
	l := &conv{geometry: g, weight: b.param(name+".weight", Uniform, fan, out, g.C, kernel, kernel)}
	if bias {
		l.bias = b.param(name+".bias", Uniform, fan, out)
	}
	b.add(l)
}

func (b *builder) batchNorm(name string, act device.Activation) {
	if b.err == nil {
		w := b.normWeights(name, b.now.c)
		b.add(&batchNorm{s: b.now, gamma: w.weight, beta: w.bias, act: act})
	}
}

func (b *builder) layerNorm(w weights) {
	if b.err == nil {
		b.add(&layerNorm{s: b.now, gamma: w.weight, beta: w.bias})
	}
}

// residual adds y = act(body(x) + shortcut(x)); a shortcut of nil is x itself.
func (b *builder) residual(act device.Activation, body, shortcut func()) {
	if b.err != nil {
		return
	}
	l := &residual{in: b.now, act: act}
	inner := func(f func()) (chain []layer) {
		outer, declared := b.layers, b.declared
		b.layers, b.declared, b.now = nil, nil, l.in
		f()
		chain, b.layers, b.declared = b.layers, outer, declared
		return chain
	}
	l.body = inner(body)
	to := b.now
	b.now = l.in
	if shortcut != nil {
		l.shortcut = inner(shortcut)
	}
	if b.now != to {
		b.fail("a residual of %v onto %v", to, b.now)
	}
	if b.err == nil {
		b.add(l)
	}
}

func (b *builder) maxPool(size int, act device.Activation) {
	if b.err != nil {
		return
	}
	b.add(&maxPool{geometry: device.PoolShape{C: b.now.c, H: b.now.h, W: b.now.w, Size: size, Stride: size}, act: act})
}

// The two layouts are the same where there is one channel or one pixel.
func (b *builder) sameLayout() bool { return b.now.c == 1 || b.now.h*b.now.w == 1 }

func (b *builder) toNHWC() {
	if b.err == nil && !b.sameLayout() {
		b.add(&toNHWC{b.now})
	}
}

func (b *builder) toNCHW() {
	if b.err == nil && !b.sameLayout() {
		b.add(&toNCHW{b.now})
	}
}
