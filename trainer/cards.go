package trainer

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/nn"
)

// Where the state is, in mode ring.
//
// On devices that work in the host's memory it is there. A GPU has memory of its own, far faster than the host's and than the way to it, so there the
// state goes to the cards when a view begins: each has a copy, and updates it by itself. What comes to a card in a step is the sum of
// gradients, and the host does nothing with weights and slots. The host's copy gets older meanwhile. It is made new where somebody reads it: before a commit,
// at the last step, and when the view is over, for whoever asks for the state then (serveState waits for that). So what changes hands between
// views is the host's copy, as everywhere.
//
// A trainer that is alone in its view also leaves the gradients of its logical shards there, and has them added up there, with the bits of the ring: what comes to the host is
// the largest magnitude of each block, and the squares of blocks where gradients are clipped. Of several cards each has some shards to itself then, and they fetch
// sums from each other.
//
// A card that fails takes its copy with it, and its trainer no longer holds the state: the others of the view have the same, and where there is none, the
// servers have the last commit.

// cards is the GPUs of a trainer with their copies of the state. It is used by the goroutine that takes steps. nil is that there are none, and the
// state is the host's.
type cards struct {
	state    *state
	optim    optimizer
	replicas []*nn.Replica
	fresh    bool        // they have the state
	newer    bool        // than the host's copy is theirs
	torn     error       // why theirs is that of no step
	tried    bool        // to make room for gradients
	room     bool        // there is
	largest  [][]float32 // by card and block
	exps     []int32     // by block
}

// newCards has the state updated by the devices of w, where that can be; nil where the host does.
func newCards(w *work, x *exchange, opt optimizer, s *state, log *zerolog.Logger) *cards {
	if w.job.Sync.Mode != ModeRing || opt.WholeTensors() || len(device.Cards(w.device)) == 0 {
		return nil
	}
	c := &cards{state: s, optim: opt, exps: make([]int32, x.layout.Blocks())}
	for _, b := range w.benches {
		c.replicas, c.largest = append(c.replicas, b.replica), append(c.largest, make([]float32, x.layout.Blocks()))
	}
	if err := c.each(func(r *nn.Replica) error { return r.KeepState(opt.Slots()) }); err != nil {
		log.Warn().Err(err).Msg("the state stays with the host, which updates it")
		return nil
	}
	for _, v := range append([][]float32{x.room}, s.slots...) {
		w.lock(v)
	}
	return c
}

// each does something on all cards at once.
func (c *cards) each(do func(r *nn.Replica) error) error {
	errs := make([]error, len(c.replicas))
	var others sync.WaitGroup
	for i, r := range c.replicas[1:] {
		others.Go(func() { errs[i+1] = do(r) })
	}
	errs[0] = do(c.replicas[0])
	others.Wait()
	return errors.Join(errs...)
}

// take gives them the host's state, unless they have it.
func (c *cards) take() error {
	if c == nil || c.fresh {
		return nil
	}
	if err := c.each(func(r *nn.Replica) error { return r.Take(c.state.w, c.state.slots) }); err != nil {
		return err
	}
	c.fresh = true
	return nil
}

// stale says that the host's state was written over.
func (c *cards) stale() {
	if c != nil {
		c.fresh = false
	}
}

// give makes the parameters [lo, hi) of the host's copy the newest.
func (c *cards) give(lo, hi int) error {
	if c == nil || !c.newer || lo == hi {
		return nil
	}
	if c.torn != nil {
		return c.torn
	}
	return c.replicas[0].Give(lo, hi) // all have the same
}

// update makes the state at the next step, on every card, of a gradient of the host's times a factor; of nil, of the sum that lies on the card.
func (c *cards) update(at id.Step, grad []float32, factor float32) error {
	rule := c.optim.Rule(at)
	c.newer = true
	c.torn = c.each(func(r *nn.Replica) error { return r.Update(rule, grad, factor) })
	return c.torn
}

// keepsGradients tells whether a trainer that is alone can leave its gradients on the cards: there is room on them, and of several the sums are exact, as others
// hang on their order.
func (c *cards) keepsGradients(w *work, x *exchange, log *zerolog.Logger) bool {
	if c == nil || x.int8s != nil || x.bf16 || len(c.replicas) > 1 && !x.exact {
		return false
	}
	if !c.tried {
		c.tried, c.room = true, true
		for i, r := range c.replicas {
			first, last := w.owned(i)
			if err := r.KeepGradients(int(first), int(last-first), x.layout.BlockSize, len(c.replicas)); err != nil {
				log.Warn().Err(err).Msg("gradients go to the host, which adds them up")
				c.room = false
				break
			}
		}
	}
	return c.room
}

// begin prepares for a view, in which this trainer may be alone.
func (x *exchange) begin(w *work, c *cards, alone bool, log *zerolog.Logger) {
	x.alone, x.stays = alone, alone && c.keepsGradients(w, x, log)
	if x.stays || w.stays { // units that are done have their gradients elsewhere, or there is a sum in their place
		w.forget()
	}
	w.stays = x.stays
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
	if copy(x.exponents(), c.exps) > 0 {
		return nil // results looks at them
	}
	return x.allFinite(c.exps, at)
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
	return grad, w.benches[w.owner(l)].replica.Kept(int(l), grad)
}

// owned are the logical shards that a bench has to itself where gradients stay: those from first on, before last.
func (w *work) owned(bench int) (first, last id.LogicalShard) {
	n, all := len(w.benches), len(w.units)
	return id.LogicalShard(bench * all / n), id.LogicalShard((bench + 1) * all / n)
}

// owner is the bench that has a shard to itself.
func (w *work) owner(l id.LogicalShard) int {
	i := 0
	for _, last := w.owned(i); l >= last; _, last = w.owned(i) {
		i++
	}
	return i
}

// computeOwned is compute where gradients stay on several cards: each bench computes the shards that are its own.
func (w *work) computeOwned(ctx context.Context, v id.View, s id.Step, weights []float32, todo []id.LogicalShard) error {
	return w.each(ctx, len(w.benches), func(_ *bench, i int) error {
		b, own := w.benches[i], slices.DeleteFunc(slices.Clone(todo), func(l id.LogicalShard) bool { return w.owner(l) != i })
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
