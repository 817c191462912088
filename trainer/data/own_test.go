package data

import (
	"math"
	"strings"
	"testing"
)

// ownSamples are a program's, each filled by a function.
type ownSamples struct {
	n    int
	form Form
	fill func(i int, into Batch)
}

func (s *ownSamples) Len() int                 { return s.n }
func (s *ownSamples) Form() Form               { return s.form }
func (s *ownSamples) Sample(i int, into Batch) { s.fill(i, into) }

// pairs are n samples of two numbers and a class of three.
func pairs(n int) *ownSamples {
	return &ownSamples{n, Form{Shape: []int{2}, Classes: 3}, func(i int, into Batch) {
		into.X[0], into.X[1], into.Labels[0] = float32(i), -1, int32(i%3)
	}}
}

func TestOwn(t *testing.T) {
	for name, s := range map[string]*ownSamples{
		"dense":  pairs(9),
		"tokens": {4, Form{Kind: Tokens, Shape: []int{3}, Classes: 5}, func(i int, b Batch) { copy(b.Tokens, []int32{0, 4, 1}); copy(b.Labels, []int32{4, 1, 0}) }},
		"sparse": {8, staircase(8).Form(), staircase(8).Sample},
		"keyed": {4, Form{Kind: Keyed, Shape: []int{1}, Classes: 2, Fields: 2}, func(i int, b Batch) {
			b.X[0], b.Labels[0] = 1, int32(i%2)
			copy(b.Keys, []uint64{math.MaxUint64, uint64(i)})
		}},
	} {
		source, err := Own(s, s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		train, test, err := Open(t.Context(), source, nil)
		if err != nil || train.Len() != s.n || test.Len() != s.n || source.Kind() != s.form.Kind {
			t.Errorf("%s: %v, %v, error %v", name, train, test, err)
			continue
		}
		got, want := NewBatch(train, 1), NewBatch(train, 1)
		train.Sample(s.n-1, got)
		s.fill(s.n-1, want)
		if newDigester("").with(got) != newDigester("").with(want) {
			t.Errorf("%s: the last sample is %+v, want %+v", name, got, want)
		}
	}
}

func (d *digester) with(b Batch) Digest { d.sample(b); return d.sum() }

// The digest is of every number, the order and the form.
func TestOwnDigest(t *testing.T) {
	of := func(train, test Samples) string {
		s, err := Own(train, test)
		if err != nil {
			t.Fatal(err)
		}
		return s.Digest
	}
	want := of(pairs(9), pairs(3))
	if of(pairs(9), pairs(3)) != want {
		t.Error("the same samples have two digests")
	}
	changed := func(change func(*ownSamples)) *ownSamples { s := pairs(9); change(s); return s }
	fill := pairs(9).fill
	for name, train := range map[string]*ownSamples{
		"shorter":       pairs(8),
		"another value": changed(func(s *ownSamples) { s.fill = func(i int, b Batch) { fill(i, b); b.X[1] += float32(i / 8) } }),
		"another label": changed(func(s *ownSamples) { s.fill = func(i int, b Batch) { fill(i, b); b.Labels[0] *= int32(1 - i/8) } }),
		"backwards":     changed(func(s *ownSamples) { s.fill = func(i int, b Batch) { fill(8-i, b) } }),
	} {
		if of(train, pairs(3)) == want {
			t.Errorf("%s: the digest is the same", name)
		}
	}
	shape := func(n int) *ownSamples { s := pairs(n); s.form.Shape = []int{1, 2}; return s }
	if of(pairs(9), pairs(4)) == want || of(shape(9), shape(3)) == want {
		t.Error("the held-out set or the form is not in the digest")
	}
}

func TestOwnFaults(t *testing.T) {
	form := func(f Form) *ownSamples { return &ownSamples{3, f, func(int, Batch) {}} }
	fill := func(fill func(i int, b Batch)) *ownSamples { s := pairs(5); s.fill = fill; return s }
	after := func(change func(i int, b Batch)) *ownSamples {
		s := pairs(5)
		return fill(func(i int, b Batch) { s.fill(i, b); change(i, b) })
	}
	sparse := func(columns []int32, values []float32) *ownSamples {
		return &ownSamples{1, staircase(1).Form(), func(_ int, b Batch) { b.SetEntries(columns, values); b.Targets[0] = 1 }}
	}
	var none *ownSamples
	for _, c := range []struct {
		train Samples
		want  string
	}{
		{nil, "training set: there is none"},
		{none, "training set: panic: "},
		{pairs(0), "training set: 0 samples"},
		{form(Form{}), "Shape is empty"},
		{form(Form{Shape: []int{3, 0}}), "Shape is [3 0]"},
		{form(Form{Shape: []int{1 << 32, 1 << 32}}), "Shape is"},
		{form(Form{Shape: []int{1}, Kind: 9}), "Kind is 9"},
		{form(Form{Shape: []int{1}, Classes: 1}), "Classes is 1"},
		{form(Form{Shape: []int{1}, Classes: -1}), "Classes is -1"},
		{form(Form{Shape: []int{1}, Kind: Tokens}), "Classes is 0"},
		{form(Form{Shape: []int{4}, Kind: Sparse, Entries: 5}), "Entries is 5"},
		{form(Form{Shape: []int{4}, Kind: Keyed}), "Fields is 0"},
		{form(Form{Shape: []int{1}, Unit: math.NaN()}), "Unit is NaN"},
		{form(Form{Shape: []int{1}}), "sample 0: value 0 of 1 is NaN or was not set"},
		{fill(func(i int, b Batch) { copy(b.X, []float32{1}); b.Labels[0] = 1 }), "sample 0: value 1 of 2 is NaN or was not set"},
		{fill(func(i int, b Batch) { b.X[i] = 0 }), "sample 0: value 1 of 2"},
		{after(func(i int, b Batch) { b.X[2] = 0 }), "sample 0: panic: runtime error: index out of range"},
		{after(func(i int, b Batch) { b.Targets[0] = 0 }), "sample 0: panic: "},
		{after(func(i int, b Batch) { b.X[0] /= float32(3 - i); b.X[1] = float32(math.Inf(i - 4)) }), "sample 0: value 1 of 2 is -Inf"},
		{after(func(i int, b Batch) { b.Labels[0] = int32(i) }), "sample 3: label 0 of 1 is 3"},
		{after(func(i int, b Batch) { b.Labels[0] -= int32(i / 3) }), "sample 3: label 0 of 1 is -1"},
		{sparse([]int32{2, 1}, []float32{1, 1}), "its features are [2 1]"},
		{sparse([]int32{1, 10}, []float32{1, 1}), "its features are [1 10]"},
		{sparse([]int32{1, 2, 3, 4}, []float32{1, 1, 1, 1}), "it lists 4 features"},
		{sparse([]int32{1, 2}, []float32{1}), "value 1 of 2 is NaN"},
		{form(staircase(1).Form()), "it lists -1 features"},
	} {
		_, err := Own(c.train, pairs(5))
		if err == nil || !strings.HasPrefix(err.Error(), "the program's training set") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if _, err := Own(pairs(5), nil); err == nil || !strings.Contains(err.Error(), "held-out set: there is none") {
		t.Errorf("no held-out set: %v", err)
	}
	other := pairs(5)
	other.form.Classes = 4
	if _, err := Own(pairs(5), other); err == nil || !strings.Contains(err.Error(), "the program's held-out set has the form {Kind:0 Shape:[2] Classes:4") {
		t.Errorf("held-out set of another form: %v", err)
	}
}

// A program's source is of no use without the program, and says how many samples it has.
func TestOwnSourceValidate(t *testing.T) {
	whole, err := Own(pairs(5), pairs(2))
	if err != nil {
		t.Fatal(err)
	}
	fewer, named := whole, whole
	fewer.Train, named.Path = 3, "a"
	for _, c := range []struct {
		s    Source
		want string // "" none
	}{
		{whole, ""},
		{Source{Source: Program}, "run that program"},
		{fewer, "the program's sets have 5 and 2 samples"},
		{named, "data.path has no meaning with source program"},
		{Source{Source: Glyphs, Train: 1, Test: 1, Digest: "a"}, "data.digest has no meaning"},
	} {
		faults := c.s.Validate()
		if c.want == "" && len(faults) > 0 || c.want != "" && (len(faults) != 1 || !strings.Contains(faults[0].Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.s, faults, c.want)
		}
	}
}
