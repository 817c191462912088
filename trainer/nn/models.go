package nn

import (
	"fmt"
	"sort"
	"strings"

	"github.com/musterml/muster/trainer/device"
)

// model is an entry of the list of models.
type model struct {
	options []string // the names it knows
	build   func(b *builder, o options)
}

// models is the list of models; it is never written to.
var models = map[string]model{
	"linear": {build: buildLinear},
	"mlp":    {options: []string{"hidden"}, build: buildMLP},
	"lenet":  {options: []string{"channels", "hidden"}, build: buildLeNet},
}

// Names lists the models, sorted.
func Names() []string {
	var names []string
	for name := range models {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Build makes the model of that name for samples of shape in (C, H, W; models of dense
// layers alone take any shape) and that many classes.
//
//	linear  softmax regression; no options
//	mlp     dense layers with ReLU; hidden: sizes of the layers between (default [512, 256])
//	lenet   two 3x3 convolutions with ReLU and 2x2 max pooling, then two dense layers;
//	        channels: of the convolutions (default [32, 64]), hidden: size of the first dense layer (128)
func Build(name string, opts map[string]any, in []int, classes int) (*Spec, error) {
	m, ok := models[name]
	if !ok {
		return nil, fmt.Errorf("%w %q: known models are %s", ErrUnknownModel, name, strings.Join(Names(), ", "))
	}
	b := &builder{spec: &Spec{name: name, classes: classes}}
	b.input(in)
	if classes < 2 {
		b.fail("%d classes: at least 2 are needed", classes)
	}
	o := options{b: b, known: m.options, given: opts}
	o.checkNames()
	if b.err == nil {
		m.build(b, o)
	}
	if b.err != nil {
		return nil, fmt.Errorf("model %s: %w: %w", name, ErrOption, b.err)
	}
	return b.spec, nil
}

func buildLinear(b *builder, _ options) {
	b.linear("0", b.spec.classes, device.Identity)
}

// buildMLP names layers as in nn.Sequential(Linear, ReLU, Linear, ReLU, ..., Linear).
func buildMLP(b *builder, o options) {
	hidden := o.sizes("hidden", []int{512, 256}, -1)
	for i, n := range hidden {
		b.linear(fmt.Sprint(2*i), n, device.ReLU)
	}
	b.linear(fmt.Sprint(2*len(hidden)), b.spec.classes, device.Identity)
}

// buildLeNet names layers as in nn.Sequential(Conv2d, ReLU, MaxPool2d, Conv2d, ReLU, MaxPool2d,
// Flatten, Linear, ReLU, Linear).
func buildLeNet(b *builder, o options) {
	channels, hidden := o.sizes("channels", []int{32, 64}, 2), o.size("hidden", 128)
	if b.err == nil && (b.spec.in.h < 4 || b.spec.in.w < 4) {
		b.fail("images of %dx%d are too small, two 2x2 poolings need at least 4x4", b.spec.in.h, b.spec.in.w)
	}
	if b.err != nil {
		return
	}
	b.toNHWC()
	b.conv("0", channels[0], 3, 1, device.Identity)
	b.maxPool(2, device.ReLU)
	b.conv("3", channels[1], 3, 1, device.Identity)
	b.maxPool(2, device.ReLU)
	b.toNCHW()
	b.linear("7", hidden, device.ReLU)
	b.linear("9", b.spec.classes, device.Identity)
}

// builder appends layers to a Spec. The first fault is kept; nothing happens after it.
type builder struct {
	spec *Spec
	now  shape // of the samples at this point
	err  error
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
	b.spec.layers = append(b.spec.layers, l)
	b.now = l.out()
}

func (b *builder) param(name string, fanIn int, dims ...int) param {
	t := Tensor{Name: name, Shape: dims, Offset: b.spec.params, FanIn: fanIn}
	b.spec.tensors = append(b.spec.tensors, t)
	b.spec.params += t.Len()
	if b.spec.params > 1<<31-1 {
		b.fail("more than 2^31 parameters")
	}
	return param{offset: t.Offset, n: t.Len()}
}

func (b *builder) linear(name string, out int, act device.Activation) {
	if b.err != nil {
		return
	}
	in := b.now.size()
	b.add(&linear{in: in, outputs: out, act: act,
		weight: b.param(name+".weight", in, out, in), bias: b.param(name+".bias", in, out)})
}

func (b *builder) conv(name string, out, kernel, pad int, act device.Activation) {
	if b.err != nil {
		return
	}
	g := device.ConvShape{C: b.now.c, H: b.now.h, W: b.now.w, Out: out, KH: kernel, KW: kernel, Stride: 1, Pad: pad}
	fan := g.C * kernel * kernel
	b.add(&conv{geometry: g, act: act,
		weight: b.param(name+".weight", fan, out, g.C, kernel, kernel), bias: b.param(name+".bias", fan, out)})
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
