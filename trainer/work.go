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
	"github.com/musterml/muster/internal/huge"
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

// work computes units on several cores, on each a group of them at a time. How they are grouped changes no bit of them.
type work struct {
	job     Job
	spec    *nn.Spec
	loader  *data.Loader
	heldOut *data.HeldOut
	steps   id.Step
	samples int     // of a pass
	slice   int     // samples of a unit, at most
	group   int     // units in a group, at most
	scale   float32 // 1/labels of a whole batch
	flight  *flight.Recorder
	moved   chan struct{} // a unit's gradient has come further
	benches []*bench
	rounds  *rounds // of mode local
	units   []unit  // by logical shard
	norms   norms
	tables  []nn.Table // of the model
	rows    *rows      // of them; nil where it has none, and where nothing is trained
	source  rowSource  // of rows of held-out samples
	scores  *scores    // of held-out samples; nil where the model has another loss
	device  device.Device
	stays   bool              // gradients stay on the cards, see stay.go;
	owned   []id.LogicalShard // those of these shards
	locking sync.Mutex        // of
	unlocks []func()          // what is locked
}

// bench is what one group of units at a time needs.
type bench struct {
	replica *nn.Replica
	room
	ahead   *ahead            // of what it computes next: nil where the host computes
	next    turn              // what that will be, as far as can be told
	own     *own              // in mode local
	group   []id.LogicalShard // that it computes now
	parts   []nn.Part         // of it
	span    flight.Span       // of what it does now
	mark    flight.Mark
	heldOut data.Rows // of samples that are evaluated
	scores  []float32 // of the same
}

// groupWeights is how many times the memory of the weights the values may take that a group's layers put out. Every group reads
// and packs all weights, so it pays to have many samples for them; but values that are many more than the weights cost
// memory and caches, and gain nothing. Measured with the four models of bench/RESULTS-cpu.md.
const groupWeights = 3

func newWork(job Job, spec *nn.Spec, dev device.Device, train, test data.Dataset, rec *flight.Recorder) (*work, error) {
	b := job.batches()
	batches := b.Steps(job.Passes, train.Len())
	dev, _, err := job.On(dev)
	if err != nil {
		return nil, err
	}
	local, err := newRounds(job, batches)
	if err != nil {
		return nil, err
	}
	w := &work{
		job: job, spec: spec, steps: job.rounds(batches), rounds: local, samples: train.Len(),
		scale:  1 / (float32(job.Batch.Size) * float32(spec.Targets())),
		loader: data.NewLoader(train, job.Seed, b), heldOut: data.NewHeldOut(test, b.LogicalShards),
		units: make([]unit, b.LogicalShards), device: dev, flight: rec, moved: make(chan struct{}, 1), slice: b.MaxSlice(),
	}
	benches := min(dev.Streams(), b.LogicalShards)
	w.group = min(max(1, groupWeights*spec.Params()/(w.slice*spec.Outputs())), upTo(b.LogicalShards, benches))
	w.tables, w.scores = spec.Tables(), newScores(spec, test)
	if local != nil || len(w.tables) > 0 {
		w.group = 1 // each goes by itself, or has rows of its own
	}
	for i := range benches {
		r, err := spec.NewReplica(dev, w.group*w.slice, w.group)
		if err != nil {
			return nil, errors.Join(err, w.close())
		}
		batch := func() data.Batch {
			b := data.NewBatch(train, w.group*w.slice)
			w.lock(b.X)
			w.lock(b.Values)
			return b
		}
		bench := &bench{replica: r, room: room{batch: batch()}}
		w.benches = append(w.benches, bench)
		if err := bench.readAhead(w, batch); err != nil {
			return nil, errors.Join(err, w.close())
		}
		if w.scores != nil {
			bench.scores = make([]float32, w.slice)
		}
		if local != nil {
			bench.own = newOwn(spec.Params(), local.inner.Slots())
			w.lock(bench.own.w)
		}
		bench.span.Track = flight.Compute + flight.Track(i)
		r.Progress = func(complete int) { w.progress(bench, complete) }
	}
	return w, nil
}

// handOver has devices hand gradients over whenever they are complete from one of the offsets on, which descend.
func (w *work) handOver(at []int) {
	for _, b := range w.benches {
		b.replica.Marks = at
	}
}

func (w *work) close() error {
	var errs []error
	for _, b := range w.benches {
		errs = append(errs, b.close())
	}
	for _, unlock := range w.unlocks {
		unlock()
	}
	return errors.Join(errs...)
}

// lock has the device take from and give to x in its place, until close. It is for what that is done with in every step.
func (w *work) lock(x []float32) []float32 {
	unlock := device.Lock(w.device, x)
	w.locking.Lock()
	defer w.locking.Unlock()
	w.unlocks = append(w.unlocks, unlock)
	return x
}

// hold says that these weights do not change until it is called again.
func (w *work) hold(weights []float32) {
	for _, b := range w.benches {
		b.replica.Hold(weights)
	}
}

// evaluates says whether the state at a step is measured on the held-out data: after
// every pass and at the end.
func (w *work) evaluates(s id.Step) bool {
	if s == 0 {
		return false
	}
	n, size := uint64(w.samples), uint64(w.job.SamplesPerStep())
	return s == w.steps || uint64(s)*size/n > uint64(s-1)*size/n
}

// compute does the units of the shards at the step for the given weights; those that are
// done already it keeps. It stops between units when ctx ends.
func (w *work) compute(ctx context.Context, v id.View, s id.Step, weights []float32, shards []id.LogicalShard) error {
	w.hold(weights)
	defer w.hold(nil)
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
	if w.stays && len(w.benches) > 1 {
		return w.computeOwned(ctx, v, s, weights, todo)
	}
	groups := w.groups(len(todo))
	group := func(i int) []id.LogicalShard { return todo[i*len(todo)/groups : (i+1)*len(todo)/groups] }
	return w.each(ctx, groups, func(b *bench, i int) error {
		b.span.View, b.span.Step = v, s
		switch next := i + len(w.benches); {
		case next < groups:
			b.next = turn{s, group(next)}
		case s+1 < w.steps:
			b.next = turn{s + 1, group(i % len(w.benches))}
		default:
			b.next = turn{}
		}
		return w.do(ctx, b, s, group(i), weights)
	})
}

// groups is how many groups n units are cut into: as many for each bench, or one would wait for another at the end.
func (w *work) groups(n int) int {
	benches := min(len(w.benches), n)
	return min(n, upTo(upTo(n, w.group), benches)*benches)
}

// upTo is how many parts of at most size n things make; none of no things.
func upTo(n, size int) int { return (n + max(1, size) - 1) / max(1, size) }

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

// do does a group of units: their gradients together, what they evaluate one by one.
func (w *work) do(ctx context.Context, b *bench, s id.Step, group []id.LogicalShard, weights []float32) error {
	for _, l := range group {
		u := &w.units[l]
		u.step, u.done = s, false
		u.Result, u.test = nn.Result{}, nn.Result{}
	}
	switch {
	case s == w.steps:
	case w.rounds != nil:
		if err := w.goAlone(ctx, b, s, group, weights); err != nil {
			return err
		}
	default:
		err := w.gradients(b, s, group, weights)
		for i := 0; err != nil && i < len(group); i++ { // alone, the unit whose fault it is can say so
			if fault := w.gradients(b, s, group[i:i+1], weights); fault != nil {
				return fmt.Errorf("%v of %v: %w", s, group[i], fault)
			}
		}
		if err != nil {
			return fmt.Errorf("%v: %w", s, err)
		}
	}
	for _, l := range group {
		if w.evaluates(s) {
			if err := w.evaluate(ctx, b, s, l, weights); err != nil {
				return fmt.Errorf("held-out data of %v after %v: %w", l, s, err)
			}
		}
		w.units[l].done = true
	}
	return nil
}

// gradients finds the gradients of a group's units.
func (w *work) gradients(b *bench, s id.Step, group []id.LogicalShard, weights []float32) error {
	idle := runtime.GOMAXPROCS(0) / len(w.benches) // processors for each, where another device computes
	b.group, b.parts = group, b.parts[:0]
	for _, l := range group {
		_, n := w.job.batches().Slice(s, l)
		part := nn.Part{Samples: n, Key: w.key(s, l), Grad: w.roomOf(l)}
		if w.stays {
			_, part.Place = w.place(l)
		}
		b.parts = append(b.parts, part)
	}
	w.begin(b, "forward", group)
	if err := b.replica.Gradients(weights, w.samplesOfGroup(b, s, group), w.scale, b.parts); err != nil {
		return err
	}
	for i, l := range group {
		u := &w.units[l]
		u.Result = b.parts[i].Result
		// Of exact sums, and where gradients stay, the exponents tell whether the gradient is finite, see explain.
		if fine := finite(u.Loss) && (w.job.Sync.Sum == SumExact || w.stays || allFiniteOn(idle, u.grad)); !fine && !w.stays {
			return w.blame(b, s, l, weights)
		}
	}
	return nil
}

// roomOf is where a unit's gradient comes to the host; nil where it does not.
func (w *work) roomOf(l id.LogicalShard) []float32 {
	u := &w.units[l]
	if u.grad == nil && !w.stays {
		u.grad = w.lock(huge.Float32s(w.spec.Params()))
	}
	if w.stays {
		return nil
	}
	return u.grad
}

// evaluate measures the weights on a shard's part of the held-out data.
func (w *work) evaluate(ctx context.Context, b *bench, s id.Step, l id.LogicalShard, weights []float32) error {
	u := &w.units[l]
	w.begin(b, "evaluate", []id.LogicalShard{l})
	defer w.end(b)
	b.replica.Scores = b.scores
	defer func() { b.replica.Scores = nil }()
	from := 0
	for in := range w.heldOut.Chunks(l, b.batch.Room(w.slice)) { // sums hang on how they are cut, so not on groups
		if err := w.rowsOfHeldOut(ctx, b, s, &in); err != nil {
			return err
		}
		r, err := b.replica.Evaluate(weights, w.norms.stats, in)
		if err == nil && !finite(r.Loss) {
			err = blame(b.replica, weights, in, device.DropoutKey{}, nil)
		}
		if err != nil {
			return err
		}
		u.test.Loss += r.Loss
		u.test.Correct += r.Correct
		if w.scores != nil {
			w.scores.put(l, len(w.units), from, b.scores[:in.Len()*w.scores.width])
		}
		from += in.Len()
	}
	return nil
}

// samplesOfGroup is the samples of a group's units; those that need rows of tables have been read with them.
func (w *work) samplesOfGroup(b *bench, s id.Step, group []id.LogicalShard) data.Batch {
	if w.rows != nil {
		return w.rows.now.units[group[0]].batch
	}
	return b.samples(w.loader, turn{s, group})
}

// samplesOf is how many samples a step of the run takes.
func (w *work) samplesOf(s id.Step) int {
	if w.rounds == nil {
		return w.job.Batch.Size
	}
	first, last := w.rounds.span(s)
	return w.job.Batch.Size * int(last-first)
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

// progress hears how far a bench has come with the gradients of its group.
func (w *work) progress(b *bench, complete int) {
	for _, l := range b.group {
		w.units[l].from.Store(int64(complete))
	}
	select {
	case w.moved <- struct{}{}:
	default:
	}
	switch complete {
	case w.spec.Params():
		w.end(b)
		w.begin(b, "backward", b.group)
	case 0:
		w.end(b)
	}
}

func (w *work) begin(b *bench, what string, group []id.LogicalShard) {
	b.span.What, b.span.Shard, b.span.Shards = what, group[0], len(group)
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
