package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/raftgroup"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/trainer"
)

// What a server keeps follows the placement that the coordinator has agreed, which the roster
// tells: it starts a replica where it is given a place, and the group's leader then fills it. It
// ends one when it has lost the place and the group's leader says that it is out of the group: not
// before, because until then its vote may be needed.

// hosting is which places this server fills, and what it knows of all. Safe for concurrent use.
type hosting struct {
	mu     sync.Mutex
	roster *pb.Roster        // nil before the coordinator's leader has told it
	places map[string]uint64 // by group: the number of the place that this server fills
	known  map[string]bool   // by group: its identity there has taken part before
}

func (h *hosting) hear(r *pb.Roster) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.Placement.GetNumber() >= h.roster.GetPlacement().GetNumber() {
		h.roster = r
	}
}

func (h *hosting) told() *pb.Roster {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.roster
}

// begin notes that this server fills a place from now on.
func (h *hosting) begin(group string, since uint64, known bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.places == nil {
		h.places, h.known = map[string]uint64{}, map[string]bool{}
	}
	h.places[group], h.known[group] = since, known
}

func (h *hosting) end(group string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.places, group)
}

func (h *hosting) place(group string) (since uint64, known, fills bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	since, fills = h.places[group]
	return since, h.known[group], fills
}

// placement is the one agreed, as far as this node knows.
func (n *Node) placement() membership.Placement {
	if c := n.coord(); c != nil {
		if p := c.Placement(); p.Number >= n.hosting.told().GetPlacement().GetNumber() {
			return p
		}
	}
	if r := n.hosting.told(); r != nil {
		return membership.PlacementFromProto(r.Placement)
	}
	return n.foundingPlacement()
}

func (n *Node) foundingPlacement() membership.Placement {
	c := n.cfg.Job.Cluster
	return membership.FoundingPlacement(n.founding, c.ParameterShards, c.Replicas)
}

// keepers are the servers that are to keep a group, each in the life that gossip knows.
func (n *Node) keepers(group string) []raftgroup.Replica {
	return membership.Lives(n.placement().Places(group), n.founding, n.gossip.Peers(), group)
}

// voters are the replicas of a group as its leader last told; before that, its keepers.
func (n *Node) voters(group string) []raftgroup.Replica {
	for _, l := range n.hosting.told().GetLeads() {
		if l.Group == group {
			return members(l.Voters)
		}
	}
	return n.keepers(group)
}

// addrs are where a group may be found: at its keepers, and at its replicas of now.
func (n *Node) addrs(group string) []string {
	var addrs []string
	add := func(addr string) {
		if addr != "" && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	for _, r := range append(n.keepers(group), n.voters(group)...) {
		add(n.locate(r))
	}
	if n.hosting.told() == nil { // places may have changed since the founding
		for _, p := range n.gossip.Peers() {
			if p.Alive && p.Meta.Server {
				add(p.Meta.Addr)
			}
		}
	}
	return addrs
}

// members reads the names of replicas in a report.
func members(names []string) []raftgroup.Replica {
	var rs []raftgroup.Replica
	for _, name := range names {
		if r, err := raftgroup.ParseID(name); err == nil {
			rs = append(rs, r)
		}
	}
	return rs
}

// groups are the names of all Raft groups of the run.
func (n *Node) groups() []string {
	names := []string{membership.CoordinatorGroup}
	for shard := range id.ParamShard(n.cfg.Job.Cluster.ParameterShards) {
		names = append(names, shard.String())
	}
	return names
}

// host fills the places that this server is given and leaves those that it has lost.
func (n *Node) host(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r := n.hosting.told()
		if r == nil {
			continue
		}
		placement := membership.PlacementFromProto(r.Placement)
		for _, group := range n.groups() {
			if err := n.follow(group, placement, r); err != nil {
				n.cfg.Log.Error().Err(err).Msgf("this server cannot do its part in %s; it tries again", group)
			}
		}
	}
}

// follow does for one group what the placement asks of this server.
func (n *Node) follow(group string, placement membership.Placement, r *pb.Roster) error {
	place, mine := placement.Place(group, n.cfg.Name)
	since, _, fills := n.hosting.place(group)
	switch {
	case fills && mine && since == place.Since:
		return nil
	case fills:
		if n.dismissed(group, r) {
			return n.endGroup(group)
		}
		return nil
	case mine:
		n.cfg.Log.Info().Msgf("this server is given a place in %s", group)
		return n.beginGroup(group, place.Since, false, nil)
	}
	return nil
}

// dismissed says that this server's replica is in its group no more: the leader says who is.
func (n *Node) dismissed(group string, r *pb.Roster) bool {
	self := n.self(group)
	for _, l := range r.Leads {
		if l.Group == group {
			in := func(m raftgroup.Replica) bool { return m.ServerID() == self.ServerID() }
			return l.Settled && !slices.ContainsFunc(members(l.Voters), in) && !slices.ContainsFunc(members(l.Learners), in)
		}
	}
	return false
}

// beginGroup starts this server's replica of a group. found is who bootstraps it, nil for
// one that waits to be added by the group's leader.
func (n *Node) beginGroup(group string, since uint64, known bool, found []raftgroup.Replica) error {
	n.hosting.begin(group, since, known)
	start := func() error { return n.startCoordinator() }
	if shard, is := shardOf(group); is {
		start = func() error {
			if !holds(found, n.self(group)) { // it has lost its log and waits to be added anew
				return n.shards.Start(shard, nil)
			}
			return n.shards.Start(shard, found)
		}
	}
	if err := n.startGroup(group, start); err != nil {
		n.hosting.end(group)
		return err
	}
	if !n.durable() || n.held.Placed == nil {
		return nil // the places of the founding are written down together
	}
	return n.keep(func(r *held) { r.Placed[group] = since })
}

// endGroup ends this server's replica of a group that goes on without it.
func (n *Node) endGroup(group string) error {
	n.cfg.Log.Info().Msgf("this server has left %s", group)
	var err error
	if shard, is := shardOf(group); is {
		err = n.shards.Drop(shard)
	} else {
		n.mu.Lock()
		c := n.coordinator
		n.coordinator = nil
		n.mu.Unlock()
		err = c.Remove()
	}
	n.hosting.end(group)
	if n.durable() {
		err = errors.Join(err, n.keep(func(r *held) { delete(r.Placed, group) }))
	}
	return err
}

func holds(rs []raftgroup.Replica, self raftgroup.Replica) bool {
	return slices.ContainsFunc(rs, func(r raftgroup.Replica) bool { return r.ServerID() == self.ServerID() })
}

// shardOf is the parameter shard of that name; is says that there is one.
func shardOf(group string) (shard id.ParamShard, is bool) {
	_, err := fmt.Sscanf(group, "shard-%d", &shard)
	return shard, err == nil
}

// beginPlaces starts what this server kept when it was here last or, the first time, what
// the founding gives it. Anything else it hears of by the roster.
func (n *Node) beginPlaces() error {
	founding := n.foundingPlacement()
	for _, group := range slices.Backward(n.groups()) { // the coordinator last: it leads where shards are ready
		place, mine := founding.Place(group, n.cfg.Name)
		since, known := place.Since, n.durable() && n.held.Known
		if n.durable() && n.held.Placed != nil {
			since, mine = n.held.Placed[group], false
			if _, kept := n.held.Placed[group]; kept {
				mine = true
			}
		}
		if !mine {
			continue
		}
		found := membership.Lives(founding.Places(group), n.founding, nil, group)
		if err := n.beginGroup(group, since, known, found); err != nil {
			return err
		}
	}
	if !n.durable() || n.held.Placed != nil {
		return nil
	}
	return n.keep(func(r *held) {
		r.Known, r.Placed = true, map[string]uint64{}
		for _, group := range n.groups() {
			if since, _, fills := n.hosting.place(group); fills {
				r.Placed[group] = since
			}
		}
	})
}

// onRoster hears which servers keep what.
func (n *Node) onRoster(r *pb.Roster) { n.hosting.hear(r) }

// onHandOver has another replica lead a group that this node leads.
func (n *Node) onHandOver(h *pb.HandOver) {
	n.handing.Go(func() { // it waits for the other
		var err error
		if shard, is := shardOf(h.Group); is {
			if n.shards != nil {
				err = n.shards.HandOver(shard, h.Term, id.Node(h.To))
			}
		} else if c := n.coord(); c != nil {
			err = c.HandOver(h.Term, id.Node(h.To))
		}
		if err != nil {
			n.cfg.Log.Debug().Err(err).Msgf("%s was not handed over", h.Group)
		}
	})
}

// coord is this server's part in the coordinator, nil where it has none.
func (n *Node) coord() *membership.Coordinator {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.coordinator
}

// leads says whether this node leads the coordinator.
func (n *Node) leads() bool {
	c := n.coord()
	if c == nil {
		return false
	}
	_, leads := c.Leads()
	return leads
}

// recorded is the number of steps in the run's history, as far as this server knows; 0 where it
// is not of the coordinator.
func (n *Node) recorded() id.Step {
	if c := n.coord(); c != nil {
		return c.Recorded()
	}
	return 0
}

func (n *Node) startCoordinator() error {
	_, known := n.life(membership.CoordinatorGroup)
	c := n.cfg.Job.Cluster
	coordinator, err := membership.StartCoordinator(membership.CoordinatorConfig{
		Founding: n.founding, Self: n.self(membership.CoordinatorGroup), Dir: n.raftDir(), Port: n.port, Gossip: n.gossip,
		Durable: n.durable(), Known: known, Locate: n.locate,
		Shards: n.cfg.Job.Batch.LogicalShards, Exact: n.cfg.Job.Sync.Sum == trainer.SumExact,
		Servers: membership.ServerQuota{Shards: c.ParameterShards, Replicas: c.Replicas, ReplaceAfter: c.ReplaceAfter},
		Restore: n.restore, Leave: n.leave, Log: n.cfg.Log,
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.coordinator = coordinator
	n.mu.Unlock()
	return nil
}

func (n *Node) stopCoordinator() error {
	if c := n.coord(); c != nil {
		return c.Stop()
	}
	return nil
}
