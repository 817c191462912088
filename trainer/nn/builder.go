package nn

import (
	"fmt"
	"reflect"
	"strconv"

	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
)

// builder makes the layers of a Spec out of a list. The first fault is kept; nothing happens after it.
type builder struct {
	spec    *Spec
	data    data.Form
	outputs int     // values that the loss takes for each label
	layers  []layer // of the chain that is being built
	ends    []int   // by layer of that chain: how many parameters there were when it had been added
	now     shape   // of the samples at this point,
	form    form    // and what they are
	raw     bool    // an image as the data has it, (c, h, w)
	place   string  // of the entry that is being built: "model.layers[3] conv"
	depth   int
	names   map[string]string // of layers with parameters: their places
	err     error
}

// form is what the samples are between two layers.
type form uint8

const (
	vector   form = iota // (c)
	image                // (h, w, c)
	sequence             // (h, c)
	tokens               // (h) token numbers
	sparse               // c features, most of them 0
)

// words describes the samples at this point.
func (b *builder) words() string {
	s := b.now
	switch b.form {
	case image:
		return fmt.Sprintf("images of %dx%dx%d (channels, height, width)", s.c, s.h, s.w)
	case sequence:
		return fmt.Sprintf("sequences of %d positions of %d values", s.h, s.c)
	case tokens:
		return fmt.Sprintf("sequences of %d tokens", s.h)
	case sparse:
		return fmt.Sprintf("sparse samples of %d features", s.c)
	}
	return fmt.Sprintf("vectors of %d values", s.c)
}

// optionError is of kind ErrOption, whose text it has no need of.
type optionError string

func (e optionError) Error() string        { return string(e) }
func (e optionError) Is(target error) bool { return target == ErrOption }

func faultf(format string, args ...any) error { return optionError(fmt.Sprintf(format, args...)) }

func (b *builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = faultf("%s: %s", b.place, fmt.Sprintf(format, args...))
	}
}

// Bounds that keep every product of sizes within an int.
const (
	maxSize    = 1 << 20   // of one size
	maxValues  = 1 << 28   // of a sample, anywhere in the model
	maxParams  = 1<<31 - 1 // of the model
	maxOverall = 100_000   // layers in all lists together
)

// product multiplies sizes of up to maxSize each; more than limit is not ok.
func product(limit int, sizes ...int) (n int, ok bool) {
	n = 1
	for _, s := range sizes {
		if n *= s; n > limit {
			return 0, false
		}
	}
	return n, true
}

// input takes the form of the data.
func (b *builder) input() {
	in := b.data.Shape
	b.place = "data"
	if len(in) == 0 || len(in) > 3 {
		b.fail("samples of shape %v: one to three dimensions are needed (C, H, W)", in)
		return
	}
	for _, d := range in {
		if d < 1 || d > maxValues {
			b.fail("samples of shape %v: sizes must be from 1 to %d", in, maxValues)
			return
		}
	}
	total, ok := product(maxValues, in...)
	if !ok {
		b.fail("samples of shape %v: the product must be at most %d", in, maxValues)
		return
	}
	switch {
	case len(in) == 1 && b.data.Kind == data.Tokens:
		b.form, b.now = tokens, shape{c: 1, h: in[0], w: 1}
		b.spec.targets = in[0]
	case b.data.Kind == data.Tokens:
		b.fail("samples of shape %v: a sequence of tokens has one dimension", in)
	case b.data.Kind == data.Sparse:
		b.form, b.now, b.spec.entries = sparse, shape{c: total, h: 1, w: 1}, b.data.Entries
	case b.data.Kind == data.Keyed && len(in) == 1:
		b.form, b.now, b.spec.fields = vector, shape{c: total, h: 1, w: 1}, b.data.Fields
	case len(in) == 1:
		b.form, b.now = vector, shape{c: total, h: 1, w: 1}
	default: // [h, w] has one channel
		dims := [3]int{1, 1, 1}
		copy(dims[3-len(in):], in)
		b.form, b.now = image, shape{dims[0], dims[1], dims[2]}
		b.raw = !b.sameLayout()
	}
	b.spec.in = b.now
}

// list builds the entries of a list; path is its place. The names of its tensors begin with prefix, and go on with
// the name that a layer has, or else with numbered and its number.
func (b *builder) list(path, prefix, numbered string, entries []Layer) {
	outer := b.place
	defer func() { b.place = outer }()
	if b.depth++; b.depth > maxDepth+1 {
		b.fail("more than %d lists in each other", maxDepth)
	}
	for i, l := range entries {
		b.place = fmt.Sprintf("%s[%d]", path, i)
		name := b.check(l)
		if b.err != nil {
			return
		}
		if name == "" {
			name = numbered + strconv.Itoa(i)
		}
		b.place += " " + l.kind()
		l.build(b, prefix+name)
	}
	b.depth--
}

// check finds what ParseLayers would have refused, in layers that were written in Go, and returns their names.
func (b *builder) check(l Layer) (name string) {
	if b.spec.listed++; b.spec.listed > maxOverall {
		b.fail("the model has more than %d layers", maxOverall)
		return ""
	}
	v := reflect.ValueOf(l)
	if !v.IsValid() || v.Kind() == reflect.Pointer {
		b.fail("it is %T: write it as a value, like nn.Linear{Size: 10}", l)
		return ""
	}
	for i, f := range fieldsOf(v.Type()) {
		switch field := v.Field(i); field.Kind() {
		case reflect.Int:
			if n := field.Int(); n < 0 || n > maxSize || n == 0 && f.needed {
				b.place += " " + l.kind()
				b.fail("%s is %d, which is not a size from %d to %d", f.name, n, btoi(f.needed), maxSize)
			}
		case reflect.String:
			if name = field.String(); name != "" && !isName(name) {
				b.fail("%q is not a name", name)
			}
		}
	}
	return name
}

// add appends a layer to the chain.
func (b *builder) add(l layer) {
	if b.err != nil {
		return
	}
	b.layers, b.ends, b.now = append(b.layers, l), append(b.ends, b.spec.params), l.out()
	if b.depth == 1 && b.spec.params == 0 && len(b.spec.tables) == 0 {
		b.spec.start = len(b.layers) // the layer that comes next, at the earliest
	}
	if _, ok := product(maxValues, b.now.c, b.now.h, b.now.w); !ok {
		b.fail("what comes out, %s, is too large: at most %d values are possible", b.words(), maxValues)
	}
}

// last is the layer before this point in the chain; nil is none.
func (b *builder) last() layer {
	if len(b.layers) == 0 {
		return nil
	}
	return b.layers[len(b.layers)-1]
}

func (b *builder) param(name string, start Start, fanIn int, dims ...int) param {
	if b.err != nil {
		return param{}
	}
	n, ok := product(maxParams, dims...)
	if !ok || n > maxParams-b.spec.params {
		b.fail("the model has more than %d parameters", maxParams)
		return param{}
	}
	t := Tensor{Name: name, Shape: dims, Offset: b.spec.params, FanIn: fanIn, Start: start}
	b.spec.tensors = append(b.spec.tensors, t)
	b.spec.params += n
	return param{offset: t.Offset, n: n}
}

// weights are the parameters of one layer; bias may be none.
type weights struct{ weight, bias param }

// claim sees that no two layers have tensors of the same name.
func (b *builder) claim(name string) {
	if place, taken := b.names[name]; taken {
		b.fail("the name %s is that of %s too: give it another", name, place)
		return
	}
	b.names[name] = b.place
}

// linearWeights declares the parameters of a linear layer.
func (b *builder) linearWeights(name string, in, out int, bias bool) (w weights) {
	b.claim(name)
	w.weight = b.param(name+".weight", Uniform, in, out, in)
	if bias {
		w.bias = b.param(name+".bias", Uniform, in, out)
	}
	return w
}

// normWeights declares the parameters of a norm.
func (b *builder) normWeights(name string, channels int) weights {
	b.claim(name)
	return weights{b.param(name+".weight", Ones, channels, channels), b.param(name+".bias", Zeros, channels, channels)}
}

// everywhere is a linear layer for each position, or for a whole vector.
func (b *builder) everywhere(name string, out int, bias bool) {
	w := b.linearWeights(name, b.now.c, out, bias)
	b.add(&linear{to: shape{c: out, h: b.now.h, w: b.now.w}, in: b.now.c, weight: w.weight, bias: w.bias})
}

// The two layouts are the same where there is one channel or one pixel.
func (b *builder) sameLayout() bool { return b.now.c == 1 || b.now.h*b.now.w == 1 }

// channelsLast sees that the channels of a pixel lie side by side.
func (b *builder) channelsLast() {
	if b.raw {
		b.add(&toNHWC{b.now})
		b.raw = false
	}
}

// flatten makes images vectors.
func (b *builder) flatten() {
	if b.form != image {
		return
	}
	if !b.raw && !b.sameLayout() {
		b.add(&toNCHW{b.now})
	}
	b.raw, b.form, b.now = false, vector, shape{c: b.now.size(), h: 1, w: 1}
}

// needs fails where the samples are not of one of the forms.
func (b *builder) needs(what string, forms ...form) bool {
	for _, f := range forms {
		if b.form == f && b.err == nil {
			return true
		}
	}
	remedy := ""
	switch b.form {
	case tokens:
		remedy = ": begin with embedding, or use the model gpt"
	case sparse:
		remedy = ": begin with linear"
	}
	b.fail("it needs %s, here come %s%s", what, b.words(), remedy)
	return false
}

// activated is a layer that can do a ReLU on its output together with its work.
type activated interface{ activation() *device.Activation }

// residual adds body(x) + shortcut(x). The sum takes the place of the body's output, so the body's last layer must
// not need that any more: a ReLU there becomes a layer of its own.
func (b *builder) residual(body, shortcut func()) {
	if !b.needs("numbers", image, vector, sequence) {
		return
	}
	b.channelsLast()
	from, what := b.now, b.form
	inner := func(build func()) (chain []layer) {
		outer, ends := b.layers, b.ends
		b.layers, b.ends, b.now, b.form = nil, nil, from, what
		build()
		if b.takeReLU() {
			b.function(device.Rectifier)
		}
		chain, b.layers, b.ends = b.layers, outer, ends
		return chain
	}
	r := &residual{in: from, body: inner(body)}
	to, form, words := b.now, b.form, b.words()
	r.shortcut = inner(shortcut)
	switch {
	case len(r.body) == 0:
		b.fail("its body does nothing")
	case b.now != to || b.form != form:
		b.fail("%s come out of its body, %s of its shortcut: they must be the same", words, b.words())
	default:
		b.add(r)
	}
}

// takeReLU takes the ReLU off the end of the chain, if there is one.
func (b *builder) takeReLU() bool {
	if l, ok := b.last().(activated); ok && *l.activation() == device.ReLU {
		*l.activation() = device.Identity
		return true
	}
	return false
}
