package optim

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/musterml/muster/internal/id"
)

// with is a copy of an optimizer that uses other loops.
func with(t testing.TB, o Optimizer, k *vectors) Optimizer {
	switch o := o.(type) {
	case *sgd:
		c := *o
		c.k = k
		return &c
	case *adam:
		c := *o
		c.k = k
		return &c
	}
	t.Fatalf("%T", o)
	return nil
}

// Every instruction set gives the bits of the loops in Go, of all sorts of numbers.
func TestVectorsAgree(t *testing.T) {
	odd := []float32{0, float32(math.Copysign(0, -1)), math.SmallestNonzeroFloat32, -1e-40, math.MaxFloat32, -math.MaxFloat32, float32(math.Inf(1)), float32(math.NaN()), 1e-20, 1e20}
	for name, c := range configs() {
		o := must(t, c)
		plain := with(t, o, &vectors{name: "go"})
		for _, k := range available() {
			r := rand.New(rand.NewPCG(5, 6))
			for _, n := range []int{1, 7, 8, 15, 16, 17, 64, 1000} {
				w, slots := random(r, n), slotsOf(o, n)
				want, wantSlots := append([]float32(nil), w...), slotsOf(o, n)
				for step := range 5 {
					g := random(r, n)
					for range n / 4 {
						g[r.IntN(n)] = odd[r.IntN(len(odd))]
					}
					with(t, o, k).Update(id.Step(step), w, g, slots)
					plain.Update(id.Step(step), want, g, wantSlots)
				}
				same := func(a, b []float32) {
					for i := range a {
						if nan := a[i] != a[i] && b[i] != b[i]; !nan && math.Float32bits(a[i]) != math.Float32bits(b[i]) {
							t.Fatalf("%s, %s: element %d of %d is %v, not %v", name, k.name, i, n, a[i], b[i])
						}
					}
				}
				same(w, want)
				for i := range slots {
					same(slots[i], wantSlots[i])
				}
			}
		}
	}
}
