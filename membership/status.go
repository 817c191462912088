package membership

import (
	"context"
	"errors"
	"slices"
	"time"

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
	c.mu.Lock()
	r := c.reign
	c.mu.Unlock()
	if r == nil {
		return nil, ErrNotLeader
	}
	var st *pb.Status
	q := query{done: make(chan struct{}), f: func(d *director) { st = d.status(history) }}
	if !r.post(q) {
		return nil, ErrNotLeader
	}
	select {
	case <-q.done:
	case <-r.ctx.Done():
		return nil, ErrNotLeader
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.addGossip(st)
	st.Coordinator = string(c.cfg.Self.Node)
	return st, nil
}

// status describes what the director knows; nothing in it is shared with the director.
func (d *director) status(history bool) *pb.Status {
	st := &pb.Status{
		Run: d.state.Founding.GetRun(), View: d.state.View, Finish: d.state.Finish,
		Step: uint64(len(d.state.Metrics)), Time: time.Now().UnixNano(),
	}
	if history {
		st.Events, st.Metrics = slices.Clone(d.state.Events), slices.Clone(d.state.Metrics)
	} else {
		st.Events = slices.Clone(d.state.Events[max(0, len(d.state.Events)-recentEvents):])
		st.Metrics = slices.Clone(d.state.Metrics[max(0, len(d.state.Metrics)-1):])
	}
	v := d.view()
	for _, name := range sortedSeats(d.seats) {
		s := d.seats[name]
		n := &pb.NodeStatus{
			Node: string(name), Addr: s.meta.GetAddr(), Server: s.meta.GetServer(), Trainer: s.meta.GetTrainer(),
			Connected: true, Heard: s.heard.UnixNano(),
			View: s.report.GetView(), Step: s.report.GetStep(), Waits: s.report.GetWaits(), Leads: s.report.GetLeads(),
			SamplesPerSecond: s.report.GetSamplesPerSecond(),
		}
		if m := v.member(name); s.lives(m) {
			n.Shards = shardNumbers(m.Shards)
		}
		st.Nodes = append(st.Nodes, n)
	}
	return st
}

func shardNumbers(shards []id.LogicalShard) []uint32 {
	out := make([]uint32, len(shards))
	for i, s := range shards {
		out[i] = uint32(s)
	}
	return out
}

// addGossip adds what gossip knows: whether a node is alive, and nodes without a session.
func (c *Coordinator) addGossip(st *pb.Status) {
	for _, p := range c.cfg.Gossip.Peers() {
		state := "dead"
		if p.Alive {
			state = "alive"
		}
		i := slices.IndexFunc(st.Nodes, func(n *pb.NodeStatus) bool { return n.Node == string(p.Node) })
		if i < 0 {
			st.Nodes = append(st.Nodes, &pb.NodeStatus{Node: string(p.Node), Addr: p.Meta.Addr, Server: p.Meta.Server, Trainer: p.Meta.Trainer})
			i = len(st.Nodes) - 1
		}
		st.Nodes[i].State = state
	}
}

// Waits turns a node's registered waits into those of a report.
func Waits(ws []wait.Wait) []*pb.Wait {
	out := make([]*pb.Wait, len(ws))
	for i, w := range ws {
		out[i] = &pb.Wait{What: w.What, On: w.On, Since: w.Since.UnixNano()}
	}
	return out
}
