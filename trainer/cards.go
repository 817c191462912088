package trainer

import (
	"errors"
	"sync"

	"github.com/rs/zerolog"

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
// A card that fails takes its copy with it, and its trainer no longer holds the state: the others of the view have the same, and where there is none, the
// servers have the last commit.

// cards is the GPUs of a trainer with their copies of the state. It is used by the goroutine that takes steps. nil is that there are none, and the
// state is the host's.
type cards struct {
	state    *state
	optim    optimizer
	replicas []*nn.Replica
	fresh    bool  // they have the state
	newer    bool  // than the host's copy is theirs
	torn     error // why theirs is that of no step

	// Of gradients that stay, see stay.go.
	tried   bool        // to make room for them
	room    bool        // there is
	largest [][]float32 // magnitudes, by card and block
	exps    []int32     // by block
}

// newCards has the state updated by the devices of w, where that can be; nil where the host does.
func newCards(w *work, x *exchange, opt optimizer, s *state, log *zerolog.Logger) *cards {
	if w.job.Sync.Mode != ModeRing || len(device.Cards(w.device)) == 0 {
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
