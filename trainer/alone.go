package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/nn"
)

// Alone takes the steps of a job as the only trainer of a run would in mode ring, by the same code, but without
// servers: nothing is committed and nothing evaluated. It is for measuring steps, and has no end.
type Alone struct {
	Updating time.Duration // what the optimizer has taken of the last step

	work   *work
	sums   *exchange
	optim  optimizer
	ring   *collective.Ring
	state  *state
	cards  *cards
	shards []id.LogicalShard
	beyond id.Step // steps that were only computed
}

// NewAlone makes a trainer for the job's batch, optimizer, sync.sum and sync.wire; everything else comes as arguments. The
// weights are those that the job's seed gives.
func NewAlone(ctx context.Context, job Job, spec *nn.Spec, dev device.Device, train data.Dataset) (*Alone, error) {
	job.Samples = train.Len()
	if len(spec.Tables()) > 0 {
		return nil, fmt.Errorf("model %s has sparse tables, which are on servers: it cannot be trained without", spec.Name())
	}
	opt, err := job.NewOptimizer()
	if err != nil {
		return nil, err
	}
	job.Passes = math.MaxInt32
	w, err := newWork(job, spec, dev, train, train, nil)
	if err != nil {
		return nil, err
	}
	w.samples = math.MaxInt // no pass ever ends, after which it would evaluate
	job.Sync.Mode = ModeRing
	a := &Alone{work: w, sums: newExchange(job, spec), optim: opt, state: newState(spec.Params(), opt.Slots(), ModeRing)}
	w.lock(a.state.w)
	log := zerolog.Nop()
	a.cards = newCards(w, a.sums, opt, a.state, &log)
	w.handOver(a.sums.starts())
	for l := range job.Batch.LogicalShards {
		a.shards = append(a.shards, id.LogicalShard(l))
	}
	a.sums.begin(w, a.cards, a.shards, true, &log)
	if err := errors.Join(a.state.begin(spec, job), a.cards.take()); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	a.ring, err = collective.Join(ctx, collective.Config{Run: "alone", View: 1, Peers: []collective.Peer{{Node: "alone"}}, Log: zerolog.Nop()})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("a ring of one: %w", err), a.Close())
	}
	return a, nil
}

// Step takes one step and returns the mean loss of its batch.
func (a *Alone) Step(ctx context.Context) (loss float64, err error) {
	at, last := a.state.step, len(a.sums.buckets)-1
	a.work.prepare(at, a.shards)
	sums := a.work.overlap(ctx, a.sums, a.shards, a.sums.beside(), a.addUp)
	err = a.work.compute(ctx, 1, at, a.state.w, a.shards)
	if err = errors.Join(err, sums.end(err)); err != nil {
		return 0, err
	}
	if err := errors.Join(a.sums.examine(a.cards, at), a.addUp(ctx, last)); err != nil {
		return 0, err
	}
	train, _, err := a.sums.results(at)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := errors.Join(a.sums.ready(a.cards), a.sums.advance(a.optim, at, a.state, a.cards)); err != nil {
		return 0, err
	}
	a.sums.settle()
	a.Updating = time.Since(began)
	a.state.step++
	return train.Loss * float64(a.work.scale), nil
}

// addUp sums a bucket, as shift.addUp and ringSync.sum do.
func (a *Alone) addUp(ctx context.Context, i int) error {
	op := collective.Op{Step: a.state.step, Bucket: uint32(i)}
	header := a.sums.prepare(a.sums.buckets[i], a.work.units, a.shards, false)
	if err := a.ring.AllReduce(ctx, op, collective.Int32s(header), collective.MaxInt32); err != nil {
		return err
	}
	if a.sums.stays {
		return nil
	}
	grad, form := a.sums.own(i, a.work.units, a.shards)
	return a.sums.allReduce(ctx, a.ring, op, grad, form)
}

// Compute computes the gradients of the step after those that were taken or computed, with the weights as they are, and does nothing with them.
func (a *Alone) Compute(ctx context.Context) error {
	a.work.forget()
	at := a.state.step + a.beyond
	a.beyond++
	return a.work.compute(ctx, 1, at, a.state.w, a.shards)
}

// Close frees the memory of the models.
func (a *Alone) Close() error {
	if a.ring == nil {
		return a.work.close()
	}
	return errors.Join(a.ring.Close(), a.work.close())
}
