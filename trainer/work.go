package trainer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/musterml/muster/internal/flight"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/nn"
)

// unit is the work of one logical shard in one step, and its result. It is a function
// of the job and of the state at the step, so it may be computed anywhere, and one that
// is done stays valid over any change of view.
type unit struct {
	step id.Step
	done bool
	from atomic.Int64 // grad[from:] is complete
	grad []float32    // (params), of the mean loss over the whole batch's labels; of a real step only
	nn.Result
	test nn.Result // of the shard's part of the held-out data, where the step evaluates
}

// work computes units, several at a time, each on one core.
type work struct {
	job     Job
	spec    *nn.Spec
	loader  *data.Loader
	heldOut *data.HeldOut
	steps   id.Step
	samples int     // of a pass
	scale   float32 // 1/labels of a whole batch
	flight  *flight.Recorder
	moved   chan struct{} // a unit's gradient has come further
	benches []*bench
	units   []unit // by logical shard
	norms   norms
}

// bench is what one unit at a time needs.
type bench struct {
	replica *nn.Replica
	batch   data.Batch
	span    flight.Span // of what it does now
	mark    flight.Mark
}

func newWork(job Job, spec *nn.Spec, dev device.Device, train, test data.Dataset, rec *flight.Recorder) (*work, error) {
	b := job.batches()
	w := &work{
		job: job, spec: spec, steps: job.batches().Steps(job.Passes, train.Len()), samples: train.Len(),
		scale:  1 / (float32(job.Batch.Size) * float32(spec.Targets())),
		loader: data.NewLoader(train, job.Seed, b), heldOut: data.NewHeldOut(test, b.LogicalShards),
		units: make([]unit, b.LogicalShards), flight: rec, moved: make(chan struct{}, 1),
	}
	for i := range min(runtime.GOMAXPROCS(0), b.LogicalShards) {
		r, err := spec.NewReplica(dev, b.MaxSlice())
		if err != nil {
			return nil, errors.Join(err, w.close())
		}
		bench := &bench{replica: r, batch: data.NewBatch(train, b.MaxSlice())}
		bench.span.Track = flight.Compute + flight.Track(i)
		r.Progress = func(complete int) { w.progress(bench, complete) }
		w.benches = append(w.benches, bench)
	}
	return w, nil
}

func (w *work) close() error {
	var errs []error
	for _, b := range w.benches {
		errs = append(errs, b.replica.Close())
	}
	return errors.Join(errs...)
}

// evaluates says whether the state at a step is measured on the held-out data: after
// every pass and at the end.
func (w *work) evaluates(s id.Step) bool {
	if s == 0 {
		return false
	}
	n, size := uint64(w.samples), uint64(w.job.Batch.Size)
	return s == w.steps || uint64(s)*size/n > uint64(s-1)*size/n
}

// compute does the units of the shards at the step for the given weights; those that are
// done already it keeps. It stops between units when ctx ends.
func (w *work) compute(ctx context.Context, v id.View, s id.Step, weights []float32, shards []id.LogicalShard) error {
	if w.evaluates(s) {
		if err := w.observe(ctx, s, weights); err != nil {
			return fmt.Errorf("statistics of batch norms after %v: %w", s, err)
		}
	}
	var todo []id.LogicalShard
	for _, l := range shards {
		if u := &w.units[l]; !u.done || u.step != s {
			todo = append(todo, l)
		}
	}
	return w.each(ctx, len(todo), func(b *bench, i int) error {
		b.span.View, b.span.Step = v, s
		return w.do(b, s, todo[i], weights)
	})
}

// each does n things on all benches. It stops between them when ctx ends, or when one fails.
func (w *work) each(ctx context.Context, n int, do func(b *bench, i int) error) error {
	errs := make([]error, len(w.benches))
	var next atomic.Int64
	var benches sync.WaitGroup
	for i, b := range w.benches[:min(len(w.benches), n)] {
		benches.Go(func() {
			for errs[i] == nil {
				at := int(next.Add(1)) - 1
				if at >= n {
					return
				}
				if errs[i] = context.Cause(ctx); errs[i] == nil {
					errs[i] = do(b, at)
				}
			}
		})
	}
	benches.Wait()
	return cmp.Or(errs...) // one says it all: they are alike
}

func (w *work) do(b *bench, s id.Step, l id.LogicalShard, weights []float32) (err error) {
	u := &w.units[l]
	u.step, u.done = s, false
	u.Result, u.test = nn.Result{}, nn.Result{}
	b.span.Shard = l
	if s < w.steps {
		if u.grad == nil {
			u.grad = make([]float32, w.spec.Params())
		}
		w.begin(b, "forward")
		in := w.loader.Fill(s, l, b.batch)
		u.Result, err = b.replica.Gradient(weights, in, w.key(s, l), w.scale, u.grad)
		// Of exact sums the exponents tell whether the gradient is finite, see explain.
		if err == nil && !(finite(u.Loss) && (w.job.Sync.Sum == SumExact || allFinite(u.grad))) {
			err = blame(b.replica, weights, in, w.key(s, l), u.grad)
		}
		if err != nil {
			return fmt.Errorf("%v of %v: %w", s, l, err)
		}
	}
	if w.evaluates(s) {
		w.begin(b, "evaluate")
		defer w.end(b)
		for in := range w.heldOut.Chunks(l, b.batch) {
			r, err := b.replica.Evaluate(weights, w.norms.stats, in)
			if err == nil && !finite(r.Loss) {
				err = blame(b.replica, weights, in, device.DropoutKey{}, nil)
			}
			if err != nil {
				return fmt.Errorf("held-out data of %v after %v: %w", l, s, err)
			}
			u.test.Loss += r.Loss
			u.test.Correct += r.Correct
		}
	}
	u.done = true
	return nil
}

// prepare is called before the units of the shards are computed: none that is left to do is complete.
func (w *work) prepare(s id.Step, shards []id.LogicalShard) {
	for _, l := range shards {
		u := &w.units[l]
		u.from.Store(int64(w.spec.Params()))
		if u.done && u.step == s {
			u.from.Store(0)
		}
	}
}

// await returns when the gradients of all the shards are complete from an offset on; false when ctx ended before.
func (w *work) await(ctx context.Context, shards []id.LogicalShard, offset int) bool {
	for slices.ContainsFunc(shards, func(l id.LogicalShard) bool { return w.units[l].from.Load() > int64(offset) }) {
		select {
		case <-w.moved:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// progress hears how far a bench has come with a gradient.
func (w *work) progress(b *bench, complete int) {
	w.units[b.span.Shard].from.Store(int64(complete))
	select {
	case w.moved <- struct{}{}:
	default:
	}
	switch complete {
	case w.spec.Params():
		w.end(b)
		w.begin(b, "backward")
	case 0:
		w.end(b)
	}
}

func (w *work) begin(b *bench, what string) {
	b.span.What = what
	b.mark = w.flight.Begin(b.span)
}

func (w *work) end(b *bench) { w.flight.End(b.mark, flight.Outcome{}) }

// forget drops every result, when the state they were computed on is given up.
func (w *work) forget() {
	for i := range w.units {
		w.units[i].done = false
	}
	w.norms.done = false
}
