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
	"linear":   {build: buildLinear},
	"mlp":      {options: []string{"hidden"}, build: buildMLP},
	"lenet":    {options: []string{"channels", "hidden"}, build: buildLeNet},
	"resnet18": {options: []string{"channels"}, build: buildResNet18},
	"gpt":      {options: []string{"vocab", "width", "heads", "layers", "context"}, build: buildGPT},
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
//	resnet18  eight residual blocks of two 3x3 convolutions with batch norm, behind a 3x3 convolution (the stem for
//	        images of 32x32); channels: of each two blocks (default [64, 128, 256, 512])
//	gpt     a causal transformer with layer norm first, on samples of shape [T] that are tokens, classes many;
//	        vocab: room in the table of tokens (default: classes), width: channels (256), heads: of attention (8),
//	        layers: blocks (4), context: room in the table of positions (default: T)
func Build(name string, opts map[string]any, in []int, classes int) (*Spec, error) {
	m, ok := models[name]
	if !ok {
		return nil, fmt.Errorf("%w %q: known models are %s", ErrUnknownModel, name, strings.Join(Names(), ", "))
	}
	b := &builder{spec: &Spec{name: name, classes: classes, targets: 1}}
	b.input(in)
	if classes < 2 {
		b.fail("%d classes: at least 2 are needed", classes)
	}
	o := options{b: b, known: m.options, given: opts}
	o.checkNames()
	if b.err == nil {
		m.build(b, o)
		b.spec.layers, b.spec.declared = b.layers, b.declared
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
	b.conv("0", channels[0], 3, 1, true)
	b.maxPool(2, device.ReLU)
	b.conv("3", channels[1], 3, 1, true)
	b.maxPool(2, device.ReLU)
	b.toNCHW()
	b.linear("7", hidden, device.ReLU)
	b.linear("9", b.spec.classes, device.Identity)
}

// buildResNet18 names layers as ResNet18 of ../shared/peers/torch/models.py does.
func buildResNet18(b *builder, o options) {
	channels := o.sizes("channels", []int{64, 128, 256, 512}, 4)
	b.toNHWC()
	b.conv("features.0", channels[0], 3, 1, false)
	b.batchNorm("features.1", device.ReLU)
	for i := range 8 {
		stride := 1
		if i > 0 && i%2 == 0 {
			stride = 2
		}
		b.residualBlock(fmt.Sprintf("features.%d", i+3), channels[i/2], stride)
	}
	if b.err == nil {
		b.add(&averagePool{b.now})
	}
	b.linear("classifier", b.spec.classes, device.Identity)
}

func (b *builder) residualBlock(name string, out, stride int) {
	body := func() {
		b.conv(name+".conv1", out, 3, stride, false)
		b.batchNorm(name+".bn1", device.ReLU)
		b.conv(name+".conv2", out, 3, 1, false)
		b.batchNorm(name+".bn2", device.Identity)
	}
	var shortcut func()
	if stride != 1 || b.now.c != out {
		shortcut = func() {
			b.conv(name+".shortcut.0", out, 1, stride, false)
			b.batchNorm(name+".shortcut.1", device.Identity)
		}
	}
	b.residual(device.ReLU, body, shortcut)
}

// buildGPT names layers as GPT of ../shared/peers/torch/models.py does. The order of the tensors is that
// of its state_dict, not that of the computation.
func buildGPT(b *builder, o options) {
	t := b.spec.in.size()
	vocab, context := o.size("vocab", b.spec.classes), o.size("context", t)
	width, heads, layers := o.size("width", 256), o.size("heads", 8), o.size("layers", 4)
	switch {
	case b.spec.in != shape{c: t, h: 1, w: 1}:
		b.fail("samples of shape %v: a sequence of tokens has one dimension", b.spec.in)
	case vocab < b.spec.classes:
		b.fail("vocab is %d, the data has %d different tokens", vocab, b.spec.classes)
	case context < t:
		b.fail("context is %d, samples have %d tokens", context, t)
	case width%heads != 0:
		b.fail("width is %d, it must be a multiple of heads, which is %d", width, heads)
	}
	if b.err != nil {
		return
	}
	b.spec.tokens, b.spec.targets, b.spec.classes = true, t, vocab
	b.spec.in = shape{c: 1, h: t, w: 1}
	b.add(&embedding{to: shape{c: width, h: t, w: 1}, vocab: vocab, context: context,
		table: b.param("token_emb.weight", Normal, width, vocab, width), positions: b.param("pos_emb.weight", Normal, width, context, width)})
	for i := range layers {
		b.transformerBlock(fmt.Sprintf("blocks.%d", i), heads)
	}
	b.layerNorm(b.normWeights("norm", width))
	b.everywhere(vocab, device.Identity, b.linearWeights("head", width, vocab, false))
}

func (b *builder) transformerBlock(name string, heads int) {
	width := b.now.c
	norm1, norm2 := b.normWeights(name+".norm1", width), b.normWeights(name+".norm2", width)
	qkv, proj := b.linearWeights(name+".qkv", width, 3*width, true), b.linearWeights(name+".proj", width, width, true)
	fc1, fc2 := b.linearWeights(name+".fc1", width, 4*width, true), b.linearWeights(name+".fc2", 4*width, width, true)
	b.residual(device.Identity, func() {
		b.layerNorm(norm1)
		b.everywhere(3*width, device.Identity, qkv)
		b.add(&attention{device.AttentionShape{T: b.now.h, Heads: heads, Width: width / heads, Causal: true}})
		b.everywhere(width, device.Identity, proj)
	}, nil)
	b.residual(device.Identity, func() {
		b.layerNorm(norm2)
		b.everywhere(4*width, device.Identity, fc1)
		b.add(&function{b.now, device.GELU})
		b.everywhere(width, device.Identity, fc2)
	}, nil)
}
