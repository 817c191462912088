package membership

import (
	"cmp"
	"slices"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// Who should lead. A shard's leader receives the trainers' gradients and sends them on, so
// shards are to be led by as many servers as can be. The rule, in one place:
//
//  1. A server that is being drained leads nothing: its groups are handed over, the
//     coordinator last, each to the voter that leads the fewest shards.
//  2. Of two servers one of which leads at least two shards more than the other, the one hands
//     one over to the other, where necessary by way of servers between them.
//
// A difference of one is left alone, so the rule comes to rest. It is a function of what is
// seen; the director asks it only while all is well, and for one hand-over at a time (places.go).

// handOver is one change of leaders.
type handOver struct {
	group    string
	term     uint64 // in which from leads
	from, to id.Node
}

// led is a group and who could lead it.
type led struct {
	*pb.Lead
	by     id.Node
	voters []id.Node // that are here and not drained
}

// nextLeader returns the hand-over that the rule asks for first; ok is false when there is none.
func nextLeader(groups []led, drained func(id.Node) bool) (h handOver, ok bool) {
	load := map[id.Node]int{} // shards that each server leads
	for _, g := range groups {
		for _, v := range g.voters {
			load[v] += 0
		}
		if g.Group != CoordinatorGroup {
			load[g.by]++
		}
	}
	lightest := func(g led) (id.Node, bool) {
		others := slices.DeleteFunc(slices.Clone(g.voters), func(v id.Node) bool { return v == g.by })
		if len(others) == 0 {
			return "", false
		}
		return slices.MinFunc(others, func(a, b id.Node) int { return cmp.Or(cmp.Compare(load[a], load[b]), cmp.Compare(a, b)) }), true
	}
	groups = slices.Clone(groups)
	slices.SortStableFunc(groups, func(a, b led) int { return order(a.Group) - order(b.Group) })
	for _, g := range groups {
		if to, found := lightest(g); found && drained(g.by) {
			return handOver{g.Group, g.Term, g.by, to}, true
		}
	}
	nodes := make([]id.Node, 0, len(load))
	for n := range load {
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b id.Node) int { return cmp.Or(cmp.Compare(load[b], load[a]), cmp.Compare(a, b)) })
	for _, from := range nodes {
		if h, ok := relieve(groups, load, from); ok {
			return h, true
		}
	}
	return h, false
}

// order puts the coordinator behind the shards.
func order(group string) int {
	if group == CoordinatorGroup {
		return 1
	}
	return 0
}

// relieve looks, breadth first, for the nearest server that leads at least two shards fewer
// than from, along groups that could be handed over, and returns the last hand-over of that
// way: it never makes the spread worse, and the next ones follow.
func relieve(groups []led, load map[id.Node]int, from id.Node) (handOver, bool) {
	seen := map[id.Node]bool{from: true}
	for queue := []id.Node{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		for _, g := range groups {
			if g.by != at || g.Group == CoordinatorGroup {
				continue
			}
			for _, to := range g.voters {
				if load[to] <= load[from]-2 {
					return handOver{g.Group, g.Term, at, to}, true
				}
				if !seen[to] {
					seen[to] = true
					queue = append(queue, to)
				}
			}
		}
	}
	return handOver{}, false
}
