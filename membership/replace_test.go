package membership

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// standingOf is a run of servers s0, s1, ... of which the founding took the first ones, with every
// group as its placement wants it.
func standingOf(servers, founders, shards, replicas int) *standing {
	s := &standing{
		placement: FoundingPlacement(testFounding(founders), shards, replicas), leads: map[string]*pb.Lead{}, leaders: map[string]id.Node{},
		servers: map[id.Node]time.Duration{}, coordinators: founders, replicas: replicas, after: 30 * time.Second,
	}
	for i := range servers {
		s.servers[id.Node(fmt.Sprint("s", i))] = 0
	}
	for _, g := range s.placement.Groups {
		l := &pb.Lead{Group: g.Name, Settled: true}
		for _, p := range g.Places {
			l.Voters = append(l.Voters, string(p.Node)+"/1")
		}
		s.leads[g.Name], s.leaders[g.Name] = l, g.Places[0].Node
	}
	return s
}

func TestNextPlacement(t *testing.T) {
	for _, test := range []struct {
		name string
		s    *standing
		do   func(*standing)
		want string
	}{
		{"all is well", standingOf(4, 3, 3, 3), func(*standing) {}, ""},
		{"away for a moment", standingOf(4, 3, 1, 3), func(s *standing) { s.servers["s1"] = 29 * time.Second }, ""},
		{"away for long", standingOf(4, 3, 1, 3), func(s *standing) { s.servers["s1"] = 31 * time.Second }, "s3 takes the place of s1 in coordinator: s1 has been away for 31s"},
		{"away for long, and nobody to spare", standingOf(3, 3, 1, 3), func(s *standing) { s.servers["s1"] = 31 * time.Second }, ""},
		{"never", standingOf(4, 3, 1, 3), func(s *standing) { s.servers["s1"] = time.Hour; s.after = 0 }, ""},
		{"another of the group does not vote", standingOf(4, 3, 1, 3), func(s *standing) {
			s.servers["s1"] = 31 * time.Second
			s.leads[CoordinatorGroup].Voters, s.leads[CoordinatorGroup].Learners = []string{"s0/1", "s1/1"}, []string{"s2/2"}
			s.servers["s2"] = time.Second
		}, "s3 takes the place of s1 in shard-0: s1 has been away for 31s"},
		{"a group is on its way", standingOf(4, 3, 1, 3), func(s *standing) {
			s.servers["s1"] = 31 * time.Second
			s.leads["shard-0"].Voters, s.leads["shard-0"].Learners = []string{"s0/1", "s1/1"}, []string{"s2/2"}
		}, ""},
		{"who was to help is lost, too", standingOf(5, 3, 1, 3), func(s *standing) {
			s.placement = s.placement.change(CoordinatorGroup, []Place{{"s0", 0}, {"s1", 0}, {"s3", 1}})
			s.servers["s2"], s.servers["s3"] = time.Minute, time.Minute
		}, "s4 takes the place of s3 in coordinator: s3 has been away for 1m0s"},
		{"drained, and leads", standingOf(4, 3, 1, 3), func(s *standing) { s.placement = s.placement.drain("s0", false) }, ""},
		{"drained, and leads no more", standingOf(4, 3, 1, 3), func(s *standing) {
			s.placement = s.placement.drain("s0", false)
			s.leaders["shard-0"] = "s1"
		}, "s3 takes the place of s0 in shard-0: s0 is being drained"},
		{"drained, the fewest places first", standingOf(5, 4, 2, 2), func(s *standing) { s.placement = s.placement.drain("s3", false) }, "s4 takes the place of s3 in coordinator: s3 is being drained"},
		{"drained, the coordinator shrinks", standingOf(3, 3, 1, 2), func(s *standing) { s.placement = s.placement.drain("s2", false) }, "s2 leaves coordinator: s2 is being drained"},
		{"the coordinator has too few", standingOf(3, 3, 1, 2), func(s *standing) {
			s.placement = s.placement.change(CoordinatorGroup, []Place{{"s0", 0}, {"s1", 0}})
			s.leads[CoordinatorGroup].Voters = []string{"s0/1", "s1/1"}
		}, "s2 joins coordinator"},
		{"no leader is known", standingOf(4, 3, 1, 3), func(s *standing) { s.servers["s1"] = time.Minute; s.leads = nil }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.do(test.s)
			before := fmt.Sprint(test.s.placement)
			next, why, ok := test.s.next()
			if why != test.want || ok != (test.want != "") {
				t.Errorf("%q, %v; want %q", why, ok, test.want)
			}
			if ok && next.Number != test.s.placement.Number+1 {
				t.Errorf("placement %d follows %d", next.Number, test.s.placement.Number)
			}
			if fmt.Sprint(test.s.placement) != before {
				t.Error("the old placement has changed")
			}
		})
	}
}

func TestRefuseDrain(t *testing.T) {
	s := standingOf(3, 3, 2, 3)
	for _, test := range []struct{ node, want string }{
		{"x", `x is no server of this run; "muster servers" lists them`},
		{"s0", "s0 cannot be drained: without it there are 2 servers for 3 replicas of each shard; start one more node with the role server, or undrain one"},
	} {
		if got := s.refuseDrain(id.Node(test.node)); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
	s = standingOf(4, 3, 2, 3)
	if got := s.refuseDrain("s0"); got != "" {
		t.Errorf("refused: %s", got)
	}
	s.servers["s3"] = time.Second
	if got := s.refuseDrain("s0"); !strings.Contains(got, "there are 2 servers") {
		t.Errorf("a server that is away counts: %q", got)
	}
}

// At every moment of a long history of servers that fail, return and are drained, one at a
// time, each group keeps a majority, and in the end the placement is whole again.
func TestPlacementsKeepMajorities(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 9))
		replicas := 1 + 2*rng.IntN(2)
		founders := replicas + rng.IntN(2)
		w := &placesWorld{standing: standingOf(founders+1+rng.IntN(2), founders, 1+rng.IntN(4), replicas), rng: rng, life: map[id.Node]int{}, t: t}
		for n := range w.servers {
			w.life[n] = 1
		}
		for range 400 {
			w.turn(rng.IntN(10))
			w.check(seed)
		}
		w.lost = ""
		for n := range w.servers {
			w.servers[n] = 0
		}
		w.placement.Drained = nil
		for range 200 {
			w.turn(9)
		}
		for _, g := range w.placement.Groups {
			if !w.follows(g) {
				t.Fatalf("seed %d: %s is placed on %v, but voters are %v, learners %v", seed, g.Name, g.Places, w.leads[g.Name].Voters, w.leads[g.Name].Learners)
			}
		}
		if t.Failed() {
			return
		}
	}
}

// placesWorld is the groups' side: each takes one step at a time towards its placement, as
// raftgroup.Reconcile does.
type placesWorld struct {
	*standing
	rng  *rand.Rand
	t    *testing.T
	life map[id.Node]int
	lost id.Node
}

func (w *placesWorld) alive(n id.Node) bool { return n != w.lost }

func (w *placesWorld) names() []id.Node { return slices.Sorted(maps.Keys(w.servers)) }

func (w *placesWorld) turn(what int) {
	any := w.names()[w.rng.IntN(len(w.servers))]
	switch {
	case what == 0 && w.lost == "" && w.replicas > 1 && w.whole():
		w.lost = any
	case what == 1 && w.lost != "":
		w.servers[w.lost] = 0
		w.life[w.lost]++ // it has forgotten everything
		w.lost = ""
	case what == 2 && w.refuseDrain(any) == "" && w.lost == "":
		w.placement = w.placement.drain(any, false)
	case what == 3 && w.placement.drained(any):
		w.placement = w.placement.drain(any, true)
	}
	if w.lost != "" {
		w.servers[w.lost] += 5 * time.Second
	}
	if next, _, ok := w.next(); ok {
		w.placement = next
	}
	for _, g := range w.placement.Groups {
		w.elect(g)
		w.reconcile(g)
	}
}

// whole says that no group is on its way: two failures at once are not survived by all.
func (w *placesWorld) whole() bool {
	return !slices.ContainsFunc(w.placement.Groups, func(g Group) bool { return !w.follows(g) })
}

func (w *placesWorld) elect(g Group) {
	l := w.leads[g.Name]
	if by := w.leaders[g.Name]; w.alive(by) && votes(l, by) && !w.placement.drained(by) {
		return
	}
	for _, v := range l.Voters {
		if n := nodeOf(v); w.alive(n) && v == w.member(n) && (!w.placement.drained(n) || len(l.Voters) == 1) {
			w.leaders[g.Name] = n
			return
		}
	}
}

func (w *placesWorld) member(n id.Node) string { return fmt.Sprintf("%s/%d", n, w.life[n]) }

func (w *placesWorld) reconcile(g Group) {
	l := w.leads[g.Name]
	drop := func(from []string, m string) []string {
		return slices.DeleteFunc(slices.Clone(from), func(x string) bool { return x == m })
	}
	voting := true
	for _, p := range g.Places {
		m := w.member(p.Node)
		if !w.alive(p.Node) {
			voting = voting && votes(l, p.Node)
			continue
		}
		for _, x := range slices.Concat(l.Voters, l.Learners) {
			if nodeOf(x) == p.Node && x != m {
				l.Voters, l.Learners = drop(l.Voters, x), drop(l.Learners, x)
				return
			}
		}
		switch {
		case slices.Contains(l.Voters, m):
			continue
		case slices.Contains(l.Learners, m):
			l.Learners, l.Voters = drop(l.Learners, m), append(slices.Clone(l.Voters), m)
		default:
			l.Learners = append(slices.Clone(l.Learners), m)
		}
		return
	}
	for _, x := range slices.Concat(l.Voters, l.Learners) {
		if n := nodeOf(x); voting && !slices.ContainsFunc(g.Places, func(p Place) bool { return p.Node == n }) {
			if w.leaders[g.Name] == n {
				w.leaders[g.Name] = nodeOf(drop(l.Voters, x)[0])
				return
			}
			l.Voters, l.Learners = drop(l.Voters, x), drop(l.Learners, x)
			return
		}
	}
}

func (w *placesWorld) check(seed uint64) {
	for _, g := range w.placement.Groups {
		l, alive := w.leads[g.Name], 0
		for _, v := range l.Voters {
			if w.alive(nodeOf(v)) && v == w.member(nodeOf(v)) {
				alive++
			}
		}
		if alive < len(l.Voters)/2+1 {
			w.t.Fatalf("seed %d: of the voters %v of %s only %d live", seed, l.Voters, g.Name, alive)
		}
		if len(g.Places) < w.replicas {
			w.t.Fatalf("seed %d: %s has only the places %v", seed, g.Name, g.Places)
		}
	}
}
