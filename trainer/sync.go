package trainer

import (
	"context"
	"slices"
	"strings"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/internal/flight"
	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/ps"
)

// synchroniser is one way to keep the trainers' weights one. commit runs beside the
// computing of the step and only reads the state; update makes the state at the next
// step, all of it or nothing.
type synchroniser interface {
	commit(ctx context.Context, at id.Step) error
	update(ctx context.Context, at id.Step, m *pb.StepMetrics) error
}

func newSynchroniser(s *shift) synchroniser {
	if s.cfg.Job.Sync.Mode == ModeRing {
		return ringSync{s}
	}
	return serverSync{s}
}

// ringSync: gradients are all-reduced and every trainer has an optimizer of its own.
// Every few steps each trainer gives its share of the state to the servers, which keep
// it for the case that all trainers are lost.
type ringSync struct{ *shift }

// commits says whether the state at a step is given to the servers.
func (s ringSync) commits(at id.Step) bool {
	return at == s.steps || slices.ContainsFunc(s.commitEvery(), func(every id.Step) bool { return at%every == 0 })
}

// commitEvery are the numbers of which a step must be a multiple of one to be committed:
// that of commits, and that of checkpoints, which are read from the servers.
func (s ringSync) commitEvery() []id.Step {
	every := []id.Step{id.Step(s.cfg.Job.Sync.CommitEvery)}
	if c := s.cfg.Job.Checkpoint.Every; c > 0 {
		every = append(every, id.Step(c))
	}
	return every
}

// committedBefore is the commit before the one at a step. It is complete: the exchange
// of a step begins only after every trainer's commit at it.
func (s ringSync) committedBefore(at id.Step) id.Step {
	if at == 0 {
		return 0
	}
	before := id.Step(0)
	for _, every := range s.commitEvery() {
		before = max(before, (at-1)/every*every)
	}
	return before
}

// commit gives this trainer's share of the state to the servers. A view that begins at
// a commit makes it again, because the one before may not have completed it; servers
// that hold it already change nothing.
func (s ringSync) commit(ctx context.Context, at id.Step) error {
	if !s.commits(at) || s.first == s.last {
		return nil
	}
	lo, hi := s.sums.span(s.first, s.last)
	return s.put(ctx, at, s.committedBefore(at), s.state.part(lo, hi))
}

func (s ringSync) update(ctx context.Context, at id.Step, m *pb.StepMetrics) error {
	i := len(s.sums.buckets) - 1 // the others were summed while computing
	if err := s.allReduce(ctx, at, i); err != nil {
		return err
	}
	defer s.cfg.Flight.End(s.record(flight.Step, "update", at), flight.Outcome{})
	all := id.Block(s.sums.layout.Blocks())
	s.sums.measure(0, all)
	s.sums.shorten(0, all)
	return s.advance(s.view.Number, func() {
		s.sums.update(s.optim, at, s.state, s.sums.grad)
		s.sums.settle()
		s.stepped(m)
	})
}

// serverSync: each trainer gives its share of the summed gradient to the servers and
// takes its share of the new weights from them. A parameter's gradient enters a server
// once per step, however many trainers there are; optimizer state lives there only.
type serverSync struct{ *shift }

// commit gives the servers the state to begin with; later ones they make themselves.
func (s serverSync) commit(ctx context.Context, at id.Step) error {
	if at != 0 || s.first == s.last {
		return nil
	}
	lo, hi := s.sums.span(s.first, s.last)
	part := ps.State{W: s.state.w[lo:hi]}
	for range s.optim.Slots() { // every optimizer begins with zeros
		part.Slots = append(part.Slots, make([]float32, hi-lo))
	}
	return s.put(ctx, at, at, part)
}

func (s serverSync) update(ctx context.Context, at id.Step, m *pb.StepMetrics) error {
	sum, form := s.sums.own(0, s.work.units, s.shards)
	end := s.awaitRing("the reduce-scatter", at)
	op := collective.Op{Step: at}
	err := s.sums.scatter(ctx, s.ring, op, s.bounds, sum, form)
	end()
	if err != nil {
		return err
	}
	lo, hi := s.sums.span(s.first, s.last)
	grad := sum[lo:hi]
	s.sums.measure(s.first, s.last)
	if s.sums.clip.limit > 0 {
		end := s.awaitRing("the exchange of the gradient's norm", at)
		err := s.sums.agreeNorm(ctx, s.ring, at, s.first, s.last)
		end()
		if err != nil {
			return err
		}
	}
	s.sums.shorten(s.first, s.last)
	if s.first < s.last {
		lo, hi := s.sums.span(s.first, s.last)
		end := s.awaitServers("the update by the servers", at)
		err := s.cfg.Servers.Push(ctx, at, s.first, s.last, grad, s.state.next[lo:hi])
		end()
		if err != nil {
			return err
		}
	}
	end = s.awaitRing("the all-gather", at)
	op.Bucket = bucketWeights
	err = s.ring.AllGather(ctx, op, collective.Float32s(s.state.next), s.bounds)
	end()
	if err != nil {
		return err
	}
	return s.advance(s.view.Number, func() {
		s.state.w, s.state.next = s.state.next, s.state.w
		s.stepped(m)
	})
}

func (s *shift) put(ctx context.Context, at, keep id.Step, part ps.State) error {
	end := s.awaitServers("the commit to the servers", at)
	defer end()
	return s.cfg.Servers.Put(ctx, at, keep, s.first, s.last, part)
}

// awaitRing registers a wait on the ring, which tells of which node while it lasts.
func (s *shift) awaitRing(what string, at id.Step) (end func()) {
	return s.cfg.Waits.Follow(what, at.String(), "ring", func() (detail, on string, ok bool) {
		text, peer, _, ok := s.ring.Waiting()
		_, detail, _ = strings.Cut(text, ": ") // which operation it is, what and at say already
		return detail, string(peer), ok
	})
}

// awaitServers registers and records a wait on the parameter servers; the client tells
// which request is the oldest.
func (s *shift) awaitServers(what string, at id.Step) (end func()) {
	mark := s.record(flight.Servers, strings.TrimPrefix(what, "the "), at)
	done := s.cfg.Waits.Follow(what, at.String(), "servers", func() (detail, on string, ok bool) {
		detail, _, _, ok = s.cfg.Servers.Waiting()
		return detail, "servers", ok
	})
	return func() {
		done()
		s.cfg.Flight.End(mark, flight.Outcome{})
	}
}

// record tells the flight recorder that something begins.
func (s *shift) record(track flight.Track, what string, at id.Step) flight.Mark {
	return s.cfg.Flight.Begin(flight.Span{What: what, Track: track, View: s.view.Number, Step: at})
}
