package nn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/musterml/muster/trainer/data"
)

var clicks = data.Form{Kind: data.Keyed, Shape: []int{4}, Fields: 5, Classes: 2}

// rowsBatch is n samples with their rows, which share keys.
func rowsBatch(s *Spec, n int) data.Batch {
	r := rand.New(rand.NewPCG(3, 3))
	in := data.Batch{Rows: &data.Rows{}}
	for range n * s.Features() {
		in.X = append(in.X, float32(r.NormFloat64()))
	}
	for range n * s.Fields() {
		in.Keys = append(in.Keys, r.Uint64N(12))
	}
	for range n {
		in.Labels = append(in.Labels, int32(r.IntN(2)))
	}
	in.Rows.Sort(in.Keys)
	for _, t := range s.Tables() {
		v := make([]float32, len(in.Rows.Keys)*t.Width)
		for i := range v {
			v[i] = float32(r.NormFloat64()) / 2
		}
		in.Rows.Values, in.Rows.Grads = append(in.Rows.Values, v), append(in.Rows.Grads, make([]float32, len(v)))
	}
	return in
}

// Gradients of weights and of rows against finite differences, the same bits on every instruction set, and the scores.
func TestRows(t *testing.T) {
	for _, m := range []Model{
		{Name: "wide_deep", Options: map[string]any{"width": 3, "hidden": []int{6}}},
		{Name: "dlrm", Options: map[string]any{"width": 6, "bottom": []int{5}, "top": []int{7}}},
		{Layers: []Layer{ConcatRows{Width: 2, Name: "a"}, Tanh{}, Linear{Size: 17}, InteractRows{Name: "b"}, Tanh{}, Linear{}}},
		{Layers: []Layer{Linear{Size: 3}, Tanh{}, PoolRows{Width: 3}, Tanh{}, Linear{}}},
	} {
		t.Run(fmt.Sprint(m.Name, len(m.Layers)), func(t *testing.T) {
			s, err := Build(m, clicks)
			if err != nil {
				t.Fatal(err)
			}
			const n = 6
			in, w := rowsBatch(s, n), start(t, s)
			var first []float32
			for _, set := range sets() {
				r := replica(t, s, set, n)
				grad := make([]float32, s.Params())
				if _, err := r.Gradient(w, in, key, 1, grad); err != nil {
					t.Fatal(err)
				}
				all := append([]float32(nil), grad...)
				for _, g := range in.Rows.Grads {
					all = append(all, g...)
				}
				if set == "go" { // without FMA it is another arithmetic
					continue
				}
				if first == nil {
					first = all
				}
				for i := range all {
					if math.Float32bits(all[i]) != math.Float32bits(first[i]) {
						t.Fatalf("%s: element %d is %v, not %v", set, i, all[i], first[i])
					}
				}
			}
			r := replica(t, s, "", n)
			r.Scores = make([]float32, n)
			loss := func() float64 {
				got, err := r.Loss(w, in)
				if err != nil {
					t.Fatal(err)
				}
				sum := 0.0
				for i, z := range r.Scores { // the loss by the scores, in float64
					sum += math.Log1p(math.Exp(float64(z))) - float64(in.Labels[i])*float64(z)
				}
				if math.Abs(sum-got.Loss) > 1e-4 {
					t.Fatalf("the loss is %v, by the scores %v", got.Loss, sum)
				}
				return sum
			}
			vectors := append([][]float32{w}, in.Rows.Values...)
			bad := 0
			for _, v := range vectors {
				for i := range v {
					const h = 1e-3
					old := v[i]
					v[i] = old + h
					up := loss()
					v[i] = old - h
					down := loss()
					v[i] = old
					if d := (up - down) / (2 * h); math.Abs(d-float64(first[i])) > 1e-3+2e-2*math.Abs(d) {
						bad++ // a kink of a ReLU may lie between
					}
				}
				first = first[len(v):]
			}
			if bad > len(w)/50 {
				t.Errorf("%d gradients are wrong", bad)
			}
			if n := testing.AllocsPerRun(3, func() { _, _ = r.Loss(w, in) }); n != 0 && !raced {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

func TestRowsNeedKeys(t *testing.T) {
	if _, err := Build(Model{Name: "dlrm"}, vectors); err == nil || err.Error() != "model dlrm: model.layers[6] interact_rows: it takes rows of tables by keys, which the data does not have: use data.source criteo or ctr" {
		t.Errorf("%v", err)
	}
	s, _ := Build(Model{Name: "dlrm"}, clicks)
	in := rowsBatch(s, 2)
	in.Rows = nil
	if _, err := replica(t, s, "", 2).Loss(start(t, s), in); err == nil {
		t.Error("samples without rows are taken")
	}
}
