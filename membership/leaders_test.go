package membership

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// ledGroup is a group as "shard-0: a of a b c".
func ledGroup(name string, by id.Node, voters ...id.Node) led {
	return led{Lead: &pb.Lead{Group: name, Term: 2}, by: by, voters: voters}
}

func TestNextLeader(t *testing.T) {
	coordinator := ledGroup(CoordinatorGroup, "a", "a", "b", "c")
	for _, test := range []struct {
		name    string
		groups  []led
		drained string
		want    string
	}{
		{"even", []led{ledGroup("shard-0", "a", "a", "b", "c"), ledGroup("shard-1", "b", "a", "b", "c"), ledGroup("shard-2", "c", "a", "b", "c")}, "", ""},
		{"one more is left alone", []led{ledGroup("shard-0", "a", "a", "b"), ledGroup("shard-1", "a", "a", "b"), ledGroup("shard-2", "b", "a", "b")}, "", ""},
		{"two more", []led{ledGroup("shard-0", "a", "a", "b", "c"), ledGroup("shard-1", "a", "a", "b", "c"), ledGroup("shard-2", "b", "a", "b", "c")}, "", "shard-0 a c"},
		{"the coordinator is no burden", []led{coordinator, ledGroup("shard-0", "a", "a", "b")}, "", ""},
		{"by way of another", []led{ledGroup("shard-0", "a", "a", "b"), ledGroup("shard-1", "a", "a", "b"), ledGroup("shard-2", "b", "b", "c")}, "", "shard-2 b c"},
		{"nobody else votes", []led{ledGroup("shard-0", "a", "a"), ledGroup("shard-1", "a", "a"), ledGroup("shard-2", "b", "b")}, "", ""},
		{"drained", []led{coordinator, ledGroup("shard-0", "a", "b", "c"), ledGroup("shard-1", "b", "b", "c")}, "a", "shard-0 a c"},
		{"drained, the coordinator last", []led{coordinator, ledGroup("shard-0", "b", "b", "c"), ledGroup("shard-1", "c", "b", "c")}, "a", "coordinator a b"},
		{"drained, and alone", []led{ledGroup("shard-0", "a")}, "a", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := ""
			if h, ok := nextLeader(test.groups, func(n id.Node) bool { return string(n) == test.drained }); ok {
				got = fmt.Sprintf("%s %s %s", h.group, h.from, h.to)
			}
			if got != test.want {
				t.Errorf("asks for %q, want %q", got, test.want)
			}
		})
	}
}

// Whoever leads at first, the rule comes to rest, and then no other choice of leaders
// would have a lower maximum: brute force tries them all.
func TestLeadersComeToRest(t *testing.T) {
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 7))
		servers := 2 + rng.IntN(4)
		var groups []led
		for i := range 1 + rng.IntN(6) {
			var voters []id.Node
			for _, s := range rng.Perm(servers)[:1+rng.IntN(servers)] {
				voters = append(voters, id.Node(rune('a'+s)))
			}
			groups = append(groups, ledGroup(fmt.Sprint("shard-", i), voters[rng.IntN(len(voters))], voters...))
		}
		moves := 0
		for {
			h, ok := nextLeader(groups, func(id.Node) bool { return false })
			if !ok {
				break
			}
			i := slices.IndexFunc(groups, func(g led) bool { return g.Group == h.group })
			if groups[i].by != h.from || !slices.Contains(groups[i].voters, h.to) {
				t.Fatalf("seed %d: %+v is no move of %+v", seed, h, groups[i])
			}
			groups[i].by = h.to
			if moves++; moves > 4*len(groups) {
				t.Fatalf("seed %d: does not come to rest", seed)
			}
		}
		if got, best := maxLed(groups), lowestMax(groups, 0); got != best {
			t.Errorf("seed %d: the busiest server leads %d shards where %d would do", seed, got, best)
		}
	}
}

func maxLed(groups []led) int {
	load := map[id.Node]int{}
	for _, g := range groups {
		load[g.by]++
	}
	most := 0
	for _, n := range load {
		most = max(most, n)
	}
	return most
}

func lowestMax(groups []led, i int) int {
	if i == len(groups) {
		return maxLed(groups)
	}
	best := len(groups)
	groups = slices.Clone(groups)
	for _, v := range groups[i].voters {
		groups[i].by = v
		best = min(best, lowestMax(groups, i+1))
	}
	return best
}
