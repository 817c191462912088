package trainer

import (
	"math"
	"slices"
	"testing"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/ps"
	"github.com/musterml/muster/trainer/nn"
)

// clipper is an exchange of a gradient of five blocks and a bit.
func clipper(t *testing.T, limit float64) *exchange {
	t.Helper()
	layout := ps.Layout{Params: 5*BlockSize + 77, BlockSize: BlockSize, Shards: 2}
	x := &exchange{layout: layout, grad: make([]float32, layout.Params), clip: newClipping(limit, layout.Blocks())}
	for i := range x.grad {
		x.grad[i] = float32(i%17-8) / 1000
	}
	return x
}

func (x *exchange) norm() float64 {
	sum := 0.0
	for _, g := range x.grad {
		sum += float64(g) * float64(g)
	}
	return math.Sqrt(sum)
}

func TestClipping(t *testing.T) {
	free := clipper(t, 0)
	norm := free.norm()
	for _, limit := range []float64{0, norm * 2, norm / 3} {
		x := clipper(t, limit)
		x.measure(x.all())
		x.shorten(x.all())
		if want := norm; limit == norm/3 {
			if got := x.norm(); math.Abs(got-want/3) > 1e-6*want {
				t.Errorf("a gradient of norm %v clipped at %v has %v", norm, limit, got)
			}
		} else if !slices.Equal(x.grad, free.grad) {
			t.Errorf("a gradient of norm %v is changed by a limit of %v", norm, limit)
		}
	}
}

// Shares that are measured apart and agreed upon clip to the same bits as the whole.
func TestClippingInShares(t *testing.T) {
	whole, ring := clipper(t, 0.1), ringOfOne(t)
	whole.measure(whole.all())
	whole.shorten(whole.all())
	for world := 1; world <= 7; world++ {
		x := clipper(t, 0.1)
		var words []int32 // what a ring of them all would come to
		for rank := range world {
			share := x.all().share(rank, world)
			clear(x.clip.squares)
			x.measure(share)
			if err := x.agreeNorm(t.Context(), ring, id.Step(world*10+rank), []bucket{share}); err != nil {
				t.Fatal(err)
			}
			if words == nil {
				words = slices.Clone(x.clip.words)
			}
			for i, w := range x.clip.words {
				words[i] = max(words[i], w)
			}
		}
		for b := range x.clip.squares {
			x.clip.squares[b] = float64FromWords(words[2*b:])
		}
		for rank := range world {
			x.shorten(x.all().share(rank, world))
		}
		if !slices.Equal(x.grad, whole.grad) {
			t.Errorf("%d shares clip to other values than the whole", world)
		}
	}
}

func ringOfOne(t *testing.T) *collective.Ring {
	t.Helper()
	ring, err := collective.Join(t.Context(), collective.Config{Run: "alone", View: 1, Peers: []collective.Peer{{Node: "alone"}}, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ring.Close() })
	return ring
}

// LAMB is given tensor by tensor, the others in any parts.
func TestUpdateByTensors(t *testing.T) {
	job, spec, _, _ := tiny(t)
	for _, name := range []string{"lamb", "adam"} {
		job.Optimizer = Optimizer{Name: name, LR: 0.1}
		o, err := job.NewOptimizer()
		if err != nil {
			t.Fatal(err)
		}
		got, want := newState(spec.Params(), o.Slots(), ModeRing), newState(spec.Params(), o.Slots(), ModeRing)
		grad := make([]float32, spec.Params())
		for i := range grad {
			grad[i] = float32(i%13-6) / 10
		}
		for _, s := range []*state{got, want} {
			if err := s.begin(spec, Job{Seed: 1}); err != nil {
				t.Fatal(err)
			}
		}
		newExchange(job, spec).update(o, 0, got, grad)
		for _, q := range spec.Tensors() {
			part := want.part(q.Offset, q.Offset+q.Len())
			o.Update(0, part.W, grad[q.Offset:q.Offset+q.Len()], part.Slots)
		}
		if !slices.Equal(got.w, want.w) || moved(spec, got.w) < spec.Params()/2 {
			t.Errorf("%s: the update of the whole is not that of its tensors", name)
		}
	}
}

// moved counts the weights that are not the initial ones.
func moved(spec *nn.Spec, w []float32) (n int) {
	s := newState(spec.Params(), 0, ModeRing)
	if err := s.begin(spec, Job{Seed: 1}); err != nil {
		return 0
	}
	for i, v := range s.w {
		if v != w[i] {
			n++
		}
	}
	return n
}
