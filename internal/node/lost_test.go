package node

import (
	"strings"
	"testing"

	"github.com/musterml/muster/internal/raftgroup"
)

func TestMajorityOfTheDead(t *testing.T) {
	a, b, c := raftgroup.Replica{Node: "a", Incarnation: "a1"}, raftgroup.Replica{Node: "b", Incarnation: "b1"}, raftgroup.Replica{Node: "c", Incarnation: "c1"}
	b2 := raftgroup.Replica{Node: "b", Incarnation: "b2"}
	for _, test := range []struct {
		dead   string
		voters []raftgroup.Replica
		want   string
	}{
		{"", []raftgroup.Replica{a, b, c}, ""},
		{"b1", []raftgroup.Replica{a, b, c}, ""},
		{"b1 c1", []raftgroup.Replica{a, b, c}, "b c"},
		{"b1 c1", []raftgroup.Replica{a, b2, c}, ""}, // b lives again, and votes
		{"b1", []raftgroup.Replica{a, b}, "b"},       // of two, both are needed
		{"a1", []raftgroup.Replica{a}, "a"},
	} {
		var g graves
		for _, inc := range strings.Fields(test.dead) {
			for _, r := range []raftgroup.Replica{a, b, c} {
				if string(r.Incarnation) == inc {
					g.add(r.Incarnation)
				}
			}
		}
		if got := strings.Join(g.majority(test.voters), " "); got != test.want {
			t.Errorf("dead %q of %v: %q, want %q", test.dead, test.voters, got, test.want)
		}
	}
}
