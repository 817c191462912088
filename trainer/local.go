package trainer

import (
	"context"
	"fmt"

	"github.com/musterml/muster/internal/huge"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/trainer/nn"
)

// Mode local: Douillard et al., "DiLoCo: distributed low-communication training of language models", 2023, algorithm 1; with
// plain descent of rate 1 for the outer optimizer, Moritz et al., "SparkNet: training deep networks in Spark", 2015.
//
// A worker is a logical shard, not a trainer. A step of the run is a round: each logical shard starts from the weights that all
// have in common and goes so many steps of its own, each on its slice of that step's batch, with the inner optimizer; and the mean
// of how far they have come apart from where they started is the gradient for the outer optimizer, on the servers. So a round
// is to everything else (sums, servers, recovery, checkpoints) what a step is in mode server, and a unit, its result, is a function of the
// job and of the weights at its beginning: it may be computed anywhere, again, and the bits are the same on any number of
// trainers. A trainer has as many logical shards as it has, one after the other on each core; it keeps one set of inner weights
// and slots for each core, not for each logical shard.
//
// We differ from DiLoCo in one point: the inner optimizer starts every round with empty slots, where DiLoCo's workers keep theirs.
// State that one worker alone has would be lost with it. Its steps still count through the run for the learning rate's schedule.
//
// Rejected: a trainer as a worker. What the run computes would then hang on how many there are, and on who dies when.

// rounds is what mode local needs of a job; nil in other modes.
type rounds struct {
	inner optim.Optimizer
	each  id.Step // steps of a round; the last may have fewer
	steps id.Step // of the whole run
	clip  float64 // the most that the norm of an inner gradient may be; 0: no limit
	share float32 // 1/logical shards
}

func newRounds(j Job, steps id.Step) (*rounds, error) {
	if j.Sync.Mode != ModeLocal {
		return nil, nil
	}
	o, err := optim.New(j.Optimizer.config(steps))
	return &rounds{
		inner: o, each: id.Step(j.Sync.Steps), steps: steps, clip: j.Optimizer.ClipNorm, share: 1 / float32(j.Batch.LogicalShards),
	}, err
}

// span is the steps [first, last) of a round.
func (r *rounds) span(round id.Step) (first, last id.Step) {
	return round * r.each, min((round+1)*r.each, r.steps)
}

// own is the weights and slots of a logical shard that goes by itself.
type own struct {
	w     []float32
	slots [][]float32
}

func newOwn(params, slots int) *own {
	o := &own{w: huge.Float32s(params)}
	for range slots {
		o.slots = append(o.slots, huge.Float32s(params))
	}
	return o
}

// goAlone does a round of the one logical shard of a group: its unit's grad becomes its part of the outer gradient, the result the
// sum over its steps.
func (w *work) goAlone(ctx context.Context, b *bench, round id.Step, group []id.LogicalShard, weights []float32) error {
	r, l, u := w.rounds, group[0], &w.units[group[0]]
	if u.grad == nil {
		u.grad = w.lock(huge.Float32s(w.spec.Params()))
	}
	b.group = group
	copy(b.own.w, weights)
	for _, slot := range b.own.slots {
		clear(slot)
	}
	first, last := r.span(round)
	for at := first; at < last; at++ {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		w.begin(b, "forward", group)
		in := w.loader.Fill(at, group, b.batch)
		scale := 1 / (float32(in.Len()) * float32(w.spec.Targets()))
		result, err := b.replica.Gradient(b.own.w, in, w.key(at, l), scale, u.grad)
		if err == nil && !(finite(result.Loss) && allFinite(u.grad)) {
			err = blame(b.replica, b.own.w, in, w.key(at, l), u.grad)
		}
		if err != nil {
			return fmt.Errorf("%v of %v (local step %d): %w", round, l, at, err)
		}
		if r.clip > 0 {
			optim.Scale(u.grad, optim.ClipFactor(optim.SumSquares(u.grad), r.clip))
		}
		w.ownStep(b.own, r.inner.Since(at, first), u.grad)
		u.Result = nn.Result{Loss: u.Loss + result.Loss, Correct: u.Correct + result.Correct}
	}
	for i, v := range b.own.w {
		u.grad[i] = r.share * (weights[i] - v)
	}
	if !allFinite(u.grad) {
		return fmt.Errorf("%v of %v: %w: a weight is not a finite number; lower optimizer.lr or look at the data", round, l, ErrDiverged)
	}
	return nil
}

// ownStep is one step of the inner optimizer.
func (w *work) ownStep(o *own, rule optim.Rule, grad []float32) {
	if !w.rounds.inner.WholeTensors() {
		rule.Apply(o.w, o.slots, o.w, grad, o.slots)
		return
	}
	slots := make([][]float32, len(o.slots))
	for _, t := range w.spec.Tensors() {
		lo, hi := t.Offset, t.Offset+t.Len()
		for k := range slots {
			slots[k] = o.slots[k][lo:hi]
		}
		rule.Apply(o.w[lo:hi], slots, o.w[lo:hi], grad[lo:hi], slots)
	}
}
