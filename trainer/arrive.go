package trainer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/musterml/muster/internal/flight"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/ps"
	"github.com/musterml/muster/trainer/nn"
)

// Modes ssp and async: there is no ring. Each trainer computes the gradient of its logical shards at their next step on
// whatever weights it has read last, gives it to the servers, which apply it at once, and reads the newest weights with the
// answer: Ho et al., "More effective distributed ML via a stale synchronous parallel parameter server", 2013, with one clock
// for each logical shard instead of each worker; without a bound, Dean et al., "Large scale distributed deep
// networks", 2012 (Downpour SGD). Before it computes step t a trainer waits until every logical shard has done all steps below
// t - staleness, so its weights hold all of those.
//
// What a push is: the mean gradient over its samples, applied with the learning rate times its share of the batch. So a step's
// pushes together move the weights as far as one push of the whole batch would, whatever the optimizer and the number of trainers.
//
// The servers know what they have applied: every block keeps a clock for each logical shard, in the replicated state. A trainer that
// enters a view asks for the clocks of its logical shards and goes on from there. A push that was interrupted is
// made again: by the same trainer with the same gradient, or by whoever has the logical shard now with another one, from the same
// samples on newer weights; in both cases only the blocks that do not have that (step, logical shard) take it.
//
// The run's step is the slowest clock: the number of steps that every logical shard has done. A view's first step is one
// that some member knew of, and so a lower bound of that.

// arrivals is what a trainer keeps from view to view in these modes.
type arrivals struct {
	seen ps.Seen   // of the weights in state.w
	base []float64 // by logical shard: Updates of the weights that its unit was computed on
	next []id.Step // by logical shard: its clock, as far as this trainer knows; right for its own
}

// arrive trains in a view, without a ring.
func (s *shift) arrive(ctx context.Context) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	for {
		at, of := s.due()
		if at == s.steps {
			return s.endApart(ctx)
		}
		if err := s.stepApart(ctx, at, of); err != nil {
			return err
		}
	}
}

// due is the step that this trainer does next, and which of its logical shards: those that are furthest behind.
func (s *shift) due() (at id.Step, of []id.LogicalShard) {
	at = s.steps
	for _, l := range s.shards {
		at = min(at, s.arrivals.next[l])
	}
	for _, l := range s.shards {
		if s.arrivals.next[l] == at {
			of = append(of, l)
		}
	}
	return at, of
}

// enter finds out how far the logical shards are, and gives the servers the state to begin with if they have none.
func (s *shift) enter(ctx context.Context) error {
	a := &s.arrivals
	var clocks []id.Step
	var ok bool
	err := s.ask("the clocks of the logical shards", s.view.From, func() (err error) {
		clocks, ok, err = s.cfg.Servers.Clocks(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if !ok && s.view.From == 0 {
		s.abandon()
		if err := s.state.begin(s.cfg.Spec, s.cfg.Job); err != nil {
			return err
		}
		if err := s.putFirst(ctx); err != nil {
			return err
		}
	}
	if err := s.pull(ctx, s.view.From); err != nil { // waits for the others' shares of a state to begin with
		return err
	}
	if !ok {
		clocks = make([]id.Step, len(s.work.units))
		for l := range clocks {
			clocks[l] = a.seen.Clock
		}
	}
	a.next = clocks
	return s.advance(s.view.Number, func() {
		s.holds = true
		s.reportDone()
	})
}

// reportDone reports the steps that this trainer's logical shards have done, as far as it has not done so yet. Of one whose push was
// interrupted it may have the figures itself; of those done by others it says that they are lost, and the coordinator
// takes the word of whoever knows better. Called with Trainer.mu held.
func (s *shift) reportDone() {
	for _, l := range s.shards {
		for at := s.view.From; at < s.arrivals.next[l]; at++ {
			if slices.ContainsFunc(s.metrics, func(m *pb.StepMetrics) bool { return m.Step == uint64(at) && hasPart(m, l) }) {
				continue
			}
			m := &pb.StepMetrics{Step: uint64(at), Parts: []*pb.PartMetrics{{Shard: uint32(l), Lost: true}}}
			if u := &s.work.units[l]; u.done && u.step == at {
				m = s.measureApart(at, []id.LogicalShard{l}, s.arrivals.seen.Updates)
			}
			s.metrics = append(s.metrics, m)
		}
	}
	slices.SortStableFunc(s.metrics, func(a, b *pb.StepMetrics) int { return cmp.Compare(a.Step, b.Step) })
}

func hasPart(m *pb.StepMetrics, l id.LogicalShard) bool {
	return slices.ContainsFunc(m.Parts, func(p *pb.PartMetrics) bool { return p.Shard == uint32(l) })
}

// pull reads the newest weights, once all steps below least are in them.
func (s *shift) pull(ctx context.Context, least id.Step) error {
	var seen ps.Seen
	err := s.ask("the slowest logical shard", least, func() (err error) {
		seen, err = s.cfg.Servers.PullNewest(ctx, least, s.state.w)
		return err
	})
	if err != nil {
		return err
	}
	return s.saw(seen)
}

// saw notes how far the weights just read are.
func (s *shift) saw(seen ps.Seen) error {
	return s.advance(s.view.Number, func() {
		s.arrivals.seen = seen
		s.state.step = seen.Clock
	})
}

// stepApart does one step of some logical shards.
func (s *shift) stepApart(ctx context.Context, at id.Step, of []id.LogicalShard) error {
	defer s.cfg.Flight.End(s.record(flight.Step, "step", at), flight.Outcome{})
	a := &s.arrivals
	if ahead := id.Step(min(s.cfg.Job.Sync.ahead(), int(at))); a.seen.Clock+ahead < at {
		if err := s.pull(ctx, at-ahead); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	pushes := pushes{shift: s, at: at, of: of, seen: make([]ps.Seen, len(s.sums.buckets)), errs: make([]error, len(s.sums.buckets))}
	defer pushes.underWay.Wait()
	defer cancel()
	s.work.prepare(at, of)
	handing := s.work.overlap(ctx, s.sums, of, len(s.sums.buckets), pushes.begin)
	err := s.computeApart(ctx, at, of)
	if err = errors.Join(err, handing.end(err)); err != nil {
		return err
	}
	seen, err := pushes.end()
	if err != nil {
		return err
	}
	for _, l := range of {
		a.next[l] = at + 1
	}
	s.tellApart(s.measureApart(at, of, seen.Updates))
	return s.advance(s.view.Number, func() {
		s.state.w, s.state.next = s.state.next, s.state.w
		s.arrivals.seen, s.state.step = seen, seen.Clock
	})
}

// computeApart does the units that are not done yet.
func (s *shift) computeApart(ctx context.Context, at id.Step, of []id.LogicalShard) error {
	a := &s.arrivals
	for _, l := range of {
		if u := &s.work.units[l]; !u.done || u.step != at {
			a.base[l] = a.seen.Updates
		}
	}
	defer s.working(at)()
	return s.work.compute(ctx, s.view.Number, at, s.state.w, of)
}

// pushes gives the servers the gradient of some units at a step, bucket by bucket.
type pushes struct {
	*shift
	at       id.Step
	of       []id.LogicalShard
	underWay sync.WaitGroup
	seen     []ps.Seen // by bucket
	errs     []error
}

// begin makes the gradient of a bucket and begins to push it. Its newest weights come into state.next.
func (p *pushes) begin(ctx context.Context, i int) error {
	grad := p.sums.together(p.sums.buckets[i], p.work.units, p.of)
	p.underWay.Go(func() { p.seen[i], p.errs[i] = p.push(ctx, i, grad) })
	return nil
}

// push pushes the gradient of all units or, where some blocks have some of them already, of each by itself.
func (p *pushes) push(ctx context.Context, i int, grad []float32) (seen ps.Seen, err error) {
	b := p.sums.buckets[i]
	lo, hi := p.sums.span(b.first, b.last)
	span := flight.Span{Track: flight.Push, Step: p.at, Bucket: uint32(i), Bytes: 4 * (hi - lo)}
	err = p.request("the update by the servers", span, func() (err error) {
		seen, err = p.cfg.Servers.PushPart(ctx, p.at, p.of, b.first, b.last, grad, p.state.next[lo:hi])
		if !errors.Is(err, ps.ErrSplit) {
			return err
		}
		for k := range p.of {
			one := p.of[k : k+1]
			grad := p.sums.together(b, p.work.units, one)
			if seen, err = p.cfg.Servers.PushPart(ctx, p.at, one, b.first, b.last, grad, p.state.next[lo:hi]); err != nil {
				return err
			}
		}
		return nil
	})
	return seen, err
}

// end waits for all pushes.
func (p *pushes) end() (seen ps.Seen, err error) {
	p.underWay.Wait()
	for _, s := range p.seen {
		seen = seen.Both(s)
	}
	return seen, errors.Join(p.errs...)
}

// together is the mean gradient over the samples of some units in a bucket, clipped where the bucket is all of it.
func (x *exchange) together(b bucket, units []unit, of []id.LogicalShard) []float32 {
	x.gather(b, units, of)
	if len(of) < x.shards {
		factor := float32(x.shards) / float32(len(of))
		x.spread(b.first, b.last, func(first, last id.Block) {
			lo, hi := x.span(first, last)
			optim.Scale(x.grad[lo:hi], factor)
		})
	}
	x.measure(b)
	x.shorten(b)
	lo, hi := x.span(b.first, b.last)
	return x.grad[lo:hi]
}

// measureApart is what the coordinator is told of a step of some logical shards; updates are those in the weights read with the
// answer to their push.
func (s *shift) measureApart(at id.Step, of []id.LogicalShard, updates float64) *pb.StepMetrics {
	var train, test nn.Result
	job, spec := s.cfg.Job, s.cfg.Spec
	m := &pb.StepMetrics{Step: uint64(at), Time: time.Now().UnixNano(), Regression: spec.Classes() == 0, Evaluated: s.work.evaluates(at)}
	for _, l := range of {
		u := &s.work.units[l]
		p := &pb.PartMetrics{Shard: uint32(l), Staleness: max(0, updates-float64(len(of))-s.arrivals.base[l]) / float64(len(s.work.units))}
		p.Loss, p.Accuracy = Means(spec, u.Result, job.Batch.Size)
		p.TestLoss, p.TestAccuracy = Means(spec, u.test, s.cfg.Test.Len())
		m.Parts = append(m.Parts, p)
		train.Loss, train.Correct = train.Loss+u.Loss, train.Correct+u.Correct
		test.Loss, test.Correct = test.Loss+u.test.Loss, test.Correct+u.test.Correct
	}
	own := float64(len(s.work.units)) / float64(len(of)) // a logical shard's samples are as many as another's, or one more
	train.Loss *= own
	m.Loss, m.Accuracy = Means(spec, train, job.Batch.Size)
	if !m.Regression {
		m.Accuracy *= own
	}
	if m.Evaluated {
		test.Loss *= own
		m.TestLoss, m.TestAccuracy = Means(spec, test, s.cfg.Test.Len())
		if !m.Regression {
			m.TestAccuracy *= own
		}
	}
	return m
}

// tellApart has a step reported that the servers have, whether the view goes on or not.
func (s *shift) tellApart(m *pb.StepMetrics) {
	s.mu.Lock()
	s.metrics = append(s.metrics, m)
	s.rate.count(time.Now())
	s.mu.Unlock()
	s.cfg.OnStep(m)
}

// endApart waits for the slowest, and measures the final state.
func (s *shift) endApart(ctx context.Context) error {
	if err := s.pull(ctx, s.steps); err != nil {
		return err
	}
	if want := float64(s.steps) * float64(len(s.work.units)); s.arrivals.seen.Updates != want { // by construction of the clocks it cannot be
		return fmt.Errorf("the servers have applied %v gradients of logical shards in the mean block, not %v", s.arrivals.seen.Updates, want)
	}
	if err := s.computeApart(ctx, s.steps, s.shards); err != nil {
		return err
	}
	return s.finish(s.measureApart(s.steps, s.shards, 0))
}
