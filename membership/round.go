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

// How a view ends. Something is wrong or new: a member's session closed, a ring
// broke, a trainer waits to join. The director opens a round: it asks every member to
// freeze, that is, to take no further step in this view, for ever. Each answers with
// the step of the state it holds. When every member has answered or is known to be
// gone, nobody that stays can advance in the old view any more, so the newest step
// among the answers is final, and the next view begins there. Members that are one
// step behind fetch that state from one that holds it. A member that did not answer
// is left out; if it lives it comes back as a joiner, without state.
//
// Rejected: electing the dead by a failure detector alone. Detectors differ in their
// opinions; a round asks the only question that matters, who is here and what do you
// hold, and is safe whatever the detectors say.

// round is one attempt to end the current view.
type round struct {
	began    time.Time
	reason   string
	gone     map[id.Node]string // members that somebody saw go, and why
	diverged map[id.Node]bool   // members whose weights are not the run's
	proposed bool
	accused  map[accusation]bool // what members say of each other
	judged   bool                // feuds are settled for this round
	loses    map[id.Node]bool    // members that a feud costs their place
	figures  time.Time           // since when nothing has come of the figures that a holder still has to report; zero at first
}

// begin opens a round, or adds to the open one what is known of a member.
func (d *director) begin(reason string, gone id.Node, why string) {
	if d.round == nil {
		d.round = &round{
			began: d.now, reason: reason, gone: map[id.Node]string{}, diverged: map[id.Node]bool{},
			accused: map[accusation]bool{}, loses: map[id.Node]bool{},
		}
		for _, m := range d.view().Members {
			if d.seats[m.Node] != nil {
				d.freeze(m.Node)
			}
		}
	}
	if gone != "" && d.round.gone[gone] == "" {
		d.round.gone[gone] = why
		if d.recovering.IsZero() {
			d.recovering = d.now
		}
	}
}

// convene opens a round for trainers that wait to take part, once they have settled.
func (d *director) convene() {
	if d.round != nil || d.finishing {
		return
	}
	v := d.view()
	waiting := 0
	var newest, oldest time.Time
	for name, s := range d.seats {
		if !d.joins(v, name, s) {
			continue
		}
		waiting++
		if s.opened.After(newest) {
			newest = s.opened
		}
		if oldest.IsZero() || s.opened.Before(oldest) {
			oldest = s.opened
		}
	}
	switch {
	case waiting == 0 || len(v.Members) >= d.shards || d.now.Sub(newest) < d.timing.settle:
	case v.Number == 0 && waiting < d.trainers && d.now.Sub(oldest) < d.timing.first:
	case v.Number == 0:
		d.begin("the run begins", "", "")
	default:
		d.begin("trainers join", "", "")
	}
}

// joins says whether a seat is a trainer that waits to enter the view after v. One whose device has failed waits for nothing. It has
// to have heard of v: one that was left out because it was silent must speak first. One that a
// feud has cost its place waits for its time.
func (d *director) joins(v View, name id.Node, s *seat) bool {
	return s.meta.GetTrainer() && s.report != nil && s.report.Retired == "" && id.View(s.report.View) >= v.Number && !s.lives(v.member(name)) && !d.isShunned(name)
}

// conclude proposes the next view once every member of this one is frozen or gone.
func (d *director) conclude() {
	r := d.round
	if r == nil || r.proposed {
		return
	}
	v := d.view()
	var stay []Member
	for _, m := range v.Members {
		s := d.seats[m.Node]
		switch {
		case s.lives(&m) && s.report.GetRetired() != "": // it has left by itself
		case s.lives(&m) && id.View(s.report.GetFrozen()) >= v.Number:
			m.Addr = s.meta.GetAddr()
			m.Holder = s.report.Holds && !r.diverged[m.Node]
			stay = append(stay, m)
		case d.now.Sub(r.began) >= d.timing.answer: // it had its time
		case !s.lives(&m) && r.gone[m.Node] != "": // somebody saw it go
		case r.gone[m.Node] != "" && d.now.Sub(s.heard) >= d.timing.doubt: // a peer missed it, and so do we
		default:
			return // it may still answer
		}
	}
	d.propose(v, d.arbitrate(v, stay))
}

// propose makes the next view of the members that stay and the trainers that wait.
func (d *director) propose(v View, stay []Member) {
	next := View{Number: v.Number + 1, Members: stay, Reason: d.round.reason}
	holders := 0
	for i := range stay {
		if m := &stay[i]; m.Holder {
			holders++
			next.From = max(next.From, id.Step(d.seats[m.Node].report.Step))
		}
	}
	for i := range stay { // one that holds an older step is no holder
		stay[i].Holder = stay[i].Holder && id.Step(d.seats[stay[i].Node].report.Step) == next.From
	}
	for _, name := range sortedSeats(d.seats) {
		if s := d.seats[name]; d.joins(v, name, s) {
			next.Members = append(next.Members, Member{
				Node: name, Incarnation: id.Incarnation(s.meta.GetIncarnation()), Addr: s.meta.GetAddr(),
			})
		}
	}
	next.Members = next.Members[:min(len(next.Members), d.shards)]
	d.settleKind(v, &next)
	if !d.exact {
		next.Arithmetic = d.arithmetics(next.Members)
	}
	if len(next.Members) == 0 {
		d.feuds.shunned = map[id.Node]shun{}            // better one that quarrels than nobody
		d.restore.asked, d.restore.known = false, false // an answer of now would be old by then
		return                                          // nobody is here to go on; the round stays open until a trainer comes
	}
	switch {
	case holders == 0:
		if d.mayHold(v) || !d.restored() {
			return
		}
		next.From = d.restore.step
	case uint64(next.From) > d.recording && d.figuresCome(stay):
		return
	}
	assign(next.Members, d.shards)
	d.round.proposed = true
	p := next.proto()
	p.Time = d.now.UnixNano()
	d.do(doPropose{&pb.Entry{View: p, Metrics: d.lostMetrics(next.From), Events: d.viewEvents(v, next)}})
}

// figuresCome says whether to wait for figures of steps that are done: somebody has more than fit into one report. Who has no more has
// said all that it knows in this view. What trainers that are gone have not reported never comes.
func (d *director) figuresCome(stay []Member) bool {
	if !slices.ContainsFunc(stay, func(m Member) bool { return d.seats[m.Node].report.GetMore() }) {
		return false
	}
	if d.round.figures.IsZero() {
		d.round.figures = d.now
	}
	return d.now.Sub(d.round.figures) < d.timing.answer
}

// mayHold says whether a member that is here, but slow to answer, may hold the state, when
// none that answered does. The servers' state may be older and cost steps, so such a
// member has as long as a silent one.
func (d *director) mayHold(v View) bool {
	return d.now.Sub(d.round.began) < d.timing.silence && slices.ContainsFunc(v.Members, func(m Member) bool {
		s := d.seats[m.Node]
		return s.lives(&m) && id.View(s.report.GetFrozen()) < v.Number
	})
}

// settleKind fixes, with the first view, what all trainers of the run have in common:
// what most of its trainers have. Others are refused when the view is agreed.
func (d *director) settleKind(v View, next *View) {
	if v.Number > 0 {
		next.Arithmetic, next.Data = v.Arithmetic, v.Data
		return
	}
	type kind struct{ arithmetic, data string }
	of := func(m Member) kind {
		meta := d.seats[m.Node].meta
		k := kind{meta.GetArithmetic(), string(meta.GetData())}
		if !d.exact {
			k.arithmetic = ""
		}
		return k
	}
	count := map[kind]int{}
	var most kind
	for _, m := range next.Members {
		k := of(m)
		if count[k]++; count[k] > count[most] {
			most = k
		}
	}
	next.Members = slices.DeleteFunc(next.Members, func(m Member) bool { return of(m) != most })
	next.Arithmetic, next.Data = most.arithmetic, []byte(most.data)
}

// arithmetics lists the classes of kernels of trainers whose sums are fast: more than one may take part.
func (d *director) arithmetics(of []Member) string {
	var all []string
	for _, m := range of {
		all = append(all, d.seats[m.Node].meta.GetArithmetic())
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), mixedBy)
}

// restored says whether it is known, for this round, from which step the servers can
// give the state, and asks if not: no trainer that is left holds one.
func (d *director) restored() bool {
	if !d.restore.asked {
		d.restore.asked = true
		d.do(doRestore{})
	}
	return d.restore.known
}

func (d *director) viewEvents(old, next View) []*pb.Event {
	var events []*pb.Event
	for _, m := range old.Members {
		if next.Rank(m.Node, m.Incarnation) < 0 {
			events = append(events, d.event("lost", m.Node, "trainer %s is left out: %s", m.Node,
				cmp.Or(d.round.gone[m.Node], "it did not answer in time")))
		}
	}
	if mixed := next.Mixed(); mixed != "" && mixed != old.Mixed() {
		events = append(events, d.event("mixed", "", "the trainers compute in several ways (%s): this run cannot be reproduced bit for bit", mixed))
	}
	var names []string
	for _, m := range next.Members {
		names = append(names, fmt.Sprintf("%s computes %s", m.Node, shardNames(m.Shards)))
	}
	e := d.event("view", "", "view %d from step %d (%s): %s", next.Number, next.From, next.Reason, strings.Join(names, "; "))
	e.View, e.Step = uint64(next.Number), uint64(next.From)
	return append(events, e)
}

func shardNames(shards []id.LogicalShard) string {
	names := make([]string, len(shards))
	for i, s := range shards {
		names[i] = fmt.Sprint(int(s))
	}
	return "logical shards " + strings.Join(names, ", ")
}

// viewApplied tells everybody the view just agreed, and opens the next round at once
// if a member has gone since it was proposed.
func (d *director) viewApplied() {
	d.round = nil
	d.restore.asked, d.restore.known = false, false
	for _, name := range sortedSeats(d.seats) {
		if why := d.unfit(d.seats[name].meta); why != "" {
			s := d.seats[name]
			d.refuse(name, s.session, s.meta, why)
			continue
		}
		d.tellView(name)
	}
	for _, m := range d.view().Members {
		if !d.seats[m.Node].lives(&m) {
			d.begin(fmt.Sprintf("%s went before the view began", m.Node), m.Node, "its session closed")
		}
	}
}
