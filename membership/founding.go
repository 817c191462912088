package membership

import (
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
// Two foundings that share a server cannot both collect all pledges. A server gives a
// pledge back only if it was not told to start in time. Two foundings without a common
// server need twice S servers that do not see each other at the very start; when they
// meet they have different run names, and the nodes say so.

const (
	pledgeTopic   = "pledge"
	foundingTopic = "founding"
	pledgeWithin  = time.Second     // one question and its answer
	pledgeLasts   = 3 * time.Second // without a word to start
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
	Log     zerolog.Logger
}

// Founder agrees with the other servers on a founding, or learns of one.
type Founder struct {
	cfg FoundingConfig

	mu      sync.Mutex
	pledged *pb.Founding
	at      time.Time
	started *pb.Founding
	begin   chan struct{} // closed once started is set
}

// NewFounder answers the questions of others on the port; Find asks its own.
func NewFounder(cfg FoundingConfig) *Founder {
	f := &Founder{cfg: cfg, begin: make(chan struct{})}
	cfg.Port.Handle(port.Control, pledgeTopic, f.servePledge)
	cfg.Port.Handle(port.Control, foundingTopic, f.serveFounding)
	return f
}

// Find returns the founding of the run this node takes part in, once there is one.
func (f *Founder) Find(ctx context.Context) (*pb.Founding, error) {
	for {
		peers := f.cfg.Gossip.Peers()
		if found := f.ask(ctx, peers); found != nil {
			f.start(found)
		} else if group, params := f.mine(peers), modelSize(peers); group != nil && params > 0 {
			f.propose(ctx, group, params)
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
			group = append(group, &pb.Replica{Node: string(p.Node), Incarnation: p.Meta.Incarnation, Addr: p.Meta.Addr})
		}
	}
	if len(group) < f.cfg.Servers || group[0].Incarnation != f.cfg.Self.Incarnation {
		return nil
	}
	return group
}

// modelSize is the number of the model's parameters, which a trainer knows: it has
// seen the data. 0 before there is one.
func modelSize(peers []Peer) uint64 {
	for _, p := range peers {
		if p.Meta.Params > 0 {
			return p.Meta.Params
		}
	}
	return 0
}

// propose collects the pledges and, with all of them, tells everybody to start.
func (f *Founder) propose(ctx context.Context, group []*pb.Replica, params uint64) {
	found := &pb.Founding{
		Run: f.cfg.NewRun(), Job: f.cfg.Job, JobFile: f.cfg.JobFile, Servers: group, Time: time.Now().UnixNano(), Params: params,
	}
	if why := f.pledge(found); why != "" {
		return
	}
	for _, r := range group[1:] {
		var reply pb.PledgeReply
		err := exchange(ctx, f.cfg.Port, r.Addr, pledgeTopic, &pb.Pledge{Founding: found}, &reply)
		if err != nil || !reply.Yes {
			f.cfg.Log.Debug().Str("server", r.Node).Str("why", reply.Why).Err(err).Msg("no pledge")
			f.release(found)
			return
		}
	}
	f.start(found)
	for _, r := range group[1:] {
		var reply pb.PledgeReply // one that misses this word learns of the run by gossip
		_ = exchange(ctx, f.cfg.Port, r.Addr, pledgeTopic, &pb.Pledge{Founding: found, Start: true}, &reply)
	}
}

// pledge binds this node to a founding; the answer is why not, "" for yes.
func (f *Founder) pledge(found *pb.Founding) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	named := slices.ContainsFunc(found.Servers, func(r *pb.Replica) bool { return r.Incarnation == f.cfg.Self.Incarnation })
	switch {
	case !named:
		return "it names another life of this server"
	case f.started != nil && f.started.Run != found.Run:
		return "this server is in run " + f.started.Run
	case f.pledged != nil && f.pledged.Run != found.Run && time.Since(f.at) < pledgeLasts:
		return "this server is pledged to run " + f.pledged.Run
	}
	f.pledged, f.at = found, time.Now()
	return ""
}

func (f *Founder) release(found *pb.Founding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.started == nil && f.pledged.GetRun() == found.Run {
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
	why := f.pledge(req.Founding)
	if why == "" && req.Start {
		f.start(req.Founding)
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
