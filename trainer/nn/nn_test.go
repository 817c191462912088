package nn

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
)

type testCase struct {
	name    string
	options map[string]any
	in      []int
	classes int
}

// form is what the data of a case looks like: tokens for models that begin with an embedding.
func (c testCase) form() data.Form {
	f := data.Form{Shape: c.in, Classes: c.classes}
	if c.name == "gpt" {
		f.Kind = data.Tokens
	}
	return f
}

func (c testCase) build(t testing.TB) *Spec {
	t.Helper()
	s, err := Build(Model{Name: c.name, Options: c.options}, c.form())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var full = []testCase{
	{"linear", nil, []int{1, 28, 28}, 10},
	{"mlp", nil, []int{1, 28, 28}, 10},
	{"lenet", nil, []int{1, 28, 28}, 10},
	{"resnet18", nil, []int{3, 32, 32}, 10},
	{"gpt", nil, []int{128}, 4096},
}

// quick are models for tests that compute with them: the full ones where that takes no time.
var quick = append(slices.Clone(full[:3]),
	testCase{"resnet18", map[string]any{"channels": []int{16, 24, 32, 40}}, []int{3, 12, 12}, 10},
	testCase{"gpt", map[string]any{"width": 64, "heads": 4, "layers": 2}, []int{33}, 300})

// small ones have odd sizes, so that every edge is met.
var small = []testCase{
	{"linear", nil, []int{7}, 3},
	{"mlp", map[string]any{"hidden": []any{5, 33}}, []int{2, 3, 1}, 4},
	{"lenet", map[string]any{"channels": []any{3, 5}, "hidden": 7}, []int{1, 9, 8}, 3},
	{"lenet", map[string]any{"channels": []int{2, 3}, "hidden": 4}, []int{3, 4, 5}, 2},
	{"resnet18", map[string]any{"channels": []int{2, 3, 3, 4}}, []int{2, 9, 6}, 3},
	{"gpt", map[string]any{"width": 6, "heads": 2, "layers": 2, "context": 7}, []int{5}, 11},
	{"gpt", map[string]any{"width": 16, "heads": 1, "layers": 1, "vocab": 130}, []int{3}, 9},
}

// batch is n random samples and their labels.
func batch(s *Spec, n int) (in data.Batch) {
	r := rand.New(rand.NewPCG(3, uint64(n)))
	switch s.Kind() {
	case data.Tokens:
		in.Tokens = make([]int32, n*s.Features())
		for i := range in.Tokens {
			in.Tokens[i] = int32(r.IntN(s.vocab))
		}
	case data.Dense:
		in.X = make([]float32, n*s.Features())
		for i := range in.X {
			in.X[i] = r.Float32()
		}
	case data.Sparse:
		in.Starts = []int32{0}
		for i := range n {
			for range i % (s.entries + 1) { // some samples have none
				in.Columns, in.Values = append(in.Columns, int32(r.IntN(s.Features()))), append(in.Values, r.Float32())
			}
			in.Starts = append(in.Starts, int32(len(in.Columns)))
		}
	}
	for range n * s.Targets() {
		if s.Classes() == 0 {
			in.Targets = append(in.Targets, r.Float32())
		} else {
			in.Labels = append(in.Labels, int32(r.IntN(s.Classes())))
		}
	}
	return in
}

// firstOf is the first n of the samples, which are not sparse.
func firstOf(s *Spec, in data.Batch, n int) data.Batch {
	if in.Tokens != nil {
		in.Tokens = in.Tokens[:n*s.Features()]
	} else {
		in.X = in.X[:n*s.Features()]
	}
	in.Labels = in.Labels[:n*s.Targets()]
	return in
}

// mean is the scale that makes gradients those of the mean loss.
func mean(s *Spec, in data.Batch) float32 { return 1 / float32(s.labels(in)) }

// key is that of the dropouts in tests.
var key = device.DropoutKey{Seed: 1, Step: 2, Shard: 3}

func start(t testing.TB, s *Spec) []float32 {
	t.Helper()
	w := make([]float32, s.Params())
	if err := s.Init(w, 42); err != nil {
		t.Fatal(err)
	}
	return w
}

func replica(t testing.TB, s *Spec, set string, n int) *Replica {
	t.Helper()
	d, err := cpu.NewFor(set)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.NewReplica(d, n, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// TestTensors checks names and layouts against the reference models in PyTorch.
func TestTensors(t *testing.T) {
	want := map[string]string{
		"linear": "0.weight[10 784] 0.bias[10]",
		"mlp":    "0.weight[512 784] 0.bias[512] 2.weight[256 512] 2.bias[256] 4.weight[10 256] 4.bias[10]",
		"lenet":  "0.weight[32 1 3 3] 0.bias[32] 3.weight[64 32 3 3] 3.bias[64] 7.weight[128 3136] 7.bias[128] 9.weight[10 128] 9.bias[10]",
	}
	params := map[string]int{"linear": 7850, "mlp": 535818, "lenet": 421642}
	for _, c := range full[:3] {
		s := c.build(t)
		var got []string
		next := 0
		for _, tensor := range s.Tensors() {
			got = append(got, fmt.Sprint(tensor.Name, tensor.Shape))
			if tensor.Offset != next {
				t.Errorf("%s: tensor %s is at %d, want %d", c.name, tensor.Name, tensor.Offset, next)
			}
			next += tensor.Len()
		}
		if strings.Join(got, " ") != want[c.name] || s.Params() != params[c.name] || next != s.Params() {
			t.Errorf("%s: %v, %d parameters", c.name, got, s.Params())
		}
	}
}

// TestSizes: as many parameters as in PyTorch, where these are ../shared/peers/torch/models.py and torchvision's resnet50; the last is GPT-2
// small with a head of its own.
func TestSizes(t *testing.T) {
	for _, c := range []struct {
		testCase
		params int
	}{
		{full[3], 11173962}, {full[4], 5289472},
		{testCase{"resnet50", nil, []int{3, 224, 224}, 1000}, 25557032},
		{testCase{"gpt", map[string]any{"width": 768, "heads": 12, "layers": 12, "vocab": 50257}, []int{1024}, 65}, 163037184},
	} {
		if s := c.build(t); s.Params() != c.params {
			t.Errorf("%s has %d parameters, want %d", c.name, s.Params(), c.params)
		}
	}
}

func TestInit(t *testing.T) {
	s := full[2].build(t)
	w, again, other := start(t, s), start(t, s), make([]float32, s.Params())
	if !slices.Equal(w, again) {
		t.Fatal("the same seed gives other values")
	}
	if err := s.Init(other, 43); err != nil || slices.Equal(w, other) {
		t.Fatalf("another seed gives the same values (error %v)", err)
	}
	if err := s.Init(w[1:], 42); !errors.Is(err, ErrArgument) {
		t.Fatalf("error %v", err)
	}
	for _, tensor := range s.Tensors() {
		bound := 1 / math.Sqrt(float64(tensor.FanIn))
		v := w[tensor.Offset : tensor.Offset+tensor.Len()]
		var sum, squares float64
		for _, x := range v {
			sum += float64(x)
			squares += float64(x) * float64(x)
			if math.Abs(float64(x)) > bound {
				t.Fatalf("%s: %v is outside +-%v", tensor.Name, x, bound)
			}
		}
		n := float64(len(v))
		if mean := sum / n; math.Abs(mean) > 4*bound/math.Sqrt(3*n) {
			t.Errorf("%s: mean %v for a bound of %v", tensor.Name, mean, bound)
		}
		if len(v) > 1000 && math.Abs(squares/n/(bound*bound/3)-1) > 0.1 {
			t.Errorf("%s: variance %v for a bound of %v", tensor.Name, squares/n, bound)
		}
	}
	if w[0] == w[s.Tensors()[2].Offset] {
		t.Error("two tensors begin with the same value")
	}
}

// TestGradient compares elements of the gradient with finite differences.
// sets are the instruction sets to test. Plain Go takes minutes under the race detector, which has nothing
// to find in its arithmetic; make test runs this package once more without.
func sets() []string {
	return slices.DeleteFunc(cpu.InstructionSets(), func(set string) bool { return raced && set == "go" })
}

func TestGradient(t *testing.T) {
	for _, c := range small {
		for _, set := range sets() {
			t.Run(fmt.Sprint(c.name, c.in, set), func(t *testing.T) { finiteDifferences(t, c.build(t), set) })
		}
	}
}

func finiteDifferences(t *testing.T, s *Spec, set string) {
	const n, scale = 7, 0.5
	r := replica(t, s, set, n)
	w := start(t, s)
	in := batch(s, n)
	grad := slices.Repeat([]float32{float32(math.NaN())}, s.Params())
	got, err := r.Gradient(w, in, key, scale, grad)
	if err != nil {
		t.Fatal(err)
	}
	if loss, err := r.Loss(w, in); s.dropouts == 0 && (err != nil || loss != got) {
		t.Fatalf("Loss gives %+v (error %v), Gradient %+v", loss, err, got)
	}
	bad := 0
	for i := 0; i < len(w); i += 1 + len(w)/150 {
		if d, ok := difference(t, r, w, in, i); ok && !(math.Abs(scale*d-float64(grad[i])) <= 2e-3*(1+math.Abs(d))) {
			t.Errorf("parameter %d: gradient %v, finite difference %v", i, grad[i], scale*d)
			bad++
		}
		if bad > 5 {
			return
		}
	}
}

// difference is the central difference of the loss in parameter i; not ok where the loss has a
// kink nearby (ReLU, maximum): there the widths disagree.
func difference(t *testing.T, r *Replica, w []float32, in data.Batch, i int) (d float64, ok bool) {
	unused := make([]float32, len(w))
	loss := func() (Result, error) {
		if r.spec.dropouts > 0 { // the loss of training is another one
			return r.Gradient(w, in, key, 1, unused)
		}
		return r.Loss(w, in)
	}
	at := func(h float32) float64 {
		old := w[i]
		up, down := old+h, old-h
		w[i] = up
		a, err := loss()
		w[i] = down
		b, err2 := loss()
		w[i] = old
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		return (a.Loss - b.Loss) / (float64(up) - float64(down))
	}
	wide, narrow, narrowest := at(8e-3), at(4e-3), at(2e-3)
	tol := 5e-4 * (1 + math.Abs(narrow))
	return narrow, math.Abs(wide-narrow) < tol && math.Abs(narrow-narrowest) < tol
}

// TestSameBits: the gradient is a function of its arguments alone: not of the number of
// processors, of the instruction set within a class, of the replica's history or size.
func TestSameBits(t *testing.T) {
	for _, c := range append(slices.Clone(small), quick...) {
		s := c.build(t)
		w := start(t, s)
		samples := 33
		if s.Params() > 1000 {
			samples = 5 // plain Go takes its time, more so under the race detector
		}
		in := batch(s, samples)
		first := map[string]sum{}
		for _, set := range sets() {
			d, err := cpu.NewFor(set)
			if err != nil {
				t.Fatal(err)
			}
			for _, procs := range []int{1, 2} {
				old := runtime.GOMAXPROCS(procs)
				used := replica(t, s, set, 40)
				got := gradientBits(t, used, w, in)
				if _, err := used.Loss(w, firstOf(s, in, 3)); err != nil {
					t.Fatal(err)
				}
				again := gradientBits(t, used, w, in)
				runtime.GOMAXPROCS(old)
				if _, seen := first[d.Arithmetic()]; !seen {
					first[d.Arithmetic()] = got
				}
				if want := first[d.Arithmetic()]; got != want || again != want {
					t.Errorf("%s %v, %s, %d processors: %v, then %v, want %v", c.name, c.in, set, procs, got, again, want)
				}
			}
		}
	}
}

// sum is a digest of a gradient and a result.
type sum struct {
	hash   uint64
	result Result
}

func gradientBits(t *testing.T, r *Replica, w []float32, in data.Batch) sum {
	t.Helper()
	grad := make([]float32, len(w))
	result, err := r.Gradient(w, in, key, mean(r.spec, in), grad)
	if err != nil {
		t.Fatal(err)
	}
	h := uint64(0)
	for _, v := range grad {
		h = mix(h ^ uint64(math.Float32bits(v)))
	}
	return sum{h, result}
}

// TestLearns: a few steps of gradient descent on one batch must bring the loss down.
func TestLearns(t *testing.T) {
	for _, c := range quick {
		s := c.build(t)
		r := replica(t, s, "", 32)
		w, grad := start(t, s), make([]float32, s.Params())
		in := batch(s, 32)
		var first, last Result
		for step := range 30 {
			got, err := r.Gradient(w, in, key, mean(s, in), grad)
			if err != nil {
				t.Fatal(err)
			}
			if step == 0 {
				first = got
			}
			last = got
			for i := range w {
				w[i] -= 0.1 * grad[i]
			}
		}
		if !(last.Loss < 0.98*first.Loss) {
			t.Errorf("%s: the loss went from %v to %v", c.name, first.Loss, last.Loss)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	for _, c := range quick {
		s := c.build(t)
		r := replica(t, s, "", 16)
		w, grad := start(t, s), make([]float32, s.Params())
		in := batch(s, 16)
		n := testing.AllocsPerRun(3, func() {
			if _, err := r.Gradient(w, in, key, 1, grad); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Loss(w, in); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations per step", c.name, n)
		}
	}
}

func TestArgumentsAreChecked(t *testing.T) {
	s := small[0].build(t)
	r := replica(t, s, "", 4)
	w, grad := start(t, s), make([]float32, s.Params())
	in := batch(s, 4)
	x, labels := in.X, in.Labels
	call := func(w, x []float32, labels []int32, grad []float32) error {
		_, err := r.Gradient(w, data.Batch{X: x, Labels: labels}, key, 1, grad)
		return err
	}
	for want, err := range map[string]error{
		"sample 1 has label 3":      call(w, x, []int32{0, 3, 1, 1}, grad),
		"sample 2 has label -1":     call(w, x, []int32{0, 1, -1, 1}, grad),
		"23 parameters given":       call(w[1:], x, labels, grad),
		"27 values given":           call(w, x[1:], labels, grad),
		"0 samples given":           call(w, nil, nil, grad),
		"takes 1 to 4":              call(w, append(x, x...), append(labels, labels...), grad),
		"room for 23 values":        call(w, x, labels, grad[1:]),
		"the model has 24 paramete": call(w, x, labels, append(grad, 0)),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		if strings.Contains(want, "label") != errors.Is(err, ErrLabel) || strings.Contains(want, "label") == errors.Is(err, ErrArgument) {
			t.Errorf("%v is of another kind", err)
		}
	}
	if err := call(w, x, labels, grad); err != nil {
		t.Errorf("after errors: %v", err)
	}
	for range 2 { // closing twice does no harm
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := call(w, x, labels, grad); err == nil || !strings.Contains(err.Error(), "closed") {
			t.Errorf("a closed replica gives error %v", err)
		}
	}
	if d, err := cpu.New(); err != nil {
		t.Error(err)
	} else if _, err := s.NewReplica(d, 0, 1); !errors.Is(err, ErrArgument) {
		t.Errorf("error %v", err)
	}
}

func TestTokensAreChecked(t *testing.T) {
	s := testCase{"gpt", map[string]any{"width": 4, "heads": 2, "layers": 1}, []int{3}, 5}.build(t)
	r := replica(t, s, "", 2)
	w := start(t, s)
	call := func(tokens, labels []int32) error {
		_, err := r.Loss(w, data.Batch{Tokens: tokens, Labels: labels})
		return err
	}
	_, floats := r.Loss(w, data.Batch{X: make([]float32, 3), Labels: make([]int32, 3)})
	for want, err := range map[string]error{
		"0 tokens given":            floats,
		"sample 1 has token 5":      call([]int32{0, 1, 2, 3, 5, 4}, make([]int32, 6)),
		"sample 0 has token -1":     call([]int32{0, -1, 2}, make([]int32, 3)),
		"sample 1 has label 7":      call(make([]int32, 6), []int32{0, 1, 2, 3, 7, 4}),
		"4 labels given, each samp": call(make([]int32, 3), make([]int32, 4)),
		"3 tokens given, 2":         call(make([]int32, 3), make([]int32, 6)),
		"takes 1 to 2":              call(make([]int32, 9), make([]int32, 9)),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if _, err := r.Gradient(w, data.Batch{Tokens: make([]int32, 6), Labels: make([]int32, 6)}, key, 1, make([]float32, s.Params())); err != nil {
		t.Error(err)
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, c := range []struct {
		testCase
		kind error
		want string
	}{
		{testCase{"resnet", nil, []int{1}, 2}, ErrUnknownModel, "known models are dlrm, gpt, lenet, linear, logistic, mlp, resnet18, resnet50, wide_deep"},
		{testCase{"mlp", map[string]any{"hiden": 1}, []int{1}, 2}, ErrOption, "model.hiden is unknown: known options are hidden (mlp)"},
		{testCase{"linear", map[string]any{"a": 1}, []int{1}, 2}, ErrOption, "model.a is unknown: there are no options (linear)"},
		{testCase{"mlp", map[string]any{"hidden": 5}, []int{1}, 2}, ErrOption, "not a list of sizes"},
		{testCase{"mlp", map[string]any{"hidden": []any{}}, []int{1}, 2}, ErrOption, "0 entries"},
		{testCase{"mlp", map[string]any{"hidden": []any{3, 0}}, []int{1}, 2}, ErrOption, "0 in [3 0] is not a size"},
		{testCase{"mlp", map[string]any{"hidden": []any{2.5}}, []int{1}, 2}, ErrOption, "2.5"},
		{testCase{"mlp", map[string]any{"hidden": []any{"x"}}, []int{1}, 2}, ErrOption, `"x" in`},
		{testCase{"lenet", map[string]any{"channels": []any{3}}, []int{1, 28, 28}, 2}, ErrOption, "1 entries"},
		{testCase{"lenet", map[string]any{"hidden": -1}, []int{1, 28, 28}, 2}, ErrOption, "-1 is not a size"},
		{testCase{"lenet", nil, []int{1, 3, 28}, 2}, ErrOption, "model lenet: model.layers[5] max_pool: a window of 2 does not fit into images of 64x1x14"},
		{testCase{"linear", nil, nil, 2}, ErrOption, "one to three dimensions"},
		{testCase{"linear", nil, []int{1 << 19, 1 << 19}, 2}, ErrOption, "product"},
		{testCase{"linear", nil, []int{0}, 2}, ErrOption, "sizes must be"},
		{testCase{"linear", nil, []int{4}, 1}, ErrOption, "at least 2"},
		{testCase{"gpt", nil, []int{3, 4}, 5}, ErrOption, "has one dimension"},
		{testCase{"gpt", map[string]any{"vocab": 4}, []int{3}, 5}, ErrOption, "vocab is 4, the data has 5"},
		{testCase{"gpt", map[string]any{"context": 2}, []int{3}, 5}, ErrOption, "context is 2, samples have 3"},
		{testCase{"gpt", map[string]any{"heads": 3}, []int{3}, 5}, ErrOption, "must be a multiple of heads"},
		{testCase{"resnet18", map[string]any{"channels": 4}, []int{3, 8, 8}, 5}, ErrOption, "not a list"},
	} {
		_, err := Build(Model{Name: c.name, Options: c.options}, c.form())
		if !errors.Is(err, c.kind) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%+v: error %v, want %q", c.testCase, err, c.want)
		}
	}
	s, err := Build(Model{Name: "mlp", Options: map[string]any{"hidden": []any{uint64(3), int64(4), 5.0}}}, data.Form{Shape: []int{2}, Classes: 2})
	if err != nil || s.Params() != 2*3+3+3*4+4+4*5+5+5*2+2 {
		t.Errorf("numbers as parsers give them: error %v", err)
	}
}
