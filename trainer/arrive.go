package trainer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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
		if err := s.state.begin(s.cfg.Spec, s.cfg.Job.Seed); err != nil {
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
	if err := s.computeApart(ctx, at, of); err != nil {
		return err
	}
	seen, err := s.pushApart(ctx, at, of)
	if err != nil {
		return err
	}
	for _, l := range of {
		a.next[l] = at + 1
	}
	s.tellApart(s.measureApart(at, of, seen.Updates))
	return s.saw(seen)
}

// computeApart does the units that are not done yet.
func (s *shift) computeApart(ctx context.Context, at id.Step, of []id.LogicalShard) error {
	a := &s.arrivals
	for _, l := range of {
		if u := &s.work.units[l]; !u.done || u.step != at {
			a.base[l] = a.seen.Updates
		}
	}
	s.work.prepare(at, of)
	end := s.cfg.Waits.Work("computing", at.String())
	defer end()
	return s.work.compute(ctx, s.view.Number, at, s.state.w, of)
}

// pushApart gives the servers the gradient of the units together or, where some blocks have some of them already, each by itself.
func (s *shift) pushApart(ctx context.Context, at id.Step, of []id.LogicalShard) (ps.Seen, error) {
	var seen ps.Seen
	push := func(of []id.LogicalShard) error {
		return s.ask("the update by the servers", at, func() (err error) {
			seen, err = s.cfg.Servers.PushPart(ctx, at, of, s.sums.together(s.work.units, of), s.state.w)
			return err
		})
	}
	err := push(of)
	if errors.Is(err, ps.ErrSplit) {
		err = nil
		for i := 0; err == nil && i < len(of); i++ {
			err = push(of[i : i+1])
		}
	}
	return seen, err
}

// together is the mean gradient over the samples of some units, clipped.
func (x *exchange) together(units []unit, of []id.LogicalShard) []float32 {
	all := x.all()
	x.gather(all, units, of)
	if len(of) < x.shards {
		factor := float32(x.shards) / float32(len(of))
		x.spread(all.first, all.last, func(first, last id.Block) {
			lo, hi := x.span(first, last)
			optim.Scale(x.grad[lo:hi], factor)
		})
	}
	x.measure(all)
	x.shorten(all)
	return x.grad
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
