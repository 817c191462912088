package trainer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/internal/flight"
	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/ps"
)

// synchroniser is one way to keep the trainers' weights one. ready comes before a step is computed, and sees that the host has what commit
// reads, which runs beside computing and only reads the state. sum adds up a bucket whose header is agreed, which is
// any but the last, and may run beside computing, too. update adds up the last and makes the state at the next
// step, all of it or nothing. rest waits, when the step's context has ended, until nothing of it is under way.
type synchroniser interface {
	ready(at id.Step) error
	commit(ctx context.Context, at id.Step) error
	sum(ctx context.Context, at id.Step, bucket int) error
	update(ctx context.Context, at id.Step, m *pb.StepMetrics) error
	rest()
}

func newSynchroniser(s *shift) synchroniser {
	if s.cfg.Job.Sync.Mode == ModeRing {
		return ringSync{s}
	}
	return newServerSync(s)
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
	lo, hi := s.committed(at)
	if lo == hi {
		return nil
	}
	return s.put(ctx, at, s.committedBefore(at), s.state.part(lo, hi))
}

// committed is the part of the state at a step that this trainer commits.
func (s ringSync) committed(at id.Step) (lo, hi int) {
	if !s.commits(at) {
		return 0, 0
	}
	return s.sums.span(s.share.first, s.share.last)
}

func (s ringSync) ready(at id.Step) error { return s.cards.give(s.committed(at)) }

func (s ringSync) sum(ctx context.Context, at id.Step, i int) error {
	if s.sums.stays {
		if err := s.sums.multiples(s.cards, i); err != nil {
			return err
		}
	}
	sum, form := s.own(at, i)
	end := s.awaitRing("the all-reduce", at)
	defer end()
	return s.sums.allReduce(ctx, s.ring, collective.Op{Step: at, Bucket: uint32(i)}, sum, form)
}

func (s ringSync) rest() {}

func (s ringSync) update(ctx context.Context, at id.Step, m *pb.StepMetrics) error {
	if !s.sums.sumStays() {
		if err := s.sum(ctx, at, len(s.sums.buckets)-1); err != nil { // the others were summed while computing
			return err
		}
	}
	defer s.cfg.Flight.End(s.record(flight.Step, "update", at), flight.Outcome{})
	if err := s.sums.ready(s.cards); err != nil {
		return err
	}
	m.GradNorm = s.sums.clip.norm()
	var failed error
	err := s.advance(s.view.Number, func() {
		s.leave()
		if failed = s.sums.advance(s.optim, at, s.state, s.cards); failed == nil {
			s.sums.settle()
			s.stepped(m)
		}
	})
	return errors.Join(err, failed)
}

// serverSync: each trainer gives its share of the summed gradient to the servers and
// takes its share of the new weights from them. A parameter's gradient enters a server
// once per step, however many trainers there are; optimizer state lives there only.
//
// A share is of every bucket, so a bucket is pushed when it is summed; how that overlaps computing, overlap.go says.
type serverSync struct {
	*shift
	shares  []bucket // this trainer's, of each bucket
	bounds  [][]int  // of all shares, in each bucket
	pushes  []chan error
	pushing sync.WaitGroup
}

func newServerSync(s *shift) *serverSync {
	y := &serverSync{shift: s}
	world := len(s.view.Members)
	for _, b := range s.sums.buckets {
		y.shares = append(y.shares, b.share(s.rank, world))
		y.bounds = append(y.bounds, s.sums.bounds(b, world))
		y.pushes = append(y.pushes, make(chan error, 1))
	}
	return y
}

func (s *serverSync) ready(id.Step) error { return nil }

// commit gives the servers the state to begin with; later ones they make themselves.
func (s *serverSync) commit(ctx context.Context, at id.Step) error {
	if at != 0 {
		return nil
	}
	return s.putFirst(ctx)
}

// early tells that a bucket is pushed as soon as it is summed. Not where the norm of the whole gradient is wanted before, and not at step
// 0: only when all headers are agreed have all trainers given the servers the state to begin with.
func (s *serverSync) early(at id.Step) bool { return at > 0 && s.sums.clip.limit == 0 }

func (s *serverSync) sum(ctx context.Context, at id.Step, i int) error {
	if err := s.scatter(ctx, at, i); err != nil || !s.early(at) {
		return err
	}
	s.push(ctx, at, i)
	if i == 0 {
		return nil
	}
	return s.gather(ctx, at, i-1) // which the servers have updated meanwhile
}

func (s *serverSync) update(ctx context.Context, at id.Step, m *pb.StepMetrics) error {
	last := len(s.shares) - 1 // the others were summed while computing
	if err := s.sum(ctx, at, last); err != nil {
		return err
	}
	if !s.early(at) {
		if err := s.shorten(ctx, at); err != nil {
			return err
		}
		m.GradNorm = s.sums.clip.norm()
		for i := range s.shares {
			s.push(ctx, at, i)
		}
		for i := range last {
			if err := s.gather(ctx, at, i); err != nil {
				return err
			}
		}
	}
	if err := s.gather(ctx, at, last); err != nil {
		return err
	}
	return s.advance(s.view.Number, func() {
		s.state.w, s.state.next = s.state.next, s.state.w
		s.stepped(m)
	})
}

// scatter sums a bucket, whose header is agreed, so that each trainer has its share.
func (s *serverSync) scatter(ctx context.Context, at id.Step, i int) error {
	sum, form := s.own(at, i)
	end := s.awaitRing("the reduce-scatter", at)
	defer end()
	return s.sums.scatter(ctx, s.ring, collective.Op{Step: at, Bucket: uint32(i)}, s.bounds[i], sum, form)
}

// shorten clips this trainer's shares of the gradient.
func (s *serverSync) shorten(ctx context.Context, at id.Step) error {
	if s.sums.clip.limit == 0 {
		return nil
	}
	for _, b := range s.shares {
		s.sums.measure(b)
	}
	end := s.awaitRing("the exchange of the gradient's norm", at)
	err := s.sums.agreeNorm(ctx, s.ring, at, s.shares)
	end()
	if err != nil {
		return err
	}
	for _, b := range s.shares {
		s.sums.shorten(b)
	}
	return nil
}

// push begins to give the servers this trainer's share of a bucket; they answer with its new weights.
func (s *serverSync) push(ctx context.Context, at id.Step, i int) {
	b := s.shares[i]
	if b.first == b.last {
		s.pushes[i] <- nil
		return
	}
	lo, hi := s.sums.span(b.first, b.last)
	s.pushing.Go(func() {
		span := flight.Span{Track: flight.Push, Step: at, Bucket: uint32(i), Bytes: 4 * (hi - lo)}
		s.pushes[i] <- s.request("the update by the servers", span, func() error {
			return s.cfg.Servers.Push(ctx, at, b.first, b.last, s.sums.grad[lo:hi], s.state.next[lo:hi])
		})
	})
}

// gather waits for the push of a bucket, and gives every trainer the bucket's new weights.
func (s *serverSync) gather(ctx context.Context, at id.Step, i int) error {
	if err := <-s.pushes[i]; err != nil {
		return err
	}
	end := s.awaitRing("the all-gather", at)
	defer end()
	lo, hi := s.sums.span(s.sums.buckets[i].first, s.sums.buckets[i].last)
	return s.ring.AllGather(ctx, collective.Op{Step: at, Bucket: uint32(i)}, collective.Float32s(s.state.next[lo:hi]), s.bounds[i])
}

// rest drops what pushes were made for a step that has come to nothing.
func (s *serverSync) rest() {
	s.pushing.Wait()
	for _, p := range s.pushes {
		select {
		case <-p:
		default:
		}
	}
}

// putFirst gives the servers this trainer's share of the state at step 0.
func (s *shift) putFirst(ctx context.Context) error {
	if s.share.first == s.share.last {
		return nil
	}
	lo, hi := s.sums.span(s.share.first, s.share.last)
	part := ps.State{W: s.state.w[lo:hi]}
	for range s.optim.Slots() { // every optimizer begins with zeros
		part.Slots = append(part.Slots, make([]float32, hi-lo))
	}
	return s.put(ctx, 0, 0, part)
}

func (s *shift) put(ctx context.Context, at, keep id.Step, part ps.State) error {
	return s.ask("the commit to the servers", at, func() error {
		return s.cfg.Servers.Put(ctx, at, keep, s.share.first, s.share.last, part)
	})
}

// awaitRing registers a wait on the ring, which tells of which node while it lasts.
func (s *shift) awaitRing(what string, at id.Step) (end func()) {
	return s.cfg.Waits.Follow(what, at.String(), "ring", func() (detail, on string, ok bool) {
		text, peer, _, ok := s.ring.Waiting()
		_, detail, _ = strings.Cut(text, ": ") // which operation it is, what and at say already
		return detail, string(peer), ok
	})
}

// ask registers and records a request to the parameter servers.
func (s *shift) ask(what string, at id.Step, do func() error) error {
	return s.request(what, flight.Span{Track: flight.Servers, Step: at}, do)
}

// request does so with a span of its own. The client tells which of its requests is the oldest.
func (s *shift) request(what string, span flight.Span, do func() error) error {
	span.Waits = func() (id.Node, time.Time, bool) {
		_, peer, since, ok := s.cfg.Servers.Waiting()
		return peer, since, ok
	}
	span.What, span.View = strings.TrimPrefix(what, "the "), s.view.Number
	mark := s.cfg.Flight.Begin(span)
	defer s.cfg.Waits.Follow(what, span.Step.String(), "servers", func() (detail, on string, ok bool) {
		detail, _, _, ok = s.cfg.Servers.Waiting()
		return detail, "servers", ok
	})()
	err := do()
	s.cfg.Flight.End(mark, flight.Outcome{Err: err})
	return err
}

// record tells the flight recorder that something begins.
func (s *shift) record(track flight.Track, what string, at id.Step) flight.Mark {
	return s.cfg.Flight.Begin(flight.Span{What: what, Track: track, View: s.view.Number, Step: at})
}
