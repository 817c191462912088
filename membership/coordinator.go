package membership

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/journal"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/internal/raftgroup"
	"github.com/musterml/muster/internal/raftlog"
	pb "github.com/musterml/muster/proto"
)

// CoordinatorGroup is the name of the coordinator's Raft group within a run.
const CoordinatorGroup = "coordinator"

// CoordinatorConfig says how a server takes part in the coordinator.
type CoordinatorConfig struct {
	Founding *pb.Founding
	Self     raftgroup.Replica
	Dir      string
	Port     *port.Port
	Gossip   *Gossip
	Shards   int  // logical shards of the job
	Exact    bool // sums are exact: trainers must have one arithmetic
	Servers  ServerQuota
	Durable  bool                                   // the log is on the disk, and Self outlives the process
	Known    bool                                   // with Durable: Self has taken part before
	Locate   func(raftgroup.Replica) string         // where a server is to be found now
	Restore  func(context.Context) (id.Step, error) // the newest step that the parameter servers hold completely; 0 when they hold none
	Leave    func()                                 // called on the leader when the run is over and everybody has been told
	Log      zerolog.Logger
}

// Coordinator is this server's part in the group that agrees on the run: its
// founding, its views, its history and its end. One of its servers leads and runs
// the director. Safe for concurrent use.
type Coordinator struct {
	cfg     CoordinatorConfig
	group   *raftgroup.Group
	log     *raftlog.Store
	machine machine
	numbers sessionNumbers
	remove  []func()
	loop    sync.WaitGroup
	stop    context.CancelFunc
	changed chan struct{} // leadership may have changed

	mu    sync.Mutex
	reign *reign   // nil unless this server leads
	dead  []evGone // every process known to have died, for the next reign
}

// StartCoordinator starts this server's replica. A server of the founding bootstraps
// the group; one that comes later, or again, waits until the leader adds it.
func StartCoordinator(cfg CoordinatorConfig) (*Coordinator, error) {
	c := &Coordinator{cfg: cfg, changed: make(chan struct{}, 1)}
	var err error
	if c.log, err = openLog(&cfg); err != nil {
		return nil, err
	}
	group, err := raftgroup.Start(raftgroup.Config{
		Group: cfg.Founding.Run + "." + CoordinatorGroup, Self: cfg.Self, Dir: cfg.Dir, FSM: &c.machine, Port: cfg.Port, Log: cfg.Log,
		Logs: c.log, Volatile: !cfg.Durable, Known: cfg.Known, Locate: cfg.Locate,
		OnLeader: func(raftgroup.Replica, bool) {
			select {
			case c.changed <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		return nil, errors.Join(err, c.log.Close())
	}
	c.group = group
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	c.remove = []func(){
		cfg.Port.Handle(port.Control, sessionTopic, c.serveSession),
		cfg.Port.Handle(port.Control, appliedTopic(cfg.Self.Incarnation), c.serveApplied),
	}
	c.loop.Go(func() { c.run(ctx) })
	if founding := Replicas(cfg.Founding); holds(founding, cfg.Self) {
		if err := group.Found(founding); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
			return nil, errors.Join(err, c.Stop())
		}
	}
	return c, nil
}

// openLog makes the place of the group's entries, and reads those that are on the disk.
func openLog(cfg *CoordinatorConfig) (*raftlog.Store, error) {
	if !cfg.Durable {
		return raftlog.NewMemory(nil), nil
	}
	return raftlog.Open(journal.Config{Dir: logDir(cfg), SegmentSize: 1 << 20}, nil, func(t journal.Torn) {
		cfg.Log.Warn().Msgf("%s: cut %d bytes at byte %d, which a crash left behind unfinished", t.File, t.Bytes, t.Offset)
	})
}

func logDir(cfg *CoordinatorConfig) string {
	return filepath.Join(cfg.Dir, CoordinatorGroup, string(cfg.Self.Incarnation))
}

func holds(rs []raftgroup.Replica, self raftgroup.Replica) bool {
	for _, r := range rs {
		if r.Incarnation == self.Incarnation {
			return true
		}
	}
	return false
}

// Stop ends this server's part; the others go on.
func (c *Coordinator) Stop() error {
	for _, remove := range c.remove {
		remove()
	}
	c.stop()
	c.loop.Wait()
	return errors.Join(c.group.Stop(), c.log.Close())
}

// Leads says whether this server leads the coordinator now, and in which term.
func (c *Coordinator) Leads() (term uint64, ok bool) {
	return c.group.Raft().CurrentTerm(), c.group.IsLeader()
}

// Members are the servers of the group as this one knows them: with a vote, and not yet;
// settled says that they are agreed.
func (c *Coordinator) Members() (voters, learners []raftgroup.Replica, settled bool) {
	return c.group.Members()
}

// Log says how far this server's replica is: the last entry applied, and that it knows committed.
func (c *Coordinator) Log() (applied, commit uint64) {
	return c.group.Raft().AppliedIndex(), c.group.Raft().CommitIndex()
}

// Leader is who leads the group as this server knows it.
func (c *Coordinator) Leader() (id.Node, bool) {
	l, known := c.group.Leader()
	return l.Node, known
}

// Remove ends this server's part for good, and removes what it has on the disk.
func (c *Coordinator) Remove() error {
	return errors.Join(c.Stop(), c.group.RemoveFiles(), os.RemoveAll(logDir(&c.cfg)))
}

// State returns this server's copy of the run's state, which may lag a little.
func (c *Coordinator) State() *pb.RunState { return c.machine.copy() }

// Recorded is the number of steps whose figures are in the run's history, as this server
// knows it.
func (c *Coordinator) Recorded() id.Step { return c.machine.recorded() }

// Gone hears that a process has died: the director may act on it, and if it led the
// group, this server stands for election in its turn.
func (c *Coordinator) Gone(node id.Node, inc id.Incarnation) {
	gone := raftgroup.Replica{Node: node, Incarnation: inc}
	if c.cfg.Durable {
		gone.Incarnation = "" // its replica has another name than its process
	}
	c.group.LeaderGone(gone)
	e := evGone{node, inc, "its process has ended"}
	c.mu.Lock()
	c.dead = append(c.dead, e)
	r := c.reign
	c.mu.Unlock()
	if r != nil {
		r.post(e)
	}
}

// Silent hears that some server hears another no more; deaf answers which.
func (c *Coordinator) Silent(deaf func(who, to id.Node) bool) { c.group.LeaderSilent(deaf) }

// run reigns whenever this server leads.
func (c *Coordinator) run(ctx context.Context) {
	for {
		if c.group.IsLeader() {
			if err := c.lead(ctx); err != nil && ctx.Err() == nil {
				c.cfg.Log.Info().Err(err).Msg("leads the coordinator no more")
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// reign is one term of leadership.
type reign struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	events   chan any
	term     uint64
	sessions map[uint64]*serverSession // by number; owned by the loop
	pending  chan proposal
}

type proposal struct {
	future raft.ApplyFuture
	entry  *pb.Entry
}

// query runs f in the director's loop.
type query struct {
	f    func(*director)
	done chan struct{}
}

// post hands an event to the director; it is dropped when the reign is over.
func (r *reign) post(event any) bool {
	select {
	case r.events <- event:
		return true
	case <-r.ctx.Done():
		return false
	}
}

// lead drives the director until leadership or ctx ends.
func (c *Coordinator) lead(ctx context.Context) error {
	term := c.group.Raft().CurrentTerm()
	if err := c.group.Raft().Barrier(5 * time.Second).Error(); err != nil {
		return fmt.Errorf("coordinator: catching up: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &reign{
		ctx: ctx, cancel: cancel, term: term, events: make(chan any, 1024),
		sessions: map[uint64]*serverSession{}, pending: make(chan proposal, 4096),
	}
	var workers sync.WaitGroup
	workers.Go(r.await)
	workers.Go(func() { c.reconcile(ctx) })
	defer workers.Wait()
	defer cancel(nil)
	d := newDirector(time.Now(), c.machine.copy(), c.cfg.Shards, c.cfg.Exact, c.cfg.Servers, defaultTiming())
	if d.state.Founding == nil {
		f := c.cfg.Founding
		e := d.event("founded", "", "run %s of %d servers", f.Run, len(f.Servers))
		c.act(r, &workers, []any{doPropose{&pb.Entry{Founding: f, Events: []*pb.Event{e}}}})
	}
	c.mu.Lock()
	c.reign = r
	dead := slices.Clone(c.dead)
	c.mu.Unlock()
	for _, e := range dead { // of these no session will open, and no end of one tell
		c.act(r, &workers, d.step(time.Now(), e))
	}
	defer func() {
		c.mu.Lock()
		c.reign = nil
		c.mu.Unlock()
	}()
	c.cfg.Log.Info().Uint64("term", c.group.Raft().CurrentTerm()).Msg("leads the coordinator")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var event any
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.changed:
			if !c.reigns(r) {
				return raft.ErrLeadershipLost
			}
			continue
		case <-tick.C:
			if !c.reigns(r) {
				return raft.ErrLeadershipLost
			}
			event = c.look()
		case event = <-r.events:
		}
		switch e := event.(type) {
		case query:
			d.actions = nil
			e.f(d)
			c.act(r, &workers, d.actions)
			close(e.done)
			continue
		case sessionOpened:
			r.sessions[e.session.number] = e.session
			event = e.evOpened
		case evClosed:
			delete(r.sessions, e.session)
		case evApplied:
			if err := apply(d.state, e.entry); err != nil {
				return err
			}
			c.logEvents(e.entry)
		}
		c.act(r, &workers, d.step(time.Now(), event))
	}
}

// reigns says whether this server still leads in the term of r. One that lost the lead
// and has it again must begin anew: what others agreed meanwhile is unknown to r's
// director.
func (c *Coordinator) reigns(r *reign) bool {
	return c.group.IsLeader() && c.group.Raft().CurrentTerm() == r.term
}

func (c *Coordinator) logEvents(e *pb.Entry) {
	for _, v := range e.Events {
		log := c.cfg.Log.Info()
		if v.Kind == "elsewhere" { // somebody has to do something about it
			log = c.cfg.Log.Warn()
		}
		log.Str("event", v.Kind).Msg(v.Text)
	}
}

// look says what gossip knows.
func (c *Coordinator) look() evTick {
	var t evTick
	for _, p := range c.cfg.Gossip.Peers() {
		if !p.Alive {
			continue
		}
		if p.Meta.Trainer {
			t.trainers++
		}
		if p.elsewhere(c.cfg.Founding.Run) {
			t.elsewhere = append(t.elsewhere, p)
		}
	}
	return t
}

// act does what the director asks for, in its order.
func (c *Coordinator) act(r *reign, workers *sync.WaitGroup, actions []any) {
	for _, a := range actions {
		switch a := a.(type) {
		case doSend:
			if s := r.sessions[a.session]; s != nil {
				s.send(a.down)
			}
		case doHangUp:
			if s := r.sessions[a.session]; s != nil {
				s.send(nil)
			}
		case doPropose:
			b, err := proto.Marshal(a.entry)
			if err != nil {
				c.cfg.Log.Error().Err(err).Msg("an entry of the coordinator cannot be encoded")
				continue
			}
			select {
			case r.pending <- proposal{c.group.Raft().Apply(b, 5*time.Second), a.entry}:
			default: // to wait here could wait for ever: await in turn waits for the loop
				r.cancel(errors.New("coordinator: too many entries wait to be agreed"))
			}
		case doRestore:
			workers.Go(func() { c.restore(r) })
		case doLeave:
			workers.Go(func() { c.leave(r) })
		}
	}
}

// await waits for proposals in their order and tells the director of each; a failed
// one ends the reign, because the director must not go on as if it had been agreed.
func (r *reign) await() {
	for {
		select {
		case <-r.ctx.Done():
			return
		case p := <-r.pending:
			err := p.future.Error()
			if err == nil {
				err, _ = p.future.Response().(error) // agreed, but it came too late
			}
			if err != nil {
				r.cancel(fmt.Errorf("coordinator: an entry was not agreed: %w", err))
				return
			}
			r.post(evApplied{p.entry})
		}
	}
}

func (c *Coordinator) restore(r *reign) {
	for r.ctx.Err() == nil {
		step, err := c.cfg.Restore(r.ctx)
		if err == nil {
			r.post(evRestored{step})
			return
		}
		c.cfg.Log.Warn().Err(err).Msg("the parameter servers do not say which step they hold; asking again")
		select {
		case <-r.ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// leave gives the goodbyes time to be written, then lets the leader go.
func (c *Coordinator) leave(r *reign) {
	select {
	case <-r.ctx.Done():
	case <-time.After(200 * time.Millisecond):
	}
	c.cfg.Leave()
}

// Placement is the one agreed, as this server knows it.
func (c *Coordinator) Placement() Placement {
	if p := c.machine.placement(); p != nil {
		return PlacementFromProto(p)
	}
	return FoundingPlacement(c.cfg.Founding, c.cfg.Servers.Shards, c.cfg.Servers.Replicas)
}

// HandOver has another server lead the group, if this one leads it in the term.
func (c *Coordinator) HandOver(term uint64, to id.Node) error { return c.group.HandOver(term, to) }

// Drain has a server keep nothing any more or, with undo, be used again. It answers
// ErrNotLeader on a server that does not lead; why says why it cannot be, "" if it can.
func (c *Coordinator) Drain(ctx context.Context, node id.Node, undo bool) (why string, err error) {
	err = c.ask(ctx, func(d *director) {
		why = d.drain(node, undo)
	})
	return why, err
}

// reconcile keeps the group's servers those of the placement, each in its newest life.
func (c *Coordinator) reconcile(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
		want := Lives(c.Placement().Places(CoordinatorGroup), c.cfg.Founding, c.cfg.Gossip.Peers(), CoordinatorGroup)
		if err := c.group.Reconcile(want, c.applied(ctx)); err != nil && ctx.Err() == nil {
			c.cfg.Log.Debug().Err(err).Msg("the coordinator's servers could not be changed now")
		}
	}
}
