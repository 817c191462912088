package trainer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/internal/flight"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/internal/wait"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/ps"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/nn"
)

// Config is what a trainer needs from its node.
type Config struct {
	Job         Job
	Run         string
	Node        id.Node
	Incarnation id.Incarnation
	Spec        *nn.Spec
	Device      device.Device
	Train, Test data.Dataset
	Port        *port.Port
	Servers     *ps.Client
	Waits       *wait.Registry
	Flight      *flight.Recorder      // what this trainer did last; may be nil
	Retired     func(error)           // this trainer's device has failed: it computes no more, but others may go on; may be nil
	Broken      func(error)           // the ring of a view has failed or lost a member: the moment to look at Flight
	Notify      func()                // something changed that the coordinator should hear now
	OnStep      func(*pb.StepMetrics) // called after every step that this trainer took part in
	Log         zerolog.Logger
}

// Trainer is a node's trainer: it goes from view to view and, in each, from step to
// step. Run does the work; the other methods may be called by any goroutine.
type Trainer struct {
	cfg   Config
	steps id.Step
	work  *work
	sums  *exchange
	optim optimizer
	inbox *collective.Inbox
	rate  rate

	arrivals arrivals // in modes ssp and async; only the shift's

	giving sync.RWMutex // read-held while the state is given away, write-held while it changes; taken before mu
	state  *state
	cards  *cards // only the shift's; nil where the state is the host's alone

	mu      sync.Mutex
	away    chan struct{}   // until it is closed the newest state is the cards'; nil: it is the host's
	holds   bool            // state is that of state.step
	view    membership.View // the newest that this trainer was told of
	frozen  id.View         // no step is taken in a view up to this one
	broken  bool            // the ring of view is broken
	suspect []*pb.Suspicion
	metrics []*pb.StepMetrics // not yet acknowledged
	done    string            // digest of the final weights, "" before the end
	failed  error
	retired error                   // of the device
	end     context.CancelCauseFunc // ends the shift that runs
	way     way                     // of the ring that was formed last

	changed chan struct{} // a new view has come
}

// optimizer is what the trainer needs of package optim.
type optimizer interface {
	Update(step id.Step, w, grad []float32, slots [][]float32)
	Rule(step id.Step) optim.Rule
	Slots() int
	WholeTensors() bool
}

var (
	// errViewOver ends a shift whose view was frozen or replaced.
	errViewOver = errors.New("the view is over")
	// errDone ends the last shift: the final step is done and committed.
	errDone = errors.New("all steps are done")
)

// New makes a trainer. It answers requests for its state and for its ring on the port
// from now on, but takes no step before Run.
func New(cfg Config) (*Trainer, error) {
	opt, err := cfg.Job.NewOptimizer()
	if err != nil {
		return nil, err
	}
	w, err := newWork(cfg.Job, cfg.Spec, cfg.Device, cfg.Train, cfg.Test, cfg.Flight)
	if err != nil {
		return nil, err
	}
	t := &Trainer{
		cfg: cfg, steps: w.steps, work: w, sums: newExchange(cfg.Job, cfg.Spec), optim: opt,
		inbox: collective.NewInbox(0, 0), state: newState(cfg.Spec.Params(), opt.Slots(), cfg.Job.Sync.Mode),
		changed: make(chan struct{}, 1),
	}
	w.lock(t.state.w)
	w.lock(t.state.next)
	t.cards = newCards(w, t.sums, opt, t.state, &cfg.Log)
	w.handOver(t.sums.starts())
	w.rows, w.source = newRows(cfg.Spec, cfg.Servers, w.loader, cfg.Train, cfg.Job.batches()), cfg.Servers
	if cfg.Job.Sync.arrives() {
		t.arrivals.base = make([]float64, len(w.units))
	}
	t.serve()
	return t, nil
}

// Run trains until ctx ends; it returns an error only when this node cannot go on.
func (t *Trainer) Run(ctx context.Context) error {
	for {
		v, err := t.nextView(ctx)
		if err != nil {
			return nil // asked to end
		}
		err = t.shift(ctx, v)
		var ring *collective.PeerError
		var abort *collective.AbortError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errViewOver), errors.Is(err, errDone):
		case errors.Is(err, device.ErrFailed):
			t.retire(v.Number, err)
		case errors.As(err, &ring):
			t.breakRing(v.Number, t.cfg.Node, ring.Peer, err)
		case errors.As(err, &abort):
			t.breakRing(v.Number, abort.Origin, abort.Suspect, err)
		case errors.Is(err, collective.ErrClosed), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errElsewhere):
			t.breakRing(v.Number, "", "", err)
		default:
			t.fail(err)
		}
	}
}

// nextView waits for a view that counts this trainer in and has not been frozen.
func (t *Trainer) nextView(ctx context.Context) (membership.View, error) {
	end := t.cfg.Waits.Begin("a view that this trainer takes part in", "", "coordinator")
	defer end()
	for {
		t.mu.Lock()
		v, usable := t.view, t.view.Number > t.frozen && !t.broken && t.failed == nil && t.retired == nil && t.done == ""
		t.mu.Unlock()
		if usable && v.Rank(t.cfg.Node, t.cfg.Incarnation) >= 0 {
			return v, nil
		}
		select {
		case <-ctx.Done():
			return v, ctx.Err()
		case <-t.changed:
		}
	}
}

// Enter is told the newest view. A state that may not be the run's is given up: that of
// a trainer that was left out, and one that the coordinator does not count although it
// is of the right step. An older one is kept until a newer one arrives.
func (t *Trainer) Enter(v membership.View) {
	if loss := t.enter(v); loss != nil {
		t.cfg.Broken(loss)
	}
}

// enter returns an error if the view before has lost a member of which the ring has not said so: the coordinator was first.
func (t *Trainer) enter(v membership.View) (loss error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v.Number <= t.view.Number {
		return nil
	}
	lost := func(m membership.Member) bool { return v.Rank(m.Node, m.Incarnation) < 0 }
	if !t.broken && t.view.Rank(t.cfg.Node, t.cfg.Incarnation) >= 0 && slices.ContainsFunc(t.view.Members, lost) {
		loss = fmt.Errorf("%v ended: %s", t.view.Number, v.Reason)
	}
	t.view, t.broken, t.suspect, t.done = v, false, nil, ""
	t.freeze(v.Number - 1)
	rank := v.Rank(t.cfg.Node, t.cfg.Incarnation)
	switch {
	case rank < 0: // what it did last may never have been agreed
		t.holds = false
	case !v.Members[rank].Holder && t.state.step == v.From: // its weights are not the run's
		t.holds = false
	}
	select {
	case t.changed <- struct{}{}:
	default:
	}
	return loss
}

// Freeze has the trainer take no further step in any view up to this one. When it
// returns, the state it reports is final for those views.
func (t *Trainer) Freeze(v id.View) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.freeze(v)
}

func (t *Trainer) freeze(v id.View) {
	if v <= t.frozen {
		return
	}
	t.frozen = v
	if t.end != nil {
		t.end(errViewOver)
	}
}

// advance makes a change of state, if the view still allows it, as one step.
func (t *Trainer) advance(v id.View, change func()) error {
	t.giving.Lock()
	defer t.giving.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.frozen >= v {
		return errViewOver
	}
	change()
	return nil
}

// Ack is told that every step below s is in the run's history.
func (t *Trainer) Ack(s id.Step) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.metrics = slices.DeleteFunc(t.metrics, func(m *pb.StepMetrics) bool { return m.Step < uint64(s) })
}

// breakRing reports that the ring of a view has failed: by has lost suspect, or neither is known.
func (t *Trainer) breakRing(v id.View, by, suspect id.Node, cause error) {
	t.cfg.Log.Info().Err(cause).Stringer("view", v).Msg("the ring is broken; waiting for the next view")
	t.mu.Lock()
	if t.view.Number == v {
		t.broken = true
		if suspect != "" && suspect != t.cfg.Node {
			t.suspect = append(t.suspect, &pb.Suspicion{Node: string(suspect), Why: cause.Error(), By: string(by)})
		}
	}
	t.mu.Unlock()
	t.cfg.Notify()
	t.cfg.Broken(cause)
}

func (t *Trainer) fail(err error) {
	t.cfg.Log.Error().Err(err).Msg("this job cannot go on")
	t.mu.Lock()
	t.failed = err
	t.mu.Unlock()
	t.cfg.Notify()
}

// retire has this trainer take part in no view any more: its device, not the job, is at fault. Its node stays what else it is.
func (t *Trainer) retire(v id.View, err error) {
	err = fmt.Errorf("node %s: %w", t.cfg.Node, err)
	t.cfg.Log.Error().Err(err).Stringer("view", v).Msg("this trainer computes no more; the run goes on without it")
	t.mu.Lock()
	t.retired = err
	t.mu.Unlock()
	t.cfg.Notify()
	if t.cfg.Retired != nil {
		t.cfg.Retired(err)
	}
}

// The most steps of one report; the rest follow in the next. Where trainers are at different steps those of the fastest wait
// for the slowest, and are reported again and again meanwhile.
const (
	maxMetrics = 1000
	maxParts   = 250
)

// Report adds what the coordinator must know of this trainer.
func (t *Trainer) Report(r *pb.Report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.View, r.Frozen = uint64(t.view.Number), uint64(t.frozen)
	r.Holds, r.Step = t.holds, uint64(t.state.step)
	r.Broken, r.Suspects = t.broken, slices.Clone(t.suspect)
	r.Computing = int64(t.cfg.Waits.Usual(computing))
	r.Way = t.way.look()
	most := maxMetrics
	if t.cfg.Job.Sync.arrives() {
		most = maxParts
	}
	r.Metrics, r.More = slices.Clone(t.metrics[:min(len(t.metrics), most)]), len(t.metrics) > most
	r.Done, r.Digest = t.done != "", t.done
	if t.failed != nil {
		r.Failed = t.failed.Error()
	}
	if t.retired != nil {
		r.Retired = t.retired.Error()
	}
	r.Computer = computer(t.cfg.Device)
	r.SamplesPerSecond = t.rate.perSecond() * float64(t.cfg.Job.SamplesPerStep())
}

// computer is what people are told of a device.
func computer(d device.Device) *pb.Computer {
	c := &pb.Computer{Name: d.Name()}
	for _, card := range device.Cards(d) {
		c.Cards++
		c.Used += uint64(card.Used)
		c.Memory += uint64(card.Memory)
	}
	return c
}

// Weights returns the weights when this trainer has done the last step.
func (t *Trainer) Weights() ([]float32, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state.w, t.done != ""
}

// Close frees what New took. Run must have returned.
func (t *Trainer) Close() error {
	if err := errors.Join(t.inbox.Close(), t.work.close()); err != nil {
		return fmt.Errorf("trainer: %w", err)
	}
	return nil
}

// rate is the recent rate of steps, smoothed over some seconds. Guarded by Trainer.mu.
type rate struct {
	last   time.Time
	period float64 // seconds per step
}

func (r *rate) count(now time.Time) {
	if d := now.Sub(r.last).Seconds(); !r.last.IsZero() {
		if r.period == 0 {
			r.period = d
		}
		r.period += 0.1 * (d - r.period)
	}
	r.last = now
}

func (r *rate) perSecond() float64 {
	if r.period == 0 {
		return 0
	}
	return 1 / r.period
}
