package trainer

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/internal/flight"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/trainer/nn"
)

// joinWithin is how long the members of a new view may take to form their ring before
// the view is given up.
const joinWithin = 3 * time.Second

// ringEnv is the environment variable that, set to tcp, keeps the ring on TCP also between trainers of one host: for
// tests and measurements.
const ringEnv = "MUSTER_RING"

// shift is a trainer's part in one view.
type shift struct {
	*Trainer
	view   membership.View
	rank   int
	shards []id.LogicalShard
	ring   *collective.Ring
	share  bucket // the blocks of the state that this trainer gives to the servers
	sync   synchroniser
}

// shift trains in a view until it is over; it always returns an error that says why.
func (t *Trainer) shift(ctx context.Context, v membership.View) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := t.advance(v.Number, func() { t.end = cancel })
	if err != nil {
		return err
	}
	s := &shift{Trainer: t, view: v, rank: v.Rank(t.cfg.Node, t.cfg.Incarnation)}
	s.shards = v.Members[s.rank].Shards
	s.sums.begin(t.work, t.cards, s.shards, len(v.Members) == 1, &t.cfg.Log)
	s.share = t.sums.all().share(s.rank, len(v.Members))
	t.cfg.Log.Info().Stringer("view", v.Number).Stringer("from", v.From).Int("trainers", len(v.Members)).
		Ints("shards", ints(s.shards)).Msg("entering a view")

	if t.cfg.Job.Sync.arrives() {
		return over(ctx, s.arrive(ctx))
	}
	s.sync = newSynchroniser(s)
	var joining sync.WaitGroup
	var joined error
	joining.Go(func() { joined = s.join(ctx) })
	err = s.obtain(ctx)
	joining.Wait()
	if s.ring != nil {
		defer s.ring.Close()
		stop := context.AfterFunc(ctx, func() { s.ring.Abort(context.Cause(ctx)) })
		defer stop()
	}
	if err = errors.Join(err, joined); err != nil {
		return over(ctx, err)
	}
	if err := s.cards.take(); err != nil {
		return over(ctx, err)
	}
	return s.comeHome(over(ctx, s.train(ctx)))
}

// over prefers the reason for which the shift was ended to its many consequences.
func over(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func ints(shards []id.LogicalShard) []int {
	out := make([]int, len(shards))
	for i, s := range shards {
		out[i] = int(s)
	}
	return out
}

// join forms the ring of the view.
func (s *shift) join(ctx context.Context) error {
	end := s.cfg.Waits.Begin("the ring", s.view.Number.String(), "ring")
	defer end()
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	var peers []collective.Peer
	for _, m := range s.view.Members {
		peers = append(peers, collective.Peer{Node: m.Node, Addr: m.Addr})
	}
	meet := collective.InboxKey(s.cfg.Run, s.view.Number)
	var err error
	s.ring, err = collective.Join(ctx, collective.Config{
		Run: s.cfg.Run, View: s.view.Number, Rank: s.rank, Peers: peers, Flight: s.cfg.Flight, Log: s.cfg.Log,
		NoLanes: os.Getenv(ringEnv) == "tcp", Stripes: s.cfg.Job.Sync.Stripes,
		Dial: func(ctx context.Context, to collective.Peer) (net.Conn, error) {
			return s.cfg.Port.DialWithin(ctx, collective.AnswerWithin, to.Addr, port.Ring, meet)
		},
		Accept: func(ctx context.Context) (net.Conn, error) {
			return s.inbox.Accept(ctx, meet)
		},
	})
	if err == nil {
		s.mu.Lock()
		s.way = way{ring: s.ring}
		s.mu.Unlock()
	}
	return err
}

// train takes steps until the last one is done or the view is over.
func (s *shift) train(ctx context.Context) error {
	for {
		if err := s.step(ctx, s.state.step); err != nil {
			return err
		}
	}
}

// step does one step: gradients, their sum, the new state. At the step after the last
// there is nothing to sum; it measures the final state and sees it committed.
func (s *shift) step(ctx context.Context, at id.Step) error {
	last := at == s.steps
	defer s.cfg.Flight.End(s.record(flight.Step, "step", at), flight.Outcome{})
	ctx, cancel := context.WithCancel(ctx)
	defer s.sync.rest()
	defer cancel()
	if err := s.readyRows(ctx, at); err != nil {
		return err
	}
	s.work.prepare(at, s.shards)
	sums := s.beginSums(ctx, at, last)
	err := s.compute(ctx, at)
	if err = errors.Join(err, sums.end(err)); err != nil {
		return err
	}
	if err := s.examine(ctx, at, last); err != nil {
		return s.explain(at, err)
	}
	if err := s.agree(ctx, at, len(s.sums.buckets)-1, last); err != nil {
		return err
	}
	train, test, err := s.sums.results(at)
	if err != nil {
		return s.explain(at, err)
	}
	m := s.measure(at, train, test)
	if m.TestAuc, err = s.measureAUC(ctx, at); err != nil {
		return err
	}
	if last {
		return s.finish(m)
	}
	if err := s.pushRows(ctx, at); err != nil {
		return err
	}
	if err := s.sync.update(ctx, at, m); err != nil {
		return err
	}
	s.cfg.OnStep(m)
	return nil
}

// examine looks at gradients that stay on cards, where there are any, and sums all buckets but the last of them with other trainers.
func (s *shift) examine(ctx context.Context, at id.Step, last bool) error {
	if last || !s.sums.stays {
		return nil
	}
	if err := s.sums.examine(s.cards, at); err != nil || s.sums.alone {
		return err
	}
	for i := range len(s.sums.buckets) - 1 {
		if err := s.addUp(ctx, at, i); err != nil {
			return err
		}
	}
	return nil
}

// explain says what is wrong with a step that is no good.
func (s *shift) explain(at id.Step, err error) error {
	if !errors.Is(err, ErrDiverged) {
		return err
	}
	if gone := s.comeHome(nil); gone != nil {
		return gone
	}
	return s.work.explain(at, s.state.w, s.shards, err)
}

// What the work on a step is called; where the model is evaluated as well, that takes most of the time.
const (
	computing  = "computing"
	evaluating = "evaluating at"
)

// working tells who asks that the trainer works on a step, until end is called.
func (s *shift) working(at id.Step) (end func()) {
	what := computing
	if s.work.evaluates(at) {
		what = evaluating
	}
	return s.cfg.Waits.Work(what, at.String())
}

// compute does this trainer's units and, side by side, commits the state if the step
// calls for it: computing only reads the state.
func (s *shift) compute(ctx context.Context, at id.Step) error {
	if err := s.sync.ready(at); err != nil {
		return err
	}
	var committing sync.WaitGroup
	var committed error
	committing.Go(func() { committed = s.sync.commit(ctx, at) })
	fetched := s.prefetch(ctx, at)
	end := s.working(at)
	err := s.work.compute(ctx, s.view.Number, at, s.state.w, s.shards)
	end()
	committing.Wait()
	return errors.Join(err, committed, fetched())
}

func (s *shift) measure(at id.Step, train, test nn.Result) *pb.StepMetrics {
	m := &pb.StepMetrics{Step: uint64(at), Time: time.Now().UnixNano(), Regression: s.cfg.Spec.Classes() == 0}
	if at < s.steps {
		m.Loss, m.Accuracy = Means(s.cfg.Spec, train, s.work.samplesOf(at))
	}
	if s.work.evaluates(at) {
		m.Evaluated = true
		m.TestLoss, m.TestAccuracy = Means(s.cfg.Spec, test, s.cfg.Test.Len())
	}
	return m
}

// stepped is called with Trainer.mu held: the state is now that after the step of m.
func (s *shift) stepped(m *pb.StepMetrics) {
	s.state.step++
	s.metrics = append(s.metrics, m)
	s.rate.count(time.Now())
}

// finish notes the end: every trainer of the view has the final state, and the exchange
// before this call says that every one of them has committed its share.
func (s *shift) finish(m *pb.StepMetrics) error {
	if err := s.comeHome(nil); err != nil {
		return err
	}
	digest, err := Digest(s.cfg.Spec, s.state.w)
	if err != nil {
		return err
	}
	err = s.advance(s.view.Number, func() {
		s.metrics = append(s.metrics, m)
		s.Trainer.done = digest
	})
	if err != nil {
		return err
	}
	s.cfg.OnStep(m)
	s.cfg.Notify()
	return errDone
}
