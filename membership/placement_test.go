package membership

import (
	"fmt"
	"slices"
	"testing"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/raftgroup"
	pb "github.com/musterml/muster/proto"
)

func testFounding(servers int) *pb.Founding {
	f := &pb.Founding{}
	for i := range servers {
		f.Servers = append(f.Servers, &pb.Replica{Node: fmt.Sprint("s", i), Incarnation: "1", Addr: "h:1"})
	}
	return f
}

func TestFoundingPlacement(t *testing.T) {
	p := FoundingPlacement(testFounding(5), 10, 3)
	first := map[id.Node]int{}
	for _, g := range p.Groups[1:] {
		names := map[id.Node]bool{}
		for _, s := range g.Places {
			names[s.Node] = true
		}
		if len(g.Places) != 3 || len(names) != 3 {
			t.Errorf("%s is placed on %v", g.Name, g.Places)
		}
		first[g.Places[0].Node]++
	}
	for n, c := range first {
		if c != 2 {
			t.Errorf("%s is the first of %d of 10 shards", n, c)
		}
	}
	if len(p.Places(CoordinatorGroup)) != 5 {
		t.Errorf("the coordinator is placed on %v", p.Places(CoordinatorGroup))
	}
	if again := PlacementFromProto(p.proto()); fmt.Sprint(again) != fmt.Sprint(p) {
		t.Errorf("%v comes back as %v", p, again)
	}
}

func TestLives(t *testing.T) {
	f := testFounding(5)
	places := FoundingPlacement(f, 1, 1).Places(CoordinatorGroup)
	places[3].Since = 7
	now := Lives(places, f, []Peer{
		{Node: "s1", Alive: true, Meta: &pb.NodeMeta{Incarnation: "2", Addr: "h:2", Server: true}},
		{Node: "s2", Alive: false, Meta: &pb.NodeMeta{Incarnation: "2", Addr: "h:2", Server: true}},
		{Node: "s3", Alive: true, Meta: &pb.NodeMeta{Incarnation: "2", Addr: "h:2", Server: true}},
		{Node: "s4", Alive: false, Meta: &pb.NodeMeta{Incarnation: "2", Addr: "h:2", Server: true, Identity: "i"}},
		{Node: "x", Alive: true, Meta: &pb.NodeMeta{Incarnation: "2", Addr: "h:2", Server: true}},
	}, "")
	want := []raftgroup.Replica{
		{Node: "s0", Incarnation: "1", Addr: "h:1"}, // gossip does not know it yet
		{Node: "s1", Incarnation: "2", Addr: "h:2"}, // has restarted
		{Node: "s2"}, // away: whichever life is in the group
		{Node: "s3", Incarnation: "2-7", Addr: "h:2"}, // was out of the group and is in it again
		{Node: "s4", Incarnation: "i", Addr: "h:2"},   // away, with its log on the disk
	}
	if !slices.Equal(now, want) {
		t.Errorf("the lives are %v, want %v", now, want)
	}
	if Process("2-7") != "2" || Process("2") != "2" {
		t.Error("the process of a life is wrong")
	}
}
