package trainer

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/musterml/muster/internal/id"
)

// Only the trainer whose unit it was speaks; the others wait to be told.
func TestExplainIsForTheOneWhoKnows(t *testing.T) {
	w, weights := newTinyWork(t)
	shards := []id.LogicalShard{0, 1, 2, 3, 4}
	if err := w.compute(t.Context(), 1, 0, weights, shards); err != nil {
		t.Fatal(err)
	}
	w.units[3].grad[7840] = float32(math.Inf(1)) // of the bias
	sum := fmt.Errorf("%w: somewhere", ErrDiverged)
	err := w.explain(0, weights, shards[2:], sum)
	if !errors.Is(err, ErrDiverged) || !strings.Contains(err.Error(), "step 0 of logical shard 3") || !strings.Contains(err.Error(), "backward pass, first in the gradient of 0.bias") {
		t.Errorf("the owner says %v", err)
	}
	if err := w.explain(0, weights, shards[:3], sum); !errors.Is(err, errElsewhere) {
		t.Errorf("another says %v", err)
	}
	if other := errors.New("other"); w.explain(0, weights, shards, other) != other {
		t.Error("another error is explained too")
	}
}

// Where there are no exponents to tell, each unit is looked at.
func TestFastSumsLookAtGradients(t *testing.T) {
	w, weights := newTinyWork(t)
	w.job.Sync.Sum, w.scale = SumFast, float32(math.Inf(1))
	err := w.compute(t.Context(), 1, 0, weights, []id.LogicalShard{2})
	if !errors.Is(err, ErrDiverged) || !strings.Contains(err.Error(), "backward pass") {
		t.Errorf("got %v", err)
	}
}

// However many processors look, each number is looked at.
func TestAllFiniteOn(t *testing.T) {
	x := make([]float32, 101)
	for _, n := range []int{0, 1, 2, 3, 64, 200} {
		if !allFiniteOn(n, x) {
			t.Errorf("%d processors: zeros are not finite", n)
		}
		for i := range x {
			x[i] = float32(math.Inf(-1))
			if allFiniteOn(n, x) {
				t.Fatalf("%d processors: what is at place %d is not seen", n, i)
			}
			x[i] = 0
		}
	}
}
