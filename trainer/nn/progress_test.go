package nn

import (
	"math"
	"slices"
	"testing"
)

// What Progress calls complete must not change any more; most of it is told of before the backward pass has ended.
func TestProgressTellsWhatIsComplete(t *testing.T) {
	for _, c := range append(slices.Clone(small), quick...) {
		s := c.build(t)
		r := replica(t, s, "", 2)
		w, grad := start(t, s), make([]float32, s.Params())
		in := batch(s, 2)
		for i := range grad {
			grad[i] = float32(math.NaN())
		}
		var told []int
		var then [][]float32 // what was complete, as it was when it was told
		r.Progress = func(complete int) {
			told = append(told, complete)
			then = append(then, slices.Clone(grad[complete:]))
		}
		if _, err := r.Gradient(w, in, key, 1, grad); err != nil {
			t.Fatal(err)
		}
		if told[0] != s.Params() || told[len(told)-1] != 0 || !slices.IsSortedFunc(told, func(a, b int) int { return b - a }) {
			t.Errorf("%s %v: complete from %v on", c.name, c.in, told)
		}
		if len(told) < len(s.layers) {
			t.Errorf("%s %v: %d calls, %d layers", c.name, c.in, len(told), len(s.layers))
		}
		for i, before := range then {
			if !sameFloats(before, grad[told[i]:]) {
				t.Errorf("%s %v: from %d on the gradient was not complete", c.name, c.in, told[i])
			}
		}
	}
}

func sameFloats(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}
