package membership

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/musterml/muster/internal/id"
)

// Two trainers that do not reach each other, but both reach the coordinator, would end view after view without a step:
// each answers the freeze, so both are in the next view. A broken wire in one direction does that, or a firewall.
//
// The director therefore counts, for each pair, the views in a row that ended because one of the two accused the
// other and in which no step was done. When there have been feudAfter, one of them is left out for a time that doubles:
// the one that more members accuse; of equals the one that has more feuds, then the later one in ring order; never the
// last holder of the state. It then may come back as any joiner, and a step that is done with both in the view ends the feud.
//
// Accusations are the members' own: who only hears of an abort passes on who began it (pb.Suspicion.by). A peer that was
// silent once and answers is no feud: one view may break. All of this is the leader's memory; a new leader begins anew,
// which costs the run another feudAfter views.

const (
	feudAfter = 2
	shunFirst = 5 * time.Second
	shunMost  = 5 * time.Minute
)

// pair is two nodes, the lesser name first.
type pair [2]id.Node

func pairOf(a, b id.Node) pair { return pair{min(a, b), max(a, b)} }

// accusation: by says that it has lost node.
type accusation struct{ by, node id.Node }

// feuds is what the director remembers of them.
type feuds struct {
	views    map[pair]int                 // that ended by it, in a row
	accusers map[id.Node]map[id.Node]bool // of a node that is in a feud
	shunned  map[id.Node]shun
}

type shun struct {
	until time.Time
	last  time.Duration // how long it is, or was
}

func newFeuds() feuds {
	return feuds{views: map[pair]int{}, accusers: map[id.Node]map[id.Node]bool{}, shunned: map[id.Node]shun{}}
}

// accuse notes, for the round, that a member says it has lost another.
func (d *director) accuse(by, node id.Node) {
	if by != node && d.round != nil {
		d.round.accused[accusation{by, node}] = true
	}
}

// isShunned says whether a trainer may not yet come back.
func (d *director) isShunned(name id.Node) bool { return d.now.Before(d.feuds.shunned[name].until) }

// arbitrate returns the members that are to stay without those that a feud costs their place. Each round is judged
// once, when all have answered.
func (d *director) arbitrate(v View, stay []Member) []Member {
	r := d.round
	if !r.judged {
		r.judged = true
		d.judge(v, stay)
	}
	return slices.DeleteFunc(slices.Clone(stay), func(m Member) bool { return r.loses[m.Node] })
}

func (d *director) judge(v View, stay []Member) {
	f := &d.feuds
	rank := map[id.Node]int{} // of those that stay
	stepped := false
	for i, m := range stay {
		rank[m.Node] = i
		stepped = stepped || m.Holder && id.Step(d.seats[m.Node].report.Step) > v.From
	}
	if stepped {
		f.forget(v)
	}
	for p := range d.ended(v) {
		f.views[p]++
	}
	for a := range d.round.accused {
		if f.accusers[a.node] == nil {
			f.accusers[a.node] = map[id.Node]bool{}
		}
		f.accusers[a.node][a.by] = true
	}
	for _, p := range f.open() {
		_, first := rank[p[0]]
		_, second := rank[p[1]]
		if !first || !second || d.round.loses[p[0]] || d.round.loses[p[1]] {
			continue
		}
		loser, winner := p[0], p[1]
		if c := cmp.Or(len(f.accusers[p[0]])-len(f.accusers[p[1]]), f.count(p[0])-f.count(p[1]), rank[p[0]]-rank[p[1]]); c < 0 {
			loser, winner = winner, loser
		}
		if !d.holdsWithout(stay, loser) && d.holdsWithout(stay, winner) {
			loser, winner = winner, loser
		}
		d.shun(loser, winner)
	}
}

// ended are the pairs of members whose feud ended view v, each counted once whoever accuses whom.
func (d *director) ended(v View) map[pair]bool {
	pairs := map[pair]bool{}
	for a := range d.round.accused {
		if v.member(a.by) != nil && v.member(a.node) != nil {
			pairs[pairOf(a.by, a.node)] = true
		}
	}
	return pairs
}

// forget ends the feuds between members of a view in which a step was done.
func (f *feuds) forget(v View) {
	for p := range f.views {
		if v.member(p[0]) != nil && v.member(p[1]) != nil {
			delete(f.views, p)
			for _, n := range p {
				delete(f.accusers, n)
				delete(f.shunned, n)
			}
		}
	}
}

// count is in how many feuds a node is.
func (f *feuds) count(name id.Node) int {
	n := 0
	for p := range f.views {
		if p[0] == name || p[1] == name {
			n++
		}
	}
	return n
}

// open lists the feuds that have cost enough views, in a fixed order.
func (f *feuds) open() []pair {
	var pairs []pair
	for p, n := range f.views {
		if n >= feudAfter {
			pairs = append(pairs, p)
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	return pairs
}

// holdsWithout says whether some other member that stays holds the state.
func (d *director) holdsWithout(stay []Member, name id.Node) bool {
	return slices.ContainsFunc(stay, func(m Member) bool { return m.Holder && m.Node != name && !d.round.loses[m.Node] })
}

func (d *director) shun(loser, winner id.Node) {
	s := d.feuds.shunned[loser]
	s.last = min(max(2*s.last, shunFirst), shunMost)
	s.until = d.now.Add(s.last)
	d.feuds.shunned[loser] = s
	d.round.loses[loser] = true
	d.round.gone[loser] = fmt.Sprintf("it and %s do not reach each other; it may come back after %v", winner, s.last)
}
