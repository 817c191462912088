package nn

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/data"
)

// parse takes a list as JSON, which YAML contains.
func parse(t testing.TB, list string) ([]Layer, error) {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(list), &v); err != nil {
		t.Fatalf("%v: %s", err, list)
	}
	return ParseLayers(v)
}

// listCase is a model as a list of layers.
type listCase struct {
	list string
	in   data.Form
	loss Loss
}

func (c listCase) build(t testing.TB) *Spec {
	t.Helper()
	layers, err := parse(t, c.list)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Build(Model{Layers: layers, Loss: c.loss}, c.in)
	if err != nil {
		t.Fatalf("%v: %s", err, c.list)
	}
	return s
}

var (
	vectors  = data.Form{Shape: []int{7}, Classes: 3}
	pictures = data.Form{Shape: []int{2, 8, 7}, Classes: 3}
	texts    = data.Form{Kind: data.Tokens, Shape: []int{6}, Classes: 9}
	numbers  = data.Form{Shape: []int{5}}
	features = data.Form{Kind: data.Sparse, Shape: []int{11}, Classes: 2, Entries: 4}
)

// lists have every layer in some place where it is not alone: first, last of a body, before and behind a ReLU.
var lists = []listCase{
	{`["linear"]`, numbers, ""},
	{`[{"linear": 4}, "tanh", {"linear": "outputs"}]`, numbers, ""},
	{`["linear"]`, features, BinaryCrossEntropy},
	{`[{"linear": 6}, "relu", {"dropout": 0.3}, {"linear": {"size": "outputs", "bias": false}}]`, features, ""},
	{`[{"linear": 4}, "silu", {"linear": 1}]`, data.Form{Kind: data.Sparse, Shape: []int{11}, Entries: 3}, ""},
	{`["relu", {"linear": 5}, "batch_norm", "sigmoid", {"linear": {"bias": false}}]`, vectors, ""},
	{`["layer_norm", {"linear": 5}, "gelu", {"dropout": 0.5}, {"linear": 4}]`, vectors, ""},
	{`[{"linear": 5}, "relu", {"linear": 1}]`, data.Form{Shape: []int{7}, Classes: 2}, BinaryCrossEntropy},
	{`[{"conv": {"channels": 3, "kernel": 3, "stride": 2, "pad": 1}}, "relu", "flatten", "relu", "linear"]`, pictures, ""},
	{`[{"conv": {"channels": 4, "kernel": 2, "bias": false}}, "batch_norm", "relu", {"max_pool": {"size": 3, "stride": 2, "pad": 1}}, "linear"]`, pictures, ""},
	{`["relu", {"max_pool": 2}, "relu", {"conv": {"channels": 3, "kernel": 1}}, {"average_pool": {"size": 2, "stride": 1}}, "average_pool", "linear"]`, pictures, ""},
	{`["tanh", "layer_norm", {"average_pool": 3}, "flatten", {"linear": 3}]`, pictures, ""},
	{`["flatten", {"linear": 3}, "relu"]`, pictures, ""},
	{`[{"residual": {"body": [{"conv": {"channels": 2, "kernel": 3, "pad": 1}}, "relu"]}}, "relu", {"max_pool": 2}, "linear"]`, pictures, ""},
	{`[{"residual": {"body": [{"conv": {"channels": 3, "kernel": 1}}, "batch_norm", {"max_pool": 2}, "relu"],
		"shortcut": [{"conv": {"channels": 3, "kernel": 2, "stride": 2}}, "relu"]}}, "relu", "average_pool", "linear"]`, pictures, ""},
	{`[{"residual": {"body": [{"residual": ["relu", {"linear": 7}]}, "relu"], "shortcut": [{"linear": 7}, "relu"]}},
		{"residual": [{"dropout": 0.4}]}, {"residual": {"body": [{"linear": 3}, "relu"], "shortcut": [{"residual": {"body": ["silu"]}}, {"linear": 3}]}}, "relu"]`,
		vectors, ""},
	{`["layer_norm"]`, data.Form{Shape: []int{3}, Classes: 3}, ""},
	{`[{"residual": {"body": ["batch_norm"], "shortcut": [{"linear": 3}, "batch_norm"]}}]`, data.Form{Shape: []int{3}, Classes: 3}, ""},
	{`[{"embedding": 6}, "layer_norm", {"linear": 8}, {"attention": {"heads": 2}}, "relu", {"linear": "outputs"}]`, texts, ""},
	{`[{"embedding": {"width": 4, "vocab": 12}}, {"positions": 8}, {"dropout": 0.2},
		{"transformer": {"heads": 2, "causal": true, "hidden": 5, "dropout": 0.3}}, {"transformer": 4}, {"residual": [{"attention": 1}]}, {"linear": 11}]`, texts, ""},
	{`[{"embedding": {"width": 5}}, "positions", "relu", "linear"]`, texts, ""},
}

func TestListGradients(t *testing.T) {
	for i, c := range lists {
		for _, set := range sets() {
			t.Run(fmt.Sprint(i, set), func(t *testing.T) { finiteDifferences(t, c.build(t), set) })
		}
	}
}

// TestRandomLists checks the gradients of lists that nobody thought of.
func TestRandomLists(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	built := 0
	for n := range 400 {
		forms := []data.Form{vectors, pictures, texts, numbers, features}
		in := forms[n%len(forms)]
		list := append(randomLayers(r, 1+r.IntN(6), 0), Linear{})
		if in.Kind == data.Tokens {
			list = append([]Layer{Embedding{Width: 4}}, list...)
		}
		s, err := Build(Model{Layers: list}, in)
		if err != nil {
			if !errors.Is(err, ErrOption) {
				t.Fatal(err)
			}
			continue // most of what is random does not fit
		}
		built++
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			finiteDifferences(t, s, "")
			if t.Failed() {
				t.Logf("%v", FormatLayers(list))
			}
		})
	}
	if built < 50 {
		t.Errorf("only %d of the lists could be built", built)
	}
}

func randomLayers(r *rand.Rand, n, depth int) (list []Layer) {
	size := func() int { return 1 + r.IntN(5) }
	for range n {
		l := kinds[r.IntN(len(kinds)-3)] // not those at the end, which need keys
		switch l.(type) {
		case Linear:
			l = Linear{Size: size(), NoBias: r.IntN(3) == 0}
		case Conv:
			l = Conv{Channels: size(), Kernel: size(), Stride: r.IntN(3), Pad: r.IntN(3)}
		case MaxPool:
			l = MaxPool{Size: 1 + r.IntN(3), Stride: r.IntN(3), Pad: r.IntN(2)}
		case AveragePool:
			l = AveragePool{Size: r.IntN(3), Stride: r.IntN(2)}
		case Dropout:
			l = Dropout{P: 0.3}
		case Embedding, Positions: // only in front
			l = ReLU{}
		case Attention:
			l = Attention{Heads: 1 + r.IntN(2), Causal: r.IntN(2) == 0}
		case Transformer:
			l = Transformer{Heads: 1 + r.IntN(2), Dropout: 0.2, Hidden: r.IntN(4)}
		case Residual:
			if depth < 2 {
				l = Residual{Body: append(randomLayers(r, 1+r.IntN(3), depth+1), ReLU{})}
			} else {
				l = Tanh{}
			}
		}
		list = append(list, l)
	}
	return list
}

// TestListsDoNotAllocate and give the same bits after other calls.
func TestListsDoNotAllocate(t *testing.T) {
	for _, c := range lists {
		s := c.build(t)
		r := replica(t, s, "", 9)
		w, grad, in := start(t, s), make([]float32, s.Params()), batch(s, 9)
		first := gradientBits(t, r, w, in)
		n := testing.AllocsPerRun(3, func() {
			if _, err := r.Gradient(w, in, key, 1, grad); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Loss(w, in); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 || gradientBits(t, r, w, in) != first {
			t.Errorf("%s: %v allocations per step, or other bits", c.list, n)
		}
	}
}

// TestDropoutIsKeyed: another step, shard or seed drops others, evaluation none.
func TestDropoutIsKeyed(t *testing.T) {
	layers := []Layer{Dropout{P: 0.5}, Linear{}}
	s, err := Build(Model{Layers: layers}, vectors)
	plain, err2 := Build(Model{Layers: layers[1:]}, vectors)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	in, w, grad := batch(s, 6), start(t, s), make([]float32, s.Params())
	r := replica(t, s, "", 6)
	seen := map[float64]bool{}
	for _, change := range []func(){func() {}, func() { key.Seed++ }, func() { key.Step++ }, func() { key.Shard++ }} {
		old := key
		change()
		got, err := r.Gradient(w, in, key, 1, grad)
		key = old
		if err != nil || seen[got.Loss] {
			t.Errorf("a loss of %v again (error %v)", got.Loss, err)
		}
		seen[got.Loss] = true
	}
	got, err := r.Loss(w, in)
	want, err2 := replica(t, plain, "", 6).Loss(w, in)
	if err := errors.Join(err, err2); err != nil || got != want {
		t.Errorf("evaluation: %v with dropout, %v without (error %v)", got, want, err)
	}
}

func TestParseLayersIsUndoneByFormatLayers(t *testing.T) {
	for _, c := range lists {
		layers, err := parse(t, c.list)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseLayers(FormatLayers(layers))
		if err != nil || !reflect.DeepEqual(again, layers) {
			t.Errorf("%+v became %+v, error %v", layers, again, err)
		}
	}
	for name := range models {
		m, err := Model{Name: name}.Expand()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseLayers(FormatLayers(m.Layers)); err != nil || !reflect.DeepEqual(again, m.Layers) {
			t.Errorf("%s: %v, error %v", name, again, err)
		}
	}
}

// Every model by name is the list that it expands to.
func TestNamedModelsAreLists(t *testing.T) {
	for _, c := range full {
		m, err := Model{Name: c.name, Options: c.options}.Expand()
		if err != nil {
			t.Fatal(err)
		}
		s, err := Build(m, c.form())
		if want := c.build(t); err != nil || !reflect.DeepEqual(s.Tensors(), want.Tensors()) || s.Name() != "layers" {
			t.Errorf("%s: as a list it is another (error %v)", c.name, err)
		}
	}
}

func TestParseLayersTellsEveryFaultWithItsPlace(t *testing.T) {
	_, err := parse(t, `[{"conv": {"chanels": 3, "kernel": 0}}, "rely", {"linear": -1}, {"residual": {"body": [{"dropout": "half"}, 3], "name": ".."}},
		{"linear": 1, "relu": 2}, null, {"relu": 3}, {"max_pool": null}, {"linear": {"size": 1, "bias": 1}}, {"residual": 5}]`)
	for _, want := range []string{
		"model.layers[0] conv: unknown option \"chanels\": known options are channels, kernel, stride, pad, bias, name",
		"model.layers[0] conv: channels is missing",
		"model.layers[0] conv: kernel is 0, which is not a size from 1 to 1048576",
		"model.layers[1]: unknown layer \"rely\": known are linear, conv,",
		"model.layers[2] linear: size is -1",
		"model.layers[3].body[0] dropout: p is \"half\", which is not a number",
		"model.layers[3].body[1]: 3 is not a layer",
		"model.layers[3] residual: name is \"..\": names have letters",
		"model.layers[4]: it has 2 keys",
		"model.layers[5]: nothing is not a layer",
		"model.layers[6] relu: 3: it has no options",
		"model.layers[7] max_pool: size is missing",
		"model.layers[8] linear: bias is 1: write true or false",
		"model.layers[9].body: 5 is not a list of layers",
	} {
		if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, ErrOption) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
}

func TestBuildTellsWhatDoesNotFit(t *testing.T) {
	for _, c := range []struct {
		list string
		in   data.Form
		loss Loss
		want string
	}{
		{`[{"linear": 5}]`, data.Form{Shape: []int{4}, Classes: 10}, "", "model.layers: 5 values come out of the last layer, the loss cross_entropy over 10 classes needs as many"},
		{`[{"linear": 2}]`, numbers, "", "the loss squared_error needs one"},
		{`["linear"]`, numbers, CrossEntropy, "model.loss is cross_entropy, but the data has numbers to be found"},
		{`["linear"]`, vectors, SquaredError, "model.loss is squared_error, but the data has 3 classes"},
		{`["linear"]`, vectors, BinaryCrossEntropy, "which is for 2 classes, but the data has 3"},
		{`["linear"]`, vectors, "hinge", `model.loss is "hinge"`},
		{`["relu"]`, vectors, "", "no layer has anything to learn"},
		{`[]`, vectors, "", "model.name is missing"},
		{`[{"conv": {"channels": 2, "kernel": 3}}, "linear"]`, vectors, "", "model.layers[0] conv: it needs images, here come vectors of 7 values"},
		{`[{"conv": {"channels": 2, "kernel": 9}}, "linear"]`, pictures, "", "a kernel of 9 does not fit into images of 2x8x7 (channels, height, width) with pad 0"},
		{`[{"conv": {"channels": 2, "kernel": 1, "pad": 1}}, "linear"]`, pictures, "", "pad is 1, it must be smaller than kernel"},
		{`[{"max_pool": {"size": 2, "pad": 2}}, "linear"]`, pictures, "", "at most half of size"},
		{`[{"max_pool": 16}, "linear"]`, pictures, "", "can be at most 15"},
		{`[{"average_pool": {"stride": 2}}, "linear"]`, pictures, "", "stride has no meaning without size"},
		{`[{"conv": {"channels": 2, "kernel": 3}}]`, pictures, "", "images of 2x6x5 (channels, height, width) come out of the last layer"},
		{`["linear"]`, texts, "", "model.layers[0] linear: it needs numbers, here come sequences of 6 tokens: begin with embedding"},
		{`["relu", "linear"]`, features, "", "sparse samples of 11 features: begin with linear"},
		{`[{"embedding": 4}, "flatten", "linear"]`, texts, "", "model.layers[1] flatten: it needs images or vectors"},
		{`[{"embedding": {"width": 4, "vocab": 8}}, "linear"]`, texts, "", "vocab is 8, the data has 9"},
		{`[{"embedding": 4}, {"positions": 5}, "linear"]`, texts, "", "context is 5, samples have 6"},
		{`[{"embedding": 4}, "relu", "positions", "linear"]`, texts, "", "directly behind embedding"},
		{`[{"embedding": 4}, {"embedding": 4}]`, texts, "", "model.layers[1] embedding: it needs tokens"},
		{`[{"embedding": 4}, {"attention": 3}, "linear"]`, texts, "", "heads is 3, which does not divide the width, 4"},
		{`[{"residual": [{"linear": 3}]}, "linear"]`, vectors, "", "model.layers[0] residual: vectors of 3 values come out of its body, vectors of 7 values of its shortcut"},
		{`[{"residual": ["flatten"]}, "linear"]`, vectors, "", "its body does nothing"},
		{`[{"residual": [{"conv": {"channels": 2, "kernel": 1}}, {"max_pool": 9}]}, "linear"]`, pictures, "", "model.layers[0].body[1] max_pool: a window of 9"},
		{`[{"dropout": 1}, "linear"]`, vectors, "", "p is 1, it must be from 0 to below 1"},
		{`[{"linear": {"size": 3, "name": "a"}}, {"linear": {"name": "a"}}]`, vectors, "", "model.layers[1] linear: the name a is that of model.layers[0] linear too"},
		{`[{"linear": 1048576}, {"linear": 1048576}, "linear"]`, vectors, "", "more than 2147483647 parameters"},
		{`[{"conv": {"channels": 1048576, "kernel": 3}}, "linear"]`, data.Form{Shape: []int{1, 999, 999}, Classes: 2}, "", "is too large"},
	} {
		layers, err := parse(t, c.list)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = Build(Model{Layers: layers, Loss: c.loss}, c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.list, err, c.want)
		}
	}
	for want, layers := range map[string][]Layer{
		"model.layers[1]: it is <nil>":                      {Linear{}, nil},
		"model.layers[0]: it is *nn.Linear":                 {&Linear{}},
		"model.layers[0] conv: kernel is 0":                 {Conv{Channels: 2}},
		"model.layers[0] linear: size is -1":                {Linear{Size: -1}},
		`model.layers[0].body[0]: "a b" is not a name`:      {Residual{Body: []Layer{Linear{Name: "a b"}}}},
		"model.layers[0] dropout: p is NaN, it must be fro": {Dropout{P: nan()}},
	} {
		if _, err := Build(Model{Layers: layers}, pictures); !errors.Is(err, ErrOption) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func nan() float64 {
	zero := 0.0
	return zero / zero
}

// FuzzLayers: any list is built or refused with an error, and what is built computes.
func FuzzLayers(f *testing.F) {
	for _, c := range lists {
		f.Add([]byte(c.list), c.in.Shape[0], uint8(c.in.Kind), c.in.Classes)
	}
	f.Add([]byte(`[{"linear": {"size": 1e300}}, {"residual": {"body": [[]]}}, {"conv": {"channels": "x"}}, {"": {}}]`), 1, uint8(0), 2)
	f.Fuzz(func(t *testing.T, list []byte, size int, kind uint8, classes int) {
		var v any
		if json.Unmarshal(list, &v) != nil {
			return
		}
		layers, err := ParseLayers(v)
		if err != nil {
			if !errors.Is(err, ErrOption) {
				t.Errorf("%v is of another kind", err)
			}
			return
		}
		shapes := [][]int{{size}, {size, 5}, {2, 7, size}}
		in := data.Form{Kind: data.Kind(kind % 3), Shape: shapes[int(kind/3)%3], Classes: classes, Entries: 3}
		s, err := Build(Model{Layers: layers}, in)
		if err != nil {
			if !errors.Is(err, ErrOption) {
				t.Errorf("%v is of another kind", err)
			}
			return
		}
		if s.Params() > 5000 || s.Features() > 500 || s.Classes() > 500 || s.largest() > 5000 {
			return // would take its time
		}
		r := replica(t, s, "", 2)
		if _, err := r.Gradient(start(t, s), batch(s, 2), key, 1, make([]float32, s.Params())); err != nil {
			t.Error(err)
		}
	})
}

// largest is the most values that come out of a layer.
func (s *Spec) largest() int {
	a := &allocator{}
	a.measure(s.layers, 0)
	n := 0
	for _, size := range a.sizes {
		n = max(n, size)
	}
	return n
}
