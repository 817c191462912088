package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/internal/raftgroup"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/ps"
	"github.com/musterml/muster/trainer"
)

// self is this server's replica of a Raft group.
func (n *Node) self(group string) raftgroup.Replica {
	identity, _ := n.life(group)
	return raftgroup.Replica{Node: n.cfg.Name, Incarnation: identity, Addr: n.port.Addr()}
}

// serve starts this node's replicas, if the founding names it, and the client of them all.
func (n *Node) serve(down *shutdown) error {
	if n.spec == nil {
		if err := n.prepare(n.founding.Samples); err != nil {
			return err
		}
	}
	opt, err := n.cfg.Job.NewOptimizer()
	if err != nil {
		return err
	}
	layout := n.cfg.Job.Layout(n.spec.Params())
	if n.client, err = n.newClient(n.cfg.Job.Half()); err != nil {
		return err
	}
	down.add(n.client.Close)
	if !n.cfg.Server {
		return nil
	}
	tables, err := n.cfg.Job.TableConfigs(n.spec)
	if err != nil {
		return err
	}
	n.shards, err = ps.NewServer(ps.ServerConfig{
		Tables: tables, LogicalShards: n.cfg.Job.Batch.LogicalShards,
		Self: n.self(""), Layout: layout, Optimizer: opt, Half: n.cfg.Job.Half(), Dir: n.raftDir(), Port: n.port, Log: n.cfg.Log,
		Durable: n.durable(), Locate: n.locate,
		Life: func(shard id.ParamShard) (id.Incarnation, bool) { return n.life(shard.String()) },
	})
	if err != nil {
		return err
	}
	down.add(n.shards.Stop)
	down.add(n.stopCoordinator)
	return n.beginPlaces()
}

// diskFull adds the remedy to an error that is due to a full disk.
func (n *Node) diskFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("data folder %s: %w; make room, or choose another folder with --data-dir", n.cfg.DataDir, err)
	}
	return err
}

// newClient makes a client of the parameter servers; without half it reads parameters as the servers have them.
func (n *Node) newClient(half ps.Half) (*ps.Client, error) {
	opt, err := n.cfg.Job.NewOptimizer()
	if err != nil {
		return nil, err
	}
	tables, err := n.cfg.Job.TableConfigs(n.spec)
	if err != nil {
		return nil, err
	}
	return ps.NewClient(ps.ClientConfig{
		Tables: tables,
		Layout: n.cfg.Job.Layout(n.spec.Params()), OptimizerSlots: opt.Slots(), Half: half, Log: n.cfg.Log,
		Replicas: func(shard id.ParamShard) []string { return n.addrs(shard.String()) },
		Dial: func(ctx context.Context, addr, topic string) (net.Conn, error) {
			return n.port.Dial(ctx, addr, port.Params, topic)
		},
	})
}

// restore finds the newest step that the servers hold completely.
func (n *Node) restore(ctx context.Context) (id.Step, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	step, ok, err := n.client.Complete(ctx)
	if err == nil && (!ok || step < n.beginsAt()) && n.beginsAt() > 0 {
		err = errNotLoaded
	}
	if err != nil || !ok {
		return 0, err // nothing is kept yet: the run begins at step 0
	}
	return step, nil
}

// work starts what goes on all the time: watching others, the session, training.
func (n *Node) work(ctx context.Context, down *shutdown) (err error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var loops sync.WaitGroup
	if n.cfg.Trainer {
		n.trainer, err = trainer.New(trainer.Config{
			Job: n.cfg.Job, Run: n.founding.Run, Node: n.cfg.Name, Incarnation: n.incarnation,
			Spec: n.spec, Device: n.cfg.Device, Train: n.train, Test: n.test, Port: n.port, Servers: n.client,
			Waits: &n.waits, Flight: n.flight, Broken: n.onBroken, Retired: n.onRetired,
			Notify: func() { n.session.Notify() }, OnStep: n.onStep, Log: n.cfg.Log,
		})
		if err != nil {
			cancel()
			return err
		}
		down.add(n.trainer.Close)
	}
	session := membership.NewSession(membership.SessionConfig{
		Port: n.port, Self: n.meta, Servers: n.serverAddrs, Handlers: n.handlers(), Log: n.cfg.Log,
	})
	n.mu.Lock()
	n.session = session
	n.mu.Unlock()
	lifelines := membership.NewLifelines(n.port, n.gossip, n.meta, n.onGone, n.onSilent)
	loops.Go(func() { n.session.Run(ctx) })
	loops.Go(func() { n.still.Run(ctx) })
	loops.Go(func() { lifelines.Run(ctx) })
	loops.Go(func() { n.watchLoss(ctx) })
	loops.Go(func() { n.reportFatal(n.loadCheckpoint(ctx)) })
	if err := n.saveCheckpoints(ctx, &loops, down); err != nil {
		cancel()
		return err
	}
	loops.Go(func() { n.writeRecords(ctx) })
	if n.trainer != nil {
		loops.Go(func() { n.reportFatal(n.trainer.Run(ctx)) })
	}
	if n.shards != nil {
		loops.Go(func() { n.reconcile(ctx) })
		loops.Go(func() { n.host(ctx) })
	}
	down.add(func() error {
		cancel()
		loops.Wait()
		n.handing.Wait()
		return nil
	})
	return nil
}

// saveCheckpoints begins to write checkpoints, on a node that may lead the coordinator.
func (n *Node) saveCheckpoints(ctx context.Context, loops *sync.WaitGroup, down *shutdown) error {
	if !n.cfg.Server {
		n.port.Handle(port.Control, CheckpointTopic, n.redirectCheckpoint)
		return nil
	}
	s, err := n.newSaver()
	if err != nil {
		return err
	}
	down.add(s.client.Close)
	n.port.Handle(port.Control, CheckpointTopic, s.serve)
	loops.Go(func() { s.run(ctx) })
	return nil
}

func (n *Node) onStep(m *pb.StepMetrics) {
	if n.cfg.OnStep != nil {
		n.cfg.OnStep(m)
	}
	n.session.Notify()
}

// onGone hears that a process has ended, before any timeout.
func (n *Node) onGone(node id.Node, inc id.Incarnation) {
	n.cfg.Log.Info().Str("node", string(node)).Msg("a process has ended")
	n.graves.add(inc)
	if n.shards != nil {
		n.shards.LeaderGone(node)
	}
	if c := n.coord(); c != nil {
		c.Gone(node, inc)
	}
}

// onSilent hears that some server hears another no more.
func (n *Node) onSilent(deaf func(who, to id.Node) bool) {
	if n.shards != nil {
		n.shards.LeaderSilent(deaf)
	}
	if c := n.coord(); c != nil {
		c.Silent(deaf)
	}
}

// reconcile keeps the replicas of the shards led here those of the placement.
func (n *Node) reconcile(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			n.shards.Reconcile(func(shard id.ParamShard) []raftgroup.Replica { return n.keepers(shard.String()) })
		}
	}
}

// serverAddrs are the addresses at which the coordinator may be found: of its servers and, should
// all of those have been replaced meanwhile, of all others.
func (n *Node) serverAddrs() []string {
	addrs := n.addrs(membership.CoordinatorGroup)
	for _, p := range n.gossip.Peers() {
		if p.Alive && p.Meta.Server && !slices.Contains(addrs, p.Meta.Addr) {
			addrs = append(addrs, p.Meta.Addr)
		}
	}
	return addrs
}

func (n *Node) handlers() membership.Handlers {
	h := membership.Handlers{
		Freeze: func(id.View) {}, View: n.onView, Ack: func(id.Step) {},
		Finish: n.onFinish, Bye: n.leave, Report: n.report, Roster: n.onRoster, HandOver: n.onHandOver,
		Refuse: func(why string) { n.reportFatal(errors.New("the run refuses this node: " + why)) },
	}
	if t := n.trainer; t != nil {
		h.Freeze, h.Ack = t.Freeze, t.Ack
		h.View = func(v membership.View) {
			t.Enter(v)
			n.onView(v)
		}
	}
	return h
}

// onRetired hears that this node's trainer computes no more. Servers stay; a node that only trained ends when the others know why, so
// that whoever looks after it can start it anew.
func (n *Node) onRetired(err error) {
	n.mu.Lock()
	n.retired = err
	n.mu.Unlock()
	if n.cfg.OnRetired != nil {
		n.cfg.OnRetired(err)
	}
}

func (n *Node) onView(v membership.View) {
	n.mu.Lock()
	retired := n.retired
	n.mu.Unlock()
	if retired != nil && !n.cfg.Server && v.Rank(n.cfg.Name, n.incarnation) < 0 {
		n.reportFatal(retired)
	}
	if n.cfg.OnEvent != nil {
		n.cfg.OnEvent(v)
	}
}

func (n *Node) onFinish(f *pb.Finish) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.finish == nil {
		n.finish = f
		close(n.finished)
	}
}

// leave is called when this node is not needed any more.
func (n *Node) leave() { n.byeOnce.Do(func() { close(n.bye) }) }

func (n *Node) reportFatal(err error) {
	if err == nil {
		return
	}
	select {
	case n.fatal <- err:
	default: // one is enough
	}
}

// report is what the coordinator hears of this node.
func (n *Node) report() *pb.Report {
	r := &pb.Report{Time: time.Now().UnixNano(), Waits: membership.Waits(n.waits.Snapshot()), Still: n.still.Share()}
	if n.trainer != nil {
		n.trainer.Report(r)
	}
	n.mu.Lock()
	r.Saved = n.saved
	n.mu.Unlock()
	if n.shards != nil {
		shards := n.shards.Status()
		r.Tables = n.tableStatus(shards)
		for _, s := range shards {
			if s.Role == "leader" {
				r.Leads = append(r.Leads, &pb.Lead{Group: s.Shard.String(), Term: s.Term, Voters: lives(s.Voters), Learners: lives(s.Learners), Settled: s.Settled})
			}
		}
	}
	if c := n.coord(); c != nil {
		if term, ok := c.Leads(); ok {
			voters, learners, settled := c.Members()
			r.Leads = append(r.Leads, &pb.Lead{Group: membership.CoordinatorGroup, Term: term, Voters: lives(voters), Learners: lives(learners), Settled: settled})
		}
	}
	return r
}

// lives names replicas for a report.
func lives(rs []raftgroup.Replica) []string {
	var names []string
	for _, r := range rs {
		names = append(names, string(r.ServerID()))
	}
	return names
}

// await waits for the end of the run, saves the outputs, and waits to be let go.
func (n *Node) await(ctx context.Context) (Result, error) {
	result := Result{Run: n.founding.Run}
	select {
	case <-ctx.Done():
		return result, fmt.Errorf("stopped before the end of the run: %w", context.Cause(ctx))
	case err := <-n.fatal:
		return result, err
	case <-n.gossip.Refused():
		return result, n.gossip.Err()
	case <-n.finished:
	}
	n.mu.Lock()
	result.Finish = n.finish
	n.mu.Unlock()
	var err error
	if result.Out, err = n.save(ctx, result.Finish); result.Finish.Failed != "" {
		err = errors.Join(errors.New("the run has failed: "+result.Finish.Failed), err)
	}
	if n.resumes() && err == nil {
		err = n.keep(func(r *held) { r.Finished = true })
	}
	n.mu.Lock()
	n.saved = true
	n.mu.Unlock()
	n.session.Notify()
	n.awaitGoodbye(ctx)
	return result, err
}

// awaitGoodbye waits until the coordinator lets this node go, or is gone itself.
func (n *Node) awaitGoodbye(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-n.bye:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, without := n.session.Leader(); without > leaderless {
				return
			}
		}
	}
}
