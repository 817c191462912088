package nn

import (
	"errors"
	"slices"
	"testing"

	"github.com/musterml/muster/trainer/data"
)

// samples is those from from to to of a batch.
func samples(s *Spec, in data.Batch, from, to int) (part data.Batch) {
	cut := func(v []float32, size int) []float32 {
		if v == nil {
			return nil
		}
		return v[from*size : to*size]
	}
	part.X, part.Targets = cut(in.X, s.Features()), cut(in.Targets, 1)
	if in.Labels != nil {
		part.Labels = in.Labels[from*s.Targets() : to*s.Targets()]
	}
	if in.Tokens != nil {
		part.Tokens = in.Tokens[from*s.Features() : to*s.Features()]
	}
	if in.Starts != nil {
		lo, hi := in.Starts[from], in.Starts[to]
		for _, at := range in.Starts[from : to+1] {
			part.Starts = append(part.Starts, at-lo)
		}
		part.Columns, part.Values = in.Columns[lo:hi], in.Values[lo:hi]
	}
	return part
}

// A part's gradient and result have the bits that they have when it is a batch of its own, for every layer there is.
func TestPartsAreAsIfAlone(t *testing.T) {
	var specs []*Spec
	for _, c := range append(slices.Clone(small), quick...) {
		specs = append(specs, c.build(t))
	}
	for _, c := range lists {
		specs = append(specs, c.build(t))
	}
	for _, s := range specs {
		for _, set := range sets() {
			w, in := start(t, s), batch(s, 8)
			r, from := replica(t, s, set, 8), 0
			parts := make([]Part, 3)
			for i, n := range []int{3, 1, 4} {
				parts[i] = Part{Samples: n, Key: key, Grad: make([]float32, s.Params())}
				parts[i].Key.Shard += uint16(i)
			}
			if err := r.Gradients(w, in, 0.5, parts); err != nil {
				t.Fatalf("%s: %v", s.Name(), err)
			}
			alone := make([]float32, s.Params())
			for i, q := range parts {
				got, err := r.Gradient(w, samples(s, in, from, from+q.Samples), q.Key, 0.5, alone)
				if err != nil {
					t.Fatalf("%s: %v", s.Name(), err)
				}
				if from += q.Samples; got != q.Result || !sameFloats(alone, q.Grad) {
					t.Errorf("%s of %v, %s: part %d of a batch comes to %+v, alone to %+v, or to another gradient", s.Name(), s.tensors, set, i, q.Result, got)
				}
			}
		}
	}
}

func TestPartsMustCoverTheBatch(t *testing.T) {
	s := small[0].build(t)
	w, in, r := start(t, s), batch(s, 4), replica(t, s, "", 8)
	grad := make([]float32, s.Params())
	for _, parts := range [][]Part{
		nil,
		{{Samples: 3, Grad: grad}},
		{{Samples: 4, Grad: grad}, {Samples: 1, Grad: grad}},
		{{Samples: 4, Grad: grad}, {Samples: 0, Grad: grad}},
		{{Samples: 2, Grad: grad}, {Samples: 2}},
		{{Samples: 1, Grad: grad}, {Samples: 1, Grad: grad}, {Samples: 1, Grad: grad}, {Samples: 1, Grad: grad}},
	} {
		if err := r.Gradients(w, in, 1, parts); !errors.Is(err, ErrArgument) {
			t.Errorf("%d parts: %v", len(parts), err)
		}
	}
}
