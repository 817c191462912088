package membership

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/musterml/muster/internal/id"
)

// TestAssign lets members come and go at random: always every logical shard has one
// owner, the loads differ by one at most, and nobody who has room loses a shard.
func TestAssign(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 0))
		shards := 1 + rng.IntN(20)
		var members []Member
		for round := range 30 {
			members = slices.DeleteFunc(members, func(Member) bool { return rng.IntN(3) == 0 })
			for i := range rng.IntN(4) {
				members = append(members, Member{Node: id.Node(fmt.Sprint(round, ".", i))})
			}
			members = members[:min(len(members), shards)]
			if len(members) == 0 {
				continue
			}
			before := slices.Clone(members)
			had := map[id.Node][]id.LogicalShard{}
			for _, m := range before {
				had[m.Node] = slices.Clone(m.Shards)
			}
			assign(members, shards)
			checkAssigned(t, seed, members, had, shards)
			for _, m := range before {
				if !slices.Equal(m.Shards, had[m.Node]) {
					t.Fatalf("seed %d: the old view was changed", seed)
				}
			}
		}
	}
}

func checkAssigned(t *testing.T, seed uint64, members []Member, had map[id.Node][]id.LogicalShard, shards int) {
	t.Helper()
	owned := map[id.LogicalShard]bool{}
	low, high := shards/len(members), (shards+len(members)-1)/len(members)
	for _, m := range members {
		n := len(m.Shards)
		if n < low || n > high {
			t.Fatalf("seed %d: %s computes %d of %d logical shards among %d", seed, m.Node, n, shards, len(members))
		}
		if !slices.IsSorted(m.Shards) {
			t.Fatalf("seed %d: %v is not ascending", seed, m.Shards)
		}
		for _, s := range m.Shards {
			if owned[s] || int(s) >= shards {
				t.Fatalf("seed %d: %v is owned twice, or is none", seed, s)
			}
			owned[s] = true
		}
		kept := 0
		for _, s := range had[m.Node] {
			if slices.Contains(m.Shards, s) {
				kept++
			}
		}
		if kept < min(len(had[m.Node]), n) {
			t.Fatalf("seed %d: %s had %v and has %v", seed, m.Node, had[m.Node], m.Shards)
		}
	}
	if len(owned) != shards {
		t.Fatalf("seed %d: %d of %d logical shards are owned", seed, len(owned), shards)
	}
}

func TestViewCrossesTheWire(t *testing.T) {
	v := View{Number: 3, From: 7, Reason: "b is gone", Arithmetic: "avx512", Data: []byte{1}, Members: []Member{
		{Node: "a", Incarnation: "a1", Addr: "h:1", Shards: []id.LogicalShard{0, 2}, Holder: true},
		{Node: "c", Incarnation: "c4", Addr: "h:2", Shards: []id.LogicalShard{1}},
	}}
	if got := viewFromProto(v.proto()); !reflect.DeepEqual(got, v) {
		t.Errorf("got %+v, want %+v", got, v)
	}
	if v.Rank("c", "c4") != 1 || v.Rank("c", "c3") != -1 || v.Rank("d", "d1") != -1 {
		t.Error("ranks are wrong")
	}
	if none := viewFromProto(nil); none.Number != 0 || len(none.Members) != 0 {
		t.Errorf("no view is %+v", none)
	}
}
