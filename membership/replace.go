package membership

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// How places are given to other servers: when a server stays away, when one is drained, and
// when the coordinator has too few.
//
// A change gives away one place of one group, and the next one of that group waits until the
// replicas have followed: the group's leader adds the new one without a vote, promotes it once it
// has caught up, and only then removes the old one (raftgroup.Reconcile). So a group that
// had a majority keeps it, and successive configurations share one.

// standing is all that the decision depends on.
type standing struct {
	placement    Placement
	leads        map[string]*pb.Lead // by group: what its leader last said
	leaders      map[string]id.Node
	servers      map[id.Node]time.Duration // of the run, by name: for how long each has been away; 0: it is here
	coordinators int                       // servers that the coordinator is to have
	replicas     int                       // of a shard
	after        time.Duration             // absence after which a place is given away; 0: never
}

// next returns the next placement and says in words what it changes; ok is false when
// nothing is to be done now.
func (s *standing) next() (p Placement, why string, ok bool) {
	if s.moving() {
		return p, "", false
	}
	for _, g := range s.placement.Groups {
		for i, place := range g.Places {
			if !s.leaves(place.Node) || !s.othersVote(g, place.Node) {
				continue
			}
			if s.leaders[g.Name] == place.Node && s.here(place.Node) && len(g.Places) > 1 {
				continue // it hands over first
			}
			if to, found := s.spare(g); found {
				places := slices.Clone(g.Places)
				places[i] = Place{to, s.placement.Number + 1}
				return s.placement.change(g.Name, places), fmt.Sprintf("%s takes the place of %s in %s: %s", to, place.Node, g.Name, s.reason(place.Node)), true
			}
			// The coordinator may have fewer servers than at the founding.
			if g.Name == CoordinatorGroup && s.placement.drained(place.Node) && len(g.Places) > s.replicas {
				places := slices.Delete(slices.Clone(g.Places), i, i+1)
				return s.placement.change(g.Name, places), fmt.Sprintf("%s leaves %s: %s", place.Node, g.Name, s.reason(place.Node)), true
			}
		}
		if g.Name == CoordinatorGroup && len(g.Places) < s.coordinators && s.othersVote(g, "") {
			if to, found := s.spare(g); found {
				places := append(slices.Clone(g.Places), Place{to, s.placement.Number + 1})
				return s.placement.change(g.Name, places), fmt.Sprintf("%s joins %s", to, g.Name), true
			}
		}
	}
	return p, "", false
}

// leaves says that a server is to give its places away.
func (s *standing) leaves(node id.Node) bool {
	return s.placement.drained(node) || s.after > 0 && s.servers[node] > s.after
}

func (s *standing) reason(node id.Node) string {
	if s.placement.drained(node) {
		return fmt.Sprintf("%s is being drained", node)
	}
	return fmt.Sprintf("%s has been away for %v", node, s.servers[node].Round(time.Second))
}

// moving says that a group is on its way to an earlier change, and that nothing holds it up:
// one state at a time is enough for the network.
func (s *standing) moving() bool {
	return slices.ContainsFunc(s.placement.Groups, func(g Group) bool {
		return s.leads[g.Name] != nil && !s.follows(g) && s.othersVote(g, "", s.here)
	})
}

// follows says that the group's replicas are those of its places.
func (s *standing) follows(g Group) bool {
	l := s.leads[g.Name]
	return l.GetSettled() && len(l.Learners) == 0 && len(l.Voters) == len(g.Places) && s.othersVote(g, "")
}

// othersVote says that every server with a place in the group, but one, has a vote there, or is
// one of those excused.
func (s *standing) othersVote(g Group, but id.Node, excused ...func(id.Node) bool) bool {
	l := s.leads[g.Name]
	if !l.GetSettled() && len(excused) == 0 {
		return false
	}
	return !slices.ContainsFunc(g.Places, func(p Place) bool {
		excuse := slices.ContainsFunc(excused, func(f func(id.Node) bool) bool { return f(p.Node) })
		return p.Node != but && !excuse && !votes(l, p.Node)
	})
}

func (s *standing) here(node id.Node) bool {
	away, known := s.servers[node]
	return known && away == 0
}

// votes says whether a server votes in a group.
func votes(l *pb.Lead, node id.Node) bool {
	return slices.ContainsFunc(l.GetVoters(), func(v string) bool { return nodeOf(v) == node })
}

// nodeOf is the node of a replica's name, which is node/identity.
func nodeOf(replica string) id.Node {
	node, _, _ := strings.Cut(replica, "/")
	return id.Node(node)
}

// spare is the server that is to take a place in the group: of those that are here and not in
// it, the one with the fewest places.
func (s *standing) spare(g Group) (id.Node, bool) {
	var spares []id.Node
	for node := range s.servers {
		if _, has := s.placement.Place(g.Name, node); !has && s.here(node) && !s.placement.drained(node) {
			spares = append(spares, node)
		}
	}
	if len(spares) == 0 {
		return "", false
	}
	return slices.MinFunc(spares, func(a, b id.Node) int {
		return cmp.Or(cmp.Compare(s.placement.kept(a), s.placement.kept(b)), cmp.Compare(a, b))
	}), true
}

// refuseDrain says why a server cannot be drained, "" if it can.
func (s *standing) refuseDrain(node id.Node) string {
	if _, known := s.servers[node]; !known {
		return fmt.Sprintf("%s is no server of this run; \"muster servers\" lists them", node)
	}
	left := 0
	for other := range s.servers {
		if other != node && s.here(other) && !s.placement.drained(other) {
			left++
		}
	}
	if left < s.replicas && s.placement.kept(node) > 0 {
		return fmt.Sprintf("%s cannot be drained: without it there are %s for %d replicas of each shard; start one more node with the role server, or undrain one", node, countServers(left), s.replicas)
	}
	return ""
}

func countServers(n int) string {
	if n == 1 {
		return "1 server"
	}
	return fmt.Sprintf("%d servers", n)
}
