package data

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
)

// Own is the Source of samples of a program's own, to be a job's Data. Every sample is looked at once, and the first
// fault is the error. What identifies the samples, their order and their form becomes part of the source, and so of the
// job: nodes whose samples differ refuse each other.
func Own(train, heldOut Samples) (Source, error) {
	a, err := look("training set", train)
	if err != nil {
		return Source{}, err
	}
	b, err := look("held-out set", heldOut)
	if err != nil {
		return Source{}, err
	}
	if !reflect.DeepEqual(a.form, b.form) {
		return Source{}, fmt.Errorf("the program's held-out set has the form %+v, its training set %+v: give both the same", b.form, a.form)
	}
	return Source{Source: Program, Train: a.n, Test: b.n, Digest: Identity(a, b).String(), own: &ownSets{a, b}}, nil
}

// ownSets are what Own was given.
type ownSets struct{ train, test *ownSet }

// ownSet is a program's Samples that have been looked at.
type ownSet struct {
	Samples
	n      int
	form   Form
	digest Digest
}

func (s *ownSet) Len() int       { return s.n }
func (s *ownSet) Form() Form     { return s.form }
func (s *ownSet) Digest() Digest { return s.digest }

// look finds out what a program's samples are, and whether they are what they should be. The methods are the
// program's; where one panics, that is a fault like others.
func look(name string, s Samples) (set *ownSet, err error) {
	at := -1 // the sample that is looked at
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
		switch {
		case err != nil && at < 0:
			set, err = nil, fmt.Errorf("the program's %s: %w", name, err)
		case err != nil:
			set, err = nil, fmt.Errorf("the program's %s, sample %d: %w", name, at, err)
		}
	}()
	if s == nil {
		return nil, errors.New("there is none: give data.Own both sets")
	}
	set = &ownSet{Samples: s, n: s.Len(), form: s.Form()}
	set.form.Shape = slices.Clone(set.form.Shape)
	if set.n < 1 || set.n > maxSamples {
		return nil, fmt.Errorf("%d samples: 1 to %d are needed", set.n, maxSamples)
	}
	if err := set.form.validate(); err != nil {
		return nil, err
	}
	d := newDigester("a program's, %d of %+v\n", set.n, set.form)
	b := NewBatch(set, 1)
	for at = range set.n {
		b.unset()
		s.Sample(at, b)
		if err := b.check(set.form); err != nil {
			return nil, err
		}
		d.sample(b)
	}
	set.digest = d.sum()
	return set, nil
}

// maxValues is the most values of a sample, as in models, and the most keys.
const maxValues = 1 << 28

// validate names what no Batch can be made for; what a model makes of the rest, it says itself.
func (f Form) validate() error {
	width := 1
	for _, d := range f.Shape {
		if d < 1 || d > maxValues/width {
			return fmt.Errorf("field Shape is %v: sizes must be 1 or more, their product at most %d", f.Shape, maxValues)
		}
		width *= d
	}
	switch {
	case len(f.Shape) == 0:
		return errors.New("field Shape is empty: give the sizes of one sample, such as {1, 28, 28}")
	case f.Kind > Keyed:
		return fmt.Errorf("field Kind is %d: use Dense, Tokens, Sparse or Keyed", f.Kind)
	case f.Classes < 0 || f.Classes == 1 || f.Classes > maxValues:
		return fmt.Errorf("field Classes is %d: set it to 2 or more, or to 0 for regression", f.Classes)
	case f.Kind == Tokens && f.Regression():
		return errors.New("field Classes is 0: set it to the number of different tokens")
	case f.Kind == Sparse && (f.Entries < 1 || f.Entries > width):
		return fmt.Errorf("field Entries is %d: set it to the most features that a sample lists, 1 to %d", f.Entries, width)
	case f.Kind == Keyed && (f.Fields < 1 || f.Fields > maxValues):
		return fmt.Errorf("field Fields is %d: set it to the number of keys of a sample, 1 to %d", f.Fields, maxValues)
	case !(f.Unit >= 0 && f.Unit <= math.MaxFloat64):
		return fmt.Errorf("field Unit is %v: set it to what 1 of a target is in the data", f.Unit)
	}
	return nil
}

// unset puts into a Batch of one sample what check refuses, so that it sees what Sample leaves as it was.
func (b Batch) unset() {
	nan := float32(math.NaN())
	for _, list := range [][]float32{b.X, b.Values, b.Targets} {
		for i := range list {
			list[i] = nan
		}
	}
	for _, list := range [][]int32{b.Tokens, b.Columns, b.Labels} {
		for i := range list {
			list[i] = -1
		}
	}
	if b.Starts != nil {
		b.Starts[0], b.Starts[1] = 0, -1
	}
}

// check says what is wrong with the one sample of a Batch.
func (b Batch) check(f Form) error {
	if f.Kind == Sparse {
		n := int(b.Starts[1])
		if n < 0 || n > f.Entries {
			return fmt.Errorf("it lists %d features, where Form allows 0 to %d: give them with SetEntries", n, f.Entries)
		}
		b.Columns, b.Values = b.Columns[:n], b.Values[:n]
		for i, c := range b.Columns {
			if c < 0 || int(c) >= f.Width() || i > 0 && c <= b.Columns[i-1] {
				return fmt.Errorf("its features are %v: they must ascend, from 0 to below %d", b.Columns, f.Width())
			}
		}
	}
	return cmp.Or(finite("value", b.X), finite("value", b.Values), finite("target", b.Targets),
		within("token", b.Tokens, f.Classes), within("label", b.Labels, f.Classes))
}

func finite(what string, list []float32) error {
	for i, v := range list {
		if v-v != 0 {
			return fmt.Errorf("%s %d of %d is %v or was not set: give a finite number", what, i, len(list), v)
		}
	}
	return nil
}

func within(what string, list []int32, classes int) error {
	for i, v := range list {
		if v < 0 || int(v) >= classes {
			return fmt.Errorf("%s %d of %d is %d or was not set: it must be from 0 to below %d, which is Classes", what, i, len(list), v, classes)
		}
	}
	return nil
}

// sample takes in the one sample of a Batch.
func (d *digester) sample(b Batch) {
	if b.Starts != nil {
		n := b.Starts[1]
		d.uint32(uint32(n))
		b.Columns, b.Values = b.Columns[:n], b.Values[:n]
	}
	for _, list := range [][]float32{b.X, b.Values, b.Targets} {
		d.floats(list)
	}
	for _, list := range [][]int32{b.Tokens, b.Columns, b.Labels} {
		d.ints(list)
	}
	for _, k := range b.Keys {
		d.uint32(uint32(k))
		d.uint32(uint32(k >> 32))
	}
}
