package membership

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/raftgroup"
	pb "github.com/musterml/muster/proto"
)

// Placement says which servers keep which Raft groups: the coordinator and the parameter
// shards. It is part of the run's state and changes only by an entry of the coordinator; how,
// stands in replace.go. A Placement is immutable.
type Placement struct {
	Number  uint64  // of the change that made it; 0 at the founding
	Groups  []Group // the coordinator first, then the shards
	Drained []id.Node
}

// Group is one Raft group's place on the servers.
type Group struct {
	Name   string
	Places []Place // in the order in which they stand for election when their logs are the same
}

// Place is that of a server in a group.
type Place struct {
	Node  id.Node
	Since uint64 // number of the placement that gave it the place
}

// FoundingPlacement is that of the first servers of a run. Neighbouring shards begin at
// neighbouring servers, so that leaders spread evenly.
func FoundingPlacement(f *pb.Founding, shards, replicas int) Placement {
	servers := make([]Place, 0, len(f.GetServers()))
	for _, s := range f.GetServers() {
		servers = append(servers, Place{Node: id.Node(s.Node)})
	}
	p := Placement{Groups: []Group{{CoordinatorGroup, servers}}}
	for shard := range id.ParamShard(shards) {
		g := Group{Name: shard.String()}
		for i := range min(replicas, len(servers)) {
			g.Places = append(g.Places, servers[(int(shard)+i)%len(servers)])
		}
		p.Groups = append(p.Groups, g)
	}
	return p
}

// PlacementFromProto reads a placement; nil gives an empty one.
func PlacementFromProto(m *pb.Placement) Placement {
	p := Placement{Number: m.GetNumber()}
	for _, g := range m.GetGroups() {
		group := Group{Name: g.Group}
		for _, s := range g.Places {
			group.Places = append(group.Places, Place{id.Node(s.Node), s.Since})
		}
		p.Groups = append(p.Groups, group)
	}
	for _, d := range m.GetDrained() {
		p.Drained = append(p.Drained, id.Node(d))
	}
	return p
}

func (p Placement) proto() *pb.Placement {
	m := &pb.Placement{Number: p.Number}
	for _, g := range p.Groups {
		places := &pb.Places{Group: g.Name}
		for _, s := range g.Places {
			places.Places = append(places.Places, &pb.Place{Node: string(s.Node), Since: s.Since})
		}
		m.Groups = append(m.Groups, places)
	}
	for _, d := range p.Drained {
		m.Drained = append(m.Drained, string(d))
	}
	return m
}

// Places returns those of a group.
func (p Placement) Places(group string) []Place {
	for _, g := range p.Groups {
		if g.Name == group {
			return g.Places
		}
	}
	return nil
}

// Place returns a server's place in a group; ok is false when it has none.
func (p Placement) Place(group string, node id.Node) (place Place, ok bool) {
	places := p.Places(group)
	i := slices.IndexFunc(places, func(s Place) bool { return s.Node == node })
	if i < 0 {
		return Place{}, false
	}
	return places[i], true
}

// kept is the number of groups in which a server has a place.
func (p Placement) kept(node id.Node) int {
	n := 0
	for _, g := range p.Groups {
		if _, ok := p.Place(g.Name, node); ok {
			n++
		}
	}
	return n
}

// change returns the next placement, in which one group's places are others. The placement
// shares nothing with p that could change.
func (p Placement) change(group string, places []Place) Placement {
	next := Placement{Number: p.Number + 1, Groups: slices.Clone(p.Groups), Drained: p.Drained}
	for i := range next.Groups {
		if next.Groups[i].Name == group {
			next.Groups[i].Places = places
		}
	}
	return next
}

// drain returns the next placement, in which a server is to keep nothing, or may again.
func (p Placement) drain(node id.Node, undo bool) Placement {
	next := Placement{Number: p.Number + 1, Groups: p.Groups}
	next.Drained = slices.DeleteFunc(slices.Clone(p.Drained), func(d id.Node) bool { return d == node })
	if !undo {
		next.Drained = append(next.Drained, node)
		slices.Sort(next.Drained)
	}
	return next
}

func (p Placement) drained(node id.Node) bool { return slices.Contains(p.Drained, node) }

// Replicas returns the servers of a founding in its order.
func Replicas(f *pb.Founding) []raftgroup.Replica {
	var rs []raftgroup.Replica
	for _, s := range f.GetServers() {
		rs = append(rs, raftgroup.Replica{Node: id.Node(s.Node), Incarnation: id.Incarnation(s.Incarnation), Addr: s.Addr})
	}
	return rs
}

// Identity is the name under which a server takes part in a Raft group from the founding
// on: that of its process or, where its log is on the disk, one that outlives the process.
func Identity(m *pb.NodeMeta, group string) id.Incarnation {
	return id.Incarnation(cmp.Or(m.GetHealed()[group], m.GetIdentity(), m.GetIncarnation()))
}

// Life is the identity that a server has in a place. One that was taken out of a group has
// forgotten its log there, and must not vote under its old name when it comes back.
func Life(identity id.Incarnation, p Place) id.Incarnation {
	if p.Since == 0 {
		return identity
	}
	return id.Incarnation(fmt.Sprintf("%s-%d", identity, p.Since))
}

// Process is the identity without what Life has added.
func Process(life id.Incarnation) id.Incarnation {
	process, _, _ := strings.Cut(string(life), "-")
	return id.Incarnation(process)
}

// Lives returns the replicas that are to keep a group, each in the life that gossip knows.
// One whose log is on the disk may come back, so it counts while it is away, too. Where gossip
// has not heard of a server it is that of the founding, and where it is away it has no
// Incarnation: whichever life is in the group may stay.
func Lives(places []Place, f *pb.Founding, peers []Peer, group string) []raftgroup.Replica {
	want := make([]raftgroup.Replica, len(places))
	for i, s := range places {
		want[i].Node = s.Node
		at := slices.IndexFunc(peers, func(p Peer) bool { return p.Node == s.Node && p.Meta.Server })
		switch {
		case at >= 0 && (peers[at].Alive || peers[at].Meta.Identity != ""):
			m := peers[at].Meta
			want[i] = raftgroup.Replica{Node: s.Node, Incarnation: Life(Identity(m, group), s), Addr: m.Addr}
		case at < 0 && s.Since == 0:
			for _, r := range Replicas(f) {
				if r.Node == s.Node {
					want[i] = r
				}
			}
		}
	}
	return want
}
