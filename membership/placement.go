package membership

import (
	"cmp"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/raftgroup"
	pb "github.com/musterml/muster/proto"
)

// Replicas returns the servers of a founding in its order.
func Replicas(f *pb.Founding) []raftgroup.Replica {
	var rs []raftgroup.Replica
	for _, s := range f.Servers {
		rs = append(rs, raftgroup.Replica{Node: id.Node(s.Node), Incarnation: id.Incarnation(s.Incarnation), Addr: s.Addr})
	}
	return rs
}

// Placement returns the servers that keep a parameter shard, in order of preference:
// neighbouring shards begin at neighbouring servers, so that leaders spread evenly.
func Placement(servers []raftgroup.Replica, shard id.ParamShard, replicas int) []raftgroup.Replica {
	rs := make([]raftgroup.Replica, 0, replicas)
	for i := range replicas {
		rs = append(rs, servers[(int(shard)+i)%len(servers)])
	}
	return rs
}

// Identity is the name under which a server takes part in a Raft group: that of its
// process or, where its log is on the disk, one that outlives the process.
func Identity(m *pb.NodeMeta, group string) id.Incarnation {
	return id.Incarnation(cmp.Or(m.GetHealed()[group], m.GetIdentity(), m.GetIncarnation()))
}

// Newest replaces each server by the life of it that gossip knows, if it knows one, under
// its identity in a Raft group. One whose log is on the disk may come back, so it counts
// while it is away, too.
func Newest(servers []raftgroup.Replica, peers []Peer, group string) []raftgroup.Replica {
	want := make([]raftgroup.Replica, len(servers))
	for i, s := range servers {
		want[i] = s
		for _, p := range peers {
			if p.Node == s.Node && p.Meta.Server && (p.Alive || p.Meta.Identity != "") {
				want[i] = raftgroup.Replica{Node: p.Node, Incarnation: Identity(p.Meta, group), Addr: p.Meta.Addr}
			}
		}
	}
	return want
}
