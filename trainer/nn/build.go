package nn

import (
	"fmt"

	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
)

// Build makes a model for samples of a form.
func Build(m Model, in data.Form) (*Spec, error) {
	expanded, err := m.Expand()
	if err != nil {
		return nil, err
	}
	loss, err := m.lossFor(in)
	if err != nil {
		return nil, err
	}
	b := &builder{
		spec: &Spec{name: m.title(), loss: loss, classes: in.Classes, targets: 1, kind: in.Kind},
		data: in, outputs: loss.outputs(in.Classes), names: map[string]string{},
	}
	b.input()
	if in.Classes == 1 || in.Classes < 0 || in.Classes > maxValues {
		b.fail("%d classes: at least 2 are needed", in.Classes)
	}
	b.list("model.layers", "", "", expanded.Layers)
	b.output()
	if b.err != nil {
		if m.Name != "" {
			return nil, fmt.Errorf("model %s: %w", m.Name, b.err)
		}
		return nil, b.err
	}
	b.spec.layers, b.spec.ends = b.layers, b.ends
	return b.spec, nil
}

// output sees that what comes out of the last layer is what the loss takes.
func (b *builder) output() {
	b.place = "model.layers"
	values := b.now.size()
	if b.data.Kind == data.Tokens {
		if b.needs("sequences at the end, for the data has a label for each token", sequence); b.err != nil {
			return
		}
		values = b.now.c
	}
	switch {
	case b.err == nil && b.spec.params == 0:
		b.fail("no layer has anything to learn: add one that has, like linear")
	case b.form == image && b.now.h*b.now.w > 1, b.form == sequence && b.data.Kind != data.Tokens:
		b.fail("%s come out of the last layer: end with one that makes vectors, like {linear: outputs}", b.words())
	case b.spec.loss == CrossEntropy && values < b.outputs:
		b.fail("%d values come out of the last layer, the loss %s over %d classes needs as many: end with {linear: outputs}", values, b.spec.loss, b.outputs)
	case b.spec.loss != CrossEntropy && values != 1:
		b.fail("%d values come out of the last layer, the loss %s needs one: end with {linear: outputs}", values, b.spec.loss)
	}
	if b.spec.loss == CrossEntropy {
		b.spec.classes = values // there may be room for more than the data has
	}
}

func (l Linear) build(b *builder, name string) {
	out := l.Size
	if out == 0 {
		out = b.outputs
	}
	if b.form == sparse {
		w := b.linearWeights(name, b.now.c, out, !l.NoBias)
		b.add(&sparseLinear{to: shape{c: out, h: 1, w: 1}, in: b.now.c, weight: w.weight, bias: w.bias})
		b.form = vector
		return
	}
	b.flatten()
	if b.needs("numbers", vector, sequence) {
		b.everywhere(name, out, !l.NoBias)
	}
}

func (l Conv) build(b *builder, name string) {
	if !b.needs("images", image) {
		return
	}
	b.channelsLast()
	g := device.ConvShape{C: b.now.c, H: b.now.h, W: b.now.w, Out: l.Channels, KH: l.Kernel, KW: l.Kernel, Stride: max(1, l.Stride), Pad: l.Pad}
	switch {
	case g.Pad >= l.Kernel:
		b.fail("pad is %d, it must be smaller than kernel, which is %d", l.Pad, l.Kernel)
	case g.H+2*g.Pad < g.KH || g.W+2*g.Pad < g.KW:
		b.fail("a kernel of %d does not fit into %s with pad %d", l.Kernel, b.words(), l.Pad)
	}
	b.claim(name)
	fan, _ := product(maxParams, g.C, l.Kernel, l.Kernel)
	c := &conv{geometry: g, weight: b.param(name+".weight", Uniform, fan, l.Channels, g.C, l.Kernel, l.Kernel)}
	if !l.NoBias {
		c.bias = b.param(name+".bias", Uniform, fan, l.Channels)
	}
	b.add(c)
}

// maxWindow is the largest window of a pooling that devices take.
const maxWindow = 15

// window checks the geometry of a pooling; the default of stride is size.
func (b *builder) window(size, stride, pad int) device.PoolShape {
	g := device.PoolShape{C: b.now.c, H: b.now.h, W: b.now.w, Size: size, Stride: stride, Pad: pad}
	if stride == 0 {
		g.Stride = size
	}
	switch {
	case size > maxWindow:
		b.fail("size is %d, it can be at most %d", size, maxWindow)
	case 2*pad > size:
		b.fail("pad is %d, it can be at most half of size, which is %d", pad, size)
	case g.H+2*pad < size || g.W+2*pad < size:
		b.fail("a window of %d does not fit into %s", size, b.words())
	}
	return g
}

// build has a ReLU before the maximum come after it: they commute, and there it has fewer elements to do.
func (l MaxPool) build(b *builder, _ string) {
	if !b.needs("images", image) {
		return
	}
	b.channelsLast()
	pool := &maxPool{geometry: b.window(l.Size, l.Stride, l.Pad)}
	if b.err != nil {
		return
	}
	switch b.last().(type) {
	case *conv, *batchNorm:
		if b.takeReLU() {
			pool.act = device.ReLU
		}
	}
	b.add(pool)
}

func (l AveragePool) build(b *builder, _ string) {
	if !b.needs("images", image) {
		return
	}
	b.channelsLast()
	if l.Size == 0 {
		if l.Stride != 0 {
			b.fail("stride has no meaning without size")
		}
		b.add(&globalPool{b.now})
		return
	}
	if g := b.window(l.Size, l.Stride, 0); b.err == nil {
		b.add(&averagePool{g})
	}
}

func (l BatchNorm) build(b *builder, name string) {
	if !b.needs("images or vectors", image, vector) {
		return
	}
	if b.spec.fields > 0 {
		b.fail("its statistics cannot be observed where samples have keys of tables: use layer_norm")
		return
	}
	b.channelsLast()
	w := b.normWeights(name, b.now.c)
	b.add(&batchNorm{s: b.now, gamma: w.weight, beta: w.bias, stats: param{b.spec.stats, 2 * b.now.c}})
	b.spec.stats += 2 * b.now.c
}

func (l LayerNorm) build(b *builder, name string) {
	if !b.needs("numbers", image, vector, sequence) {
		return
	}
	b.channelsLast()
	w := b.normWeights(name, b.now.c)
	b.add(&layerNorm{s: b.now, gamma: w.weight, beta: w.bias})
}

func (ReLU) build(b *builder, _ string) {
	if l, ok := b.last().(activated); ok {
		*l.activation() = device.ReLU
		return
	}
	b.function(device.Rectifier)
}

func (GELU) build(b *builder, _ string)    { b.function(device.GELU) }
func (SiLU) build(b *builder, _ string)    { b.function(device.SiLU) }
func (Tanh) build(b *builder, _ string)    { b.function(device.Tanh) }
func (Sigmoid) build(b *builder, _ string) { b.function(device.Sigmoid) }

func (b *builder) function(f device.Function) {
	if b.needs("numbers", image, vector, sequence) {
		b.add(&function{b.now, f})
	}
}

func (l Dropout) build(b *builder, _ string) {
	switch {
	case !(l.P >= 0 && l.P < 1):
		b.fail("p is %v, it must be from 0 to below 1", l.P)
	case b.spec.dropouts == 1<<16-1:
		b.fail("the model has more than %d dropouts", b.spec.dropouts)
	case b.needs("numbers", image, vector, sequence):
		b.add(&dropout{s: b.now, p: float32(l.P), number: uint16(b.spec.dropouts)})
		b.spec.dropouts++
	}
}

func (Flatten) build(b *builder, _ string) {
	if b.needs("images or vectors", image, vector) {
		b.flatten()
	}
}

func (l Embedding) build(b *builder, name string) {
	if !b.needs("tokens, as data.source text has them, and to be the first layer", tokens) {
		return
	}
	vocab := l.Vocab
	if vocab == 0 {
		vocab = b.data.Classes
	}
	if vocab < b.data.Classes {
		b.fail("vocab is %d, the data has %d different tokens", vocab, b.data.Classes)
	}
	b.claim(name)
	b.add(&embedding{to: shape{c: l.Width, h: b.now.h, w: 1}, vocab: vocab, table: b.param(name+".weight", Normal, l.Width, vocab, l.Width)})
	b.form, b.spec.vocab = sequence, vocab
}

func (l Positions) build(b *builder, name string) {
	e, ok := b.last().(*embedding)
	if !ok || e.context > 0 {
		b.fail("it must stand directly behind embedding")
		return
	}
	e.context = l.Context
	if e.context == 0 {
		e.context = b.now.h
	}
	if e.context < b.now.h {
		b.fail("context is %d, samples have %d tokens", e.context, b.now.h)
	}
	b.claim(name)
	e.positions = b.param(name+".weight", Normal, b.now.c, e.context, b.now.c)
	b.ends[len(b.ends)-1] = b.spec.params
}

func (l Attention) build(b *builder, name string) {
	if !b.needs("sequences", sequence) {
		return
	}
	width := b.now.c
	if width%l.Heads != 0 {
		b.fail("heads is %d, which does not divide the width, %d", l.Heads, width)
		return
	}
	b.everywhere(name+".qkv", 3*width, true)
	b.add(&attention{device.AttentionShape{T: b.now.h, Heads: l.Heads, Width: width / l.Heads, Causal: l.Causal}})
	b.everywhere(name+".proj", width, true)
}

func (l Transformer) build(b *builder, name string) {
	if !b.needs("sequences", sequence) {
		return
	}
	hidden := l.Hidden
	if hidden == 0 {
		hidden = 4 * b.now.c
	}
	width := b.now.c
	dropout := func() {
		if l.Dropout != 0 {
			Dropout{P: l.Dropout}.build(b, "")
		}
	}
	b.residual(func() {
		LayerNorm{}.build(b, name+".norm1")
		Attention{Heads: l.Heads, Causal: l.Causal}.build(b, name)
		dropout()
	}, func() {})
	b.residual(func() {
		LayerNorm{}.build(b, name+".norm2")
		b.everywhere(name+".fc1", hidden, true)
		GELU{}.build(b, "")
		b.everywhere(name+".fc2", width, true)
		dropout()
	}, func() {})
}

func (l Residual) build(b *builder, name string) {
	b.residual(
		func() { b.list(placeOf(b.place, "body"), name+".", "", l.Body) },
		func() { b.list(placeOf(b.place, "shortcut"), name+".", "shortcut.", l.Shortcut) },
	)
}
