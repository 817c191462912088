package trainer

import (
	"context"
	"slices"
	"unsafe"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/trainer/nn"
)

// Gradients that stay on cards, where these keep the state (cards.go).
//
// A trainer that is alone in its view leaves the gradients of its logical shards there, and has them added up there, with the bits of the ring: what comes to the host is
// the largest magnitude of each block, and the squares of blocks where gradients are clipped. Of several cards each has some shards to itself then, and they fetch
// sums from each other.
//
// Where there are other trainers, one with several cards does the same as far as it goes: what comes to the host is the sum of its gradients' multiples, once the
// exponents are agreed, and the ring is given that. It is one gradient instead of one for each shard, over all cards' ways to the host at once; but not beside
// computing, so a trainer with one card hands gradients over as it computes them.

// keepsGradients tells whether a trainer, which may be alone, leaves its gradients on the cards: where that pays, there is room on them, and of several the sums are
// exact, as others hang on their order.
func (c *cards) keepsGradients(x *exchange, shards int, log *zerolog.Logger) bool {
	if c == nil || x.int8s != nil || x.bf16 || len(c.replicas) > 1 && !x.exact || len(c.replicas) == 1 && !x.alone || shards < len(c.replicas) {
		return false
	}
	if !c.tried {
		err := c.each(func(r *nn.Replica) error {
			return r.KeepGradients(upTo(x.shards, len(c.replicas)), x.layout.BlockSize, len(c.replicas))
		})
		if c.tried, c.room = true, err == nil; err != nil {
			log.Warn().Err(err).Msg("gradients go to the host, which adds them up")
		}
	}
	return c.room
}

// begin prepares for a view, in which this trainer computes some shards and may be alone.
func (x *exchange) begin(w *work, c *cards, mine []id.LogicalShard, alone bool, log *zerolog.Logger) {
	x.alone = alone
	x.stays = c.keepsGradients(x, len(mine), log)
	if w.owned = nil; x.stays {
		w.owned = mine
		for i, r := range c.replicas {
			first, last := w.share(i)
			r.UseGradients(last - first)
		}
	}
	if x.stays && !alone && x.words == nil {
		x.words = make([]int32, x.layout.Params)
		w.lock(unsafe.Slice((*float32)(unsafe.Pointer(&x.words[0])), len(x.words)))
	}
	if x.stays || w.stays { // units that are done have their gradients elsewhere, or there is a sum in their place
		w.forget()
	}
	w.stays = x.stays
}

// sumStays tells that the sum of gradients is on the cards, and nothing of it on the host.
func (x *exchange) sumStays() bool { return x.stays && x.alone }

// multiples brings what this trainer's gradients, which stay, come to in a bucket, whose exponents are agreed.
func (x *exchange) multiples(c *cards, i int) error {
	b := x.buckets[i]
	return nn.Multiples(c.replicas, x.exponents()[b.first:b.last], int(b.first), x.sums.Width(), x.words)
}

// beside is how many buckets are summed beside computing.
func (x *exchange) beside() int {
	if x.stays {
		return 0
	}
	return len(x.buckets) - 1
}

// examine finds the exponents of gradients that stay, and what is no number among them.
func (x *exchange) examine(c *cards, at id.Step) error {
	if !x.stays {
		return nil
	}
	for b := range c.exps {
		c.exps[b] = none
	}
	for i, r := range c.replicas {
		if err := r.Magnitudes(c.largest[i]); err != nil {
			return err
		}
		collective.Exact{BlockSize: 1, Shards: 1}.Exponents(c.exps, c.largest[i])
	}
	x.found = c.exps
	copy(x.exponents(), c.exps)
	return x.allFinite(c.exps, at) // while the gradients are whole, for explain
}

// addUp makes the sum of gradients that stay, and finds its squares, where it is clipped.
func (x *exchange) addUp(c *cards) error {
	exps := c.exps
	if !x.exact {
		exps = nil
	}
	return nn.AddUp(c.replicas, exps, x.sums.Width(), x.clip.squares)
}

// gradient is that of a unit, on the host.
func (w *work) gradient(l id.LogicalShard) ([]float32, error) {
	if !w.stays {
		return w.units[l].grad, nil
	}
	grad := make([]float32, w.spec.Params())
	b, place := w.place(l)
	return grad, w.benches[b].replica.Kept(place, grad)
}

// share is those of the shards of this view, by their places among them, that a bench has to itself where gradients stay: [first, last).
func (w *work) share(bench int) (first, last int) {
	n := len(w.benches)
	return bench * len(w.owned) / n, (bench + 1) * len(w.owned) / n
}

// place is where the gradient of a shard stays.
func (w *work) place(l id.LogicalShard) (bench, place int) {
	at := slices.Index(w.owned, l)
	for first, last := w.share(bench); ; first, last = w.share(bench) {
		if at < last {
			return bench, at - first
		}
		bench++
	}
}

// computeOwned is compute where gradients stay on several cards: each bench computes the shards that are its own.
func (w *work) computeOwned(ctx context.Context, v id.View, s id.Step, weights []float32, todo []id.LogicalShard) error {
	return w.each(ctx, len(w.benches), func(_ *bench, i int) error {
		b, own := w.benches[i], slices.DeleteFunc(slices.Clone(todo), func(l id.LogicalShard) bool {
			bench, _ := w.place(l)
			return bench != i
		})
		groups := upTo(len(own), w.group)
		group := func(i int) []id.LogicalShard { return own[i*len(own)/groups : (i+1)*len(own)/groups] }
		for g := range groups {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			b.span.View, b.span.Step, b.next = v, s, turn{s + 1, group(0)}
			if g+1 < groups {
				b.next = turn{s, group(g + 1)}
			} else if s+1 >= w.steps {
				b.next = turn{}
			}
			if err := w.do(ctx, b, s, group(g), weights); err != nil {
				return err
			}
		}
		return nil
	})
}
