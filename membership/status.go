package membership

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/wait"
	pb "github.com/musterml/muster/proto"
)

// ErrNotLeader is returned by Status on a server that does not lead the coordinator.
var ErrNotLeader = errors.New("membership: this server does not lead the coordinator")

// recentEvents is how many events a status without history carries.
const recentEvents = 20

// Status returns the run as the coordinator's leader sees it; ErrNotLeader elsewhere.
// With history it carries every event and every step's metrics.
func (c *Coordinator) Status(ctx context.Context, history bool) (*pb.Status, error) {
	var st *pb.Status
	if err := c.ask(ctx, func(d *director) { st = d.status(history) }); err != nil {
		return nil, err
	}
	AddGossip(st, c.cfg.Gossip.Peers())
	st.Coordinator = string(c.cfg.Self.Node)
	return st, nil
}

// ask runs f in the director's loop; ErrNotLeader where there is none.
func (c *Coordinator) ask(ctx context.Context, f func(*director)) error {
	c.mu.Lock()
	r := c.reign
	c.mu.Unlock()
	if r == nil {
		return ErrNotLeader
	}
	q := query{f: f, done: make(chan struct{})}
	if !r.post(q) {
		return ErrNotLeader
	}
	select {
	case <-q.done:
		return nil
	case <-r.ctx.Done():
		return ErrNotLeader
	case <-ctx.Done():
		return ctx.Err()
	}
}

// status describes what the director knows; nothing in it is shared with the director.
func (d *director) status(history bool) *pb.Status {
	st := &pb.Status{
		Run: d.state.Founding.GetRun(), View: d.state.View, Finish: d.state.Finish,
		Step: recorded(d.state), Time: d.now.UnixNano(), Servers: d.state.Founding.GetServers(),
	}
	if history {
		st.Events, st.Metrics = slices.Clone(d.state.Events), slices.Clone(d.state.Metrics)
	} else {
		st.Events = slices.Clone(d.state.Events[max(0, len(d.state.Events)-recentEvents):])
		st.Metrics = slices.Clone(d.state.Metrics[max(0, len(d.state.Metrics)-1):])
	}
	d.statusOfServers(st)
	v := d.view()
	if r := d.round; r != nil {
		st.Round = &pb.Round{Since: r.began.UnixNano(), Reason: r.reason}
		for _, m := range v.Members {
			if s := d.seats[m.Node]; !s.lives(&m) || id.View(s.report.GetFrozen()) < v.Number {
				st.Round.Awaits = append(st.Round.Awaits, string(m.Node))
			}
		}
	}
	for _, name := range sortedSeats(d.seats) {
		s := d.seats[name]
		n := &pb.NodeStatus{
			Node: string(name), Addr: s.meta.GetAddr(), Server: s.meta.GetServer(), Trainer: s.meta.GetTrainer(),
			Connected: true, Heard: s.heard.UnixNano(),
			View: s.report.GetView(), Step: s.report.GetStep(), Waits: s.waits(), Leads: s.report.GetLeads(),
			SamplesPerSecond: s.report.GetSamplesPerSecond(), Tables: s.report.GetTables(),
			Computing: s.report.GetComputing(), Still: s.report.GetStill(), Computer: s.report.GetComputer(), Retired: s.report.GetRetired(),
			Way: s.report.GetWay(),
		}
		if m := v.member(name); s.lives(m) {
			n.Shards = shardNumbers(m.Shards)
		}
		st.Nodes = append(st.Nodes, n)
	}
	return st
}

// statusOfServers adds who keeps what.
func (d *director) statusOfServers(st *pb.Status) {
	if d.state.Founding == nil {
		return
	}
	placement := d.placement()
	st.Placement = placement.proto()
	for _, g := range placement.Groups {
		if l, known := d.places.leads[g.Name]; known {
			st.Groups = append(st.Groups, proto.CloneOf(l.Lead))
		}
	}
	for node, since := range d.places.away {
		addGone(st, &pb.NodeStatus{Node: string(node), Server: true})
		i := slices.IndexFunc(st.Nodes, func(n *pb.NodeStatus) bool { return n.Node == string(node) })
		st.Nodes[i].Away = since.UnixNano()
	}
}

// waits are those of the node's last report, with their times by this node's clock.
func (s *seat) waits() []*pb.Wait {
	ahead := s.heard.UnixNano() - s.report.GetTime()
	waits := make([]*pb.Wait, len(s.report.GetWaits()))
	for i, w := range s.report.GetWaits() {
		waits[i] = proto.CloneOf(w)
		waits[i].Since += ahead
	}
	return waits
}

func shardNumbers(shards []id.LogicalShard) []uint32 {
	out := make([]uint32, len(shards))
	for i, s := range shards {
		out[i] = uint32(s)
	}
	return out
}

// AddGossip adds what gossip knows: whether a node is alive, and of nodes that have no
// session what they tell about themselves. A server or trainer of the run that gossip does not know is gone.
func AddGossip(st *pb.Status, peers []Peer) {
	for _, s := range st.Servers {
		addGone(st, &pb.NodeStatus{Node: s.Node, Addr: s.Addr, Server: true})
	}
	for _, g := range st.Placement.GetGroups() {
		for _, p := range g.Places {
			addGone(st, &pb.NodeStatus{Node: p.Node, Server: true})
		}
	}
	for _, m := range st.View.GetMembers() {
		addGone(st, &pb.NodeStatus{Node: m.Node, Addr: m.Addr, Trainer: true})
	}
	for _, n := range st.Nodes {
		n.State = "gone"
		if n.Connected {
			n.State = "alive"
		}
	}
	for _, p := range peers {
		i := slices.IndexFunc(st.Nodes, func(n *pb.NodeStatus) bool { return n.Node == string(p.Node) })
		if i < 0 {
			st.Nodes = append(st.Nodes, &pb.NodeStatus{Node: string(p.Node)})
			i = len(st.Nodes) - 1
		}
		n := st.Nodes[i]
		if !n.Connected {
			n.Addr, n.Server, n.Trainer = p.Meta.Addr, p.Meta.Server, p.Meta.Trainer
		}
		n.State = "suspect"
		switch {
		case p.Alive && !n.Connected && p.elsewhere(st.Run):
			n.State = "in run " + p.Meta.Run
		case p.Alive:
			n.State = "alive"
		}
	}
}

// addGone adds a node that the run needs, unless it is there.
func addGone(st *pb.Status, n *pb.NodeStatus) {
	if !slices.ContainsFunc(st.Nodes, func(x *pb.NodeStatus) bool { return x.Node == n.Node }) {
		st.Nodes = append(st.Nodes, n)
	}
}

// Waits turns a node's registered waits into those of a report.
func Waits(ws []wait.Wait) []*pb.Wait {
	out := make([]*pb.Wait, len(ws))
	for i, w := range ws {
		out[i] = &pb.Wait{
			What: w.What, Of: w.Of, Detail: w.Detail, On: w.On, Work: w.Work, Since: w.Since.UnixNano(), Usual: int64(w.Usual),
		}
	}
	return out
}
