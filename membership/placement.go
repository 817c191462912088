package membership

import (
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

// Newest replaces each server by the life of it that gossip knows, if it knows one.
func Newest(servers []raftgroup.Replica, peers []Peer) []raftgroup.Replica {
	want := make([]raftgroup.Replica, len(servers))
	for i, s := range servers {
		want[i] = s
		for _, p := range peers {
			if p.Node == s.Node && p.Alive && p.Meta.Server {
				want[i] = raftgroup.Replica{Node: p.Node, Incarnation: id.Incarnation(p.Meta.Incarnation), Addr: p.Meta.Addr}
			}
		}
	}
	return want
}
