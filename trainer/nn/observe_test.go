package nn

import (
	"errors"
	"math"
	"testing"

	"github.com/musterml/muster/trainer/data"
)

func near(a, b, tol float64) bool { return math.Abs(a-b) <= tol*(1+math.Abs(b)) }

// With the statistics of a batch, evaluation of that batch is what training sees; and then each sample is for itself.
func TestEvaluateTakesStatistics(t *testing.T) {
	for _, c := range []listCase{lists[9], lists[14], {`["batch_norm", {"linear": 4}, "batch_norm", "relu", "linear"]`, vectors, ""}} {
		s := c.build(t)
		r, w, in := replica(t, s, "", 8), start(t, s), batch(s, 8)
		stats := make([]float32, s.Statistics())
		if err := r.Observe(w, in, stats); err != nil || len(stats) == 0 {
			t.Fatal(len(stats), err)
		}
		want, err := r.Loss(w, in)
		got, err2 := r.Evaluate(w, stats, in)
		if err := errors.Join(err, err2); err != nil || !near(got.Loss, want.Loss, 1e-5) {
			t.Errorf("%s: %v with the statistics, %v with those of the batch (error %v)", c.list, got, want, err)
		}
		sum := 0.0
		for i := range 8 {
			f := s.Features()
			one, err := r.Evaluate(w, stats, data.Batch{X: in.X[i*f : (i+1)*f], Labels: in.Labels[i : i+1]})
			if err != nil {
				t.Fatal(err)
			}
			sum += one.Loss
		}
		if !near(sum, got.Loss, 1e-6) {
			t.Errorf("%s: %v one by one, %v together", c.list, sum, got.Loss)
		}
		if n := testing.AllocsPerRun(3, func() { _, _ = r.Evaluate(w, stats, in) }); n != 0 {
			t.Errorf("%s: %v allocations", c.list, n)
		}
		if _, err := r.Evaluate(w, stats[1:], in); !errors.Is(err, ErrArgument) {
			t.Errorf("error %v", err)
		}
	}
}

// The statistics of two batches are those of their samples together: at the first norm, which sees the same either way.
func TestPopulation(t *testing.T) {
	s := listCase{`["batch_norm", "linear"]`, vectors, ""}.build(t)
	r, w, in := replica(t, s, "", 9), start(t, s), batch(s, 9)
	f := s.Features()
	observe := func(from, to int) []float32 {
		stats := make([]float32, s.Statistics())
		if err := r.Observe(w, data.Batch{X: in.X[from*f : to*f], Labels: in.Labels[from:to]}, stats); err != nil {
			t.Fatal(err)
		}
		return stats
	}
	want := observe(0, 9)
	for i, got := range s.Population([][]float32{observe(0, 3), observe(3, 9)}, []int{3, 6}) {
		if !near(float64(got), float64(want[i]), 1e-5) {
			t.Errorf("number %d is %v in two batches, %v in one", i, got, want[i])
		}
	}
}
