package membership

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	pb "github.com/musterml/muster/proto"
)

// How a run is founded, exactly once, whatever the order in which nodes start.
//
// A run's servers are fixed at its founding: the first S servers by name, S from the
// job. When gossip shows S servers, the one with the lowest name writes the founding
// and asks each of the others for a pledge. A server pledges itself to one founding
// at a time, in this life only. With all S pledges the founder tells them to start,
// and every one bootstraps its Raft groups with the very same configuration, which is
// as safe as one of them doing so and does not hang on the founder's life.
//
// Two foundings that share a server cannot both collect all pledges. A founder that does
// not get them all in less time than a pledge lasts sets those free that gave one. A
// server that hears no more takes its pledge back, but asks the founder first whether
// the word to start was lost. Two runs therefore need a founder that dies or is cut off
// right after it began, or twice S servers that do not see each other at the very
// start; when they meet they have different run names.

const (
	pledgeTopic   = "pledge"
	foundingTopic = "founding"
	pledgeWithin  = time.Second     // one question and its answer
	pledgeLasts   = 3 * time.Second // without a word to start
	collectWithin = 2 * time.Second // all pledges; less than pledgeLasts
)

// FoundingConfig says what a node needs to take part in a founding.
type FoundingConfig struct {
	Port    *port.Port
	Gossip  *Gossip
	Self    *pb.NodeMeta
	Node    id.Node
	Servers int    // how many servers the run has
	Job     []byte // digest
	JobFile string // the effective job
	NewRun  func() string
	Resume  bool   // begin with the newest checkpoint that a server which takes part knows of
	Held    string // the run that this server's data folder holds; it is pledged to no other
	Log     zerolog.Logger
}

// Founder agrees with the other servers on a founding, or learns of one.
type Founder struct {
	cfg FoundingConfig

	run string // of the foundings that this node proposes: only one of them can be agreed

	mu      sync.Mutex
	pledged *pb.Founding
	at      time.Time
	started *pb.Founding
	begin   chan struct{} // closed once started is set
}

// NewFounder answers the questions of others on the port; Find asks its own.
func NewFounder(cfg FoundingConfig) *Founder {
	f := &Founder{cfg: cfg, run: cfg.NewRun(), begin: make(chan struct{})}
	cfg.Port.Handle(port.Control, pledgeTopic, f.servePledge)
	cfg.Port.Handle(port.Control, foundingTopic, f.serveFounding)
	return f
}

// self is what a founding calls this server.
func (f *Founder) self() string { return string(Identity(f.cfg.Self, "")) }

// Resume has this node be in a run that it was in before, and tell others of it.
func (f *Founder) Resume(found *pb.Founding) { f.start(found) }

// Ask asks the nodes that are here for the run that they are in; nil when they are in none.
func (f *Founder) Ask(ctx context.Context) *pb.Founding { return f.ask(ctx, f.cfg.Gossip.Peers()) }

// Find returns the founding of the run this node takes part in, once there is one.
func (f *Founder) Find(ctx context.Context) (*pb.Founding, error) {
	for {
		f.askFounder(ctx)
		peers := f.cfg.Gossip.Peers()
		if found := f.ask(ctx, peers); found != nil {
			f.start(found)
		} else if group, samples := f.mine(peers), samplesOf(peers); group != nil && samples != nil {
			f.propose(ctx, group, samples)
		}
		select {
		case <-f.begin:
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.started, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("founding: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// askFounder learns, when this node's pledge to another has lasted too long, whether the
// word to start was lost, and takes the pledge back if not.
func (f *Founder) askFounder(ctx context.Context) {
	f.mu.Lock()
	pledged, late := f.pledged, f.started == nil && time.Since(f.at) > pledgeLasts
	f.mu.Unlock()
	if pledged == nil || !late || pledged.Servers[0].Incarnation == f.self() {
		return
	}
	var found pb.Founding
	err := exchange(ctx, f.cfg.Port, pledged.Servers[0].Addr, foundingTopic, &pb.StatusRequest{}, &found)
	if err == nil && found.Run == pledged.Run {
		f.start(&found)
		return
	}
	f.release(pledged)
}

// ask learns of a run that others are in already.
func (f *Founder) ask(ctx context.Context, peers []Peer) *pb.Founding {
	for _, p := range peers {
		if p.Meta.Run == "" || !p.Alive || p.Node == f.cfg.Node {
			continue
		}
		var found pb.Founding
		if err := exchange(ctx, f.cfg.Port, p.Meta.Addr, foundingTopic, &pb.StatusRequest{}, &found); err == nil && found.Run == p.Meta.Run {
			return &found
		}
	}
	return nil
}

// mine returns the servers of a founding if this node is the one to propose it.
func (f *Founder) mine(peers []Peer) []*pb.Replica {
	var group []*pb.Replica
	for _, p := range peers { // in order of name
		if p.Meta.Server && p.Alive && len(group) < f.cfg.Servers {
			group = append(group, &pb.Replica{Node: string(p.Node), Incarnation: string(Identity(p.Meta, "")), Addr: p.Meta.Addr})
		}
	}
	if len(group) < f.cfg.Servers || group[0].Incarnation != f.self() {
		return nil
	}
	return group
}

// newestCheckpoint is that of all nodes that are here, nil when none has one.
func newestCheckpoint(peers []Peer) (newest *pb.Checkpoint) {
	for _, p := range peers {
		if c := p.Meta.Checkpoint; p.Alive && c != nil && (newest == nil || c.Step > newest.Step) {
			newest = c
		}
	}
	return newest
}

// samplesOf says what the samples look like, which a trainer knows: it has seen the
// data. Nil before there is one.
func samplesOf(peers []Peer) *pb.Samples {
	for _, p := range peers {
		if p.Meta.Samples != nil {
			return p.Meta.Samples
		}
	}
	return nil
}

// propose collects the pledges and, with all of them, tells everybody to start.
func (f *Founder) propose(ctx context.Context, group []*pb.Replica, samples *pb.Samples) {
	found := &pb.Founding{
		Run: f.run, Job: f.cfg.Job, JobFile: f.cfg.JobFile, Servers: group, Time: time.Now().UnixNano(), Samples: samples,
	}
	if f.cfg.Resume {
		found.Checkpoint = newestCheckpoint(f.cfg.Gossip.Peers())
	}
	if why := f.pledge(found); why != "" {
		return
	}
	asked, ok := f.collect(ctx, found)
	if !ok {
		f.release(found)
		f.tell(ctx, asked, &pb.Pledge{Founding: found, Release: true})
		return
	}
	f.start(found)
	f.tell(ctx, group[1:], &pb.Pledge{Founding: found, Start: true})
}

// collect asks the other servers for their pledges, while those that gave one hold
// still. It returns whom it asked: one of which no answer came may have said yes.
func (f *Founder) collect(ctx context.Context, found *pb.Founding) (asked []*pb.Replica, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, collectWithin)
	defer cancel()
	for i, r := range found.Servers[1:] {
		var reply pb.PledgeReply
		err := exchange(ctx, f.cfg.Port, r.Addr, pledgeTopic, &pb.Pledge{Founding: found}, &reply)
		if err != nil || !reply.Yes {
			f.cfg.Log.Debug().Str("server", r.Node).Str("why", reply.Why).Err(err).Msg("no pledge")
			return found.Servers[1 : i+2], false
		}
	}
	return found.Servers[1:], ctx.Err() == nil
}

// tell gives the servers a word about their pledge; one that misses it asks by itself.
func (f *Founder) tell(ctx context.Context, servers []*pb.Replica, word *pb.Pledge) {
	var all sync.WaitGroup
	for _, r := range servers {
		all.Go(func() {
			var reply pb.PledgeReply
			_ = exchange(ctx, f.cfg.Port, r.Addr, pledgeTopic, word, &reply)
		})
	}
	all.Wait()
}

// pledge binds this node to a founding; the answer is why not, "" for yes.
func (f *Founder) pledge(found *pb.Founding) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if found.GetRun() == "" || len(found.GetServers()) != f.cfg.Servers || !bytes.Equal(found.GetJob(), f.cfg.Job) {
		return "it is no founding of a run of this job" // a stranger's; its fields may be anything
	}
	named := slices.ContainsFunc(found.GetServers(), func(r *pb.Replica) bool { return r.Incarnation == f.self() })
	switch {
	case !named:
		return "it names another life of this server"
	case f.cfg.Held != "" && f.cfg.Held != found.Run:
		return "this server's data folder holds run " + f.cfg.Held
	case f.started != nil && f.started.Run != found.Run:
		return "this server is in run " + f.started.Run
	case f.pledged != nil && f.pledged.Run != found.Run: // until it is released; see askFounder
		return "this server is pledged to run " + f.pledged.Run
	}
	f.pledged, f.at = found, time.Now()
	return ""
}

// release takes back the pledge to this very proposal, not to a later one of its founder.
func (f *Founder) release(found *pb.Founding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.started == nil && f.pledged.GetRun() == found.GetRun() && f.pledged.GetTime() == found.GetTime() {
		f.pledged = nil
	}
}

func (f *Founder) start(found *pb.Founding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.started == nil {
		f.started = found
		close(f.begin)
	}
}

func (f *Founder) servePledge(conn net.Conn, _ port.Peer) {
	defer conn.Close()
	var req pb.Pledge
	if err := serve(conn, &req); err != nil {
		return
	}
	why := ""
	switch {
	case req.Release:
		f.release(req.Founding)
	default:
		if why = f.pledge(req.Founding); why == "" && req.Start {
			f.start(req.Founding)
		}
	}
	_ = pb.WriteMessage(conn, &pb.PledgeReply{Yes: why == "", Why: why})
}

func (f *Founder) serveFounding(conn net.Conn, _ port.Peer) {
	defer conn.Close()
	var req pb.StatusRequest
	if err := serve(conn, &req); err != nil {
		return
	}
	f.mu.Lock()
	found := f.started
	f.mu.Unlock()
	if found != nil {
		_ = pb.WriteMessage(conn, found)
	}
}
