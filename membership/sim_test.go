package membership

import (
	"slices"
	"testing"
	"time"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// TestSimulatedRuns drives the director through random crashes, restarts, pauses, broken
// sessions and changes of leader. committed checks what must hold of every entry; when
// the failures stop, the run must finish.
func TestSimulatedRuns(t *testing.T) {
	const (
		most   = 4000
		budget = 6 * time.Second
	)
	began := time.Now()
	seeds, views := 0, 0
	for seed := uint64(1); seed <= most && time.Since(began) < budget; seed++ {
		views += simulate(t, seed)
		if t.Failed() {
			return
		}
		seeds++
	}
	t.Logf("%d runs, %d views", seeds, views)
}

// FuzzSimulatedRuns looks for a seed that breaks a rule for as long as it is let.
func FuzzSimulatedRuns(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { simulate(t, seed) })
}

func simulate(t *testing.T, seed uint64) (views int) {
	w := newWorld(seed)
	w.after(0, w.fail)
	w.after(w.between(0, 4*time.Second), func() {
		w.calm = true
		if w.chance(0.7) {
			clear(w.cuts) // else what is cut stays cut
		}
		for _, n := range w.nodes {
			w.boot(n)
		}
		if w.chance(0.5) { // the last of all: a round that its leader does not live to end
			w.after(w.between(0, time.Second), func() {
				w.hangUp(w.nodes[0].session)
				w.after(w.between(0, 300*time.Millisecond), w.elect)
			})
		}
	})
	w.run(60 * time.Second)
	switch {
	case w.fault != nil:
		t.Errorf("seed %d: %v", seed, w.fault)
	case w.state.Finish == nil:
		t.Errorf("seed %d: the run does not finish: view %v, %d steps recorded of %d, round %+v", seed, w.state.View, recorded(w.state), w.steps, w.d.round)
	case id.Step(w.state.Finish.Step) != w.steps || w.state.Finish.Digest != "the weights":
		t.Errorf("seed %d: the end is %v, not step %d", seed, w.state.Finish, w.steps)
	}
	return len(w.views)
}

// A wire that is broken in one direction costs a few views, and one trainer its place, but not the run. It comes back
// for a try after longer and longer times.
func TestOneWayCut(t *testing.T) {
	for seed := uint64(1); seed <= 15; seed++ {
		w := newWorld(seed)
		w.calm, w.shards, w.steps = true, 8, 1000
		if len(w.nodes) < 2 {
			continue
		}
		var cutAt id.Step
		w.after(3*time.Second, func() {
			w.cuts[[2]id.Node{w.nodes[0].name, w.nodes[1].name}] = true
			cutAt = id.Step(recorded(w.state))
		})
		w.run(40 * time.Second)
		done := id.Step(recorded(w.state))
		switch {
		case w.fault != nil:
			t.Fatalf("seed %d: %v", seed, w.fault)
		case w.state.Finish == nil && done < cutAt+200:
			t.Fatalf("seed %d, %d nodes: %d steps when the wire broke, %d of %d at the end; %d views", seed, len(w.nodes), cutAt, done, w.steps, len(w.views))
		case len(w.views) > 25:
			t.Fatalf("seed %d: %d views", seed, len(w.views))
		}
	}
}

// fail does something bad every now and then.
func (w *world) fail() {
	if w.calm {
		return
	}
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	switch w.rng.IntN(13) {
	case 0, 1, 2:
		w.crash(n)
	case 3, 4, 5:
		w.boot(n)
	case 6:
		w.hangUp(n.session)
	case 7:
		n.resumes = w.now.Add(w.between(0, 2500*time.Millisecond))
	case 8:
		w.elect()
	case 9: // a host that vanishes says nothing
		n.alive, n.session = false, nil
	case 10:
		for _, n := range w.nodes {
			w.crash(n)
		}
	case 11:
		if w.d != nil {
			w.event(evGone{n.name, n.inc(), "somebody says so, rightly or not"})
		}
	case 12: // a wire breaks, or is mended, in one direction
		if p := w.nodes[w.rng.IntN(len(w.nodes))]; p != n {
			w.cuts[[2]id.Node{p.name, n.name}] = !w.cuts[[2]id.Node{p.name, n.name}]
		}
	}
	w.after(w.between(0, 300*time.Millisecond), w.fail)
}

func (w *world) crash(n *simNode) {
	if !n.alive {
		return
	}
	n.alive = false
	w.hangUp(n.session)
	inc := n.inc()
	if w.chance(0.5) {
		w.after(w.between(0, 300*time.Millisecond), func() { w.event(evGone{n.name, inc, "its process has ended"}) })
	}
}

func (w *world) boot(n *simNode) {
	if n.alive {
		return
	}
	*n = simNode{name: n.name, life: n.life + 1, alive: true}
	life := n.life
	w.after(w.between(0, 100*time.Millisecond), func() { w.open(n, life) })
}

// act has a trainer do the next little thing of its view.
func (w *world) act(n *simNode) {
	if n.alive && !n.resumes.After(w.now) && n.view.Rank(n.name, n.inc()) >= 0 && n.view.Number > n.frozen && !n.broken && !n.done {
		switch {
		case w.lostPeer(n), w.cutOff(n):
		case !n.holds:
			w.obtain(n)
		default:
			w.contribute(n)
		}
	}
	w.after(w.between(5*time.Millisecond, 40*time.Millisecond), func() { w.act(n) })
}

func (w *world) node(m Member) *simNode {
	i := slices.IndexFunc(w.nodes, func(n *simNode) bool { return n.name == m.Node })
	if n := w.nodes[i]; n.alive && n.inc() == m.Incarnation {
		return n
	}
	return nil
}

// lostPeer lets a trainer notice, sooner or later, that a member of its view is not with it.
func (w *world) lostPeer(n *simNode) bool {
	for _, m := range n.view.Members {
		p := w.node(m)
		if p != nil && p.frozen < n.view.Number && !p.broken || !w.chance(0.2) {
			continue
		}
		n.broken = true
		if p == nil || w.chance(0.1) {
			n.suspect = []*pb.Suspicion{{Node: string(m.Node), Why: "reset"}}
		}
		w.report(n)
		return true
	}
	return false
}

// cutOff lets a trainer notice, sooner or later, that its neighbour in the ring does not reach it. The one at the other
// end may notice first. While nobody has, no step is done in that view.
func (w *world) cutOff(n *simNode) bool {
	cut := false
	for i, m := range n.view.Members {
		next := n.view.Members[(i+1)%len(n.view.Members)]
		if !w.cuts[[2]id.Node{m.Node, next.Node}] && !w.cuts[[2]id.Node{next.Node, m.Node}] {
			continue
		}
		cut = true
		by, lost := next.Node, m.Node
		if w.cuts[[2]id.Node{next.Node, m.Node}] {
			by, lost = lost, by
		}
		if w.chance(0.2) {
			by, lost = lost, by
		}
		if w.chance(0.02) { // it, or one that it told
			n.broken = true
			n.suspect = []*pb.Suspicion{{Node: string(lost), By: string(by), Why: "no sign of life"}}
			w.report(n)
			return true
		}
	}
	return cut
}

// obtain gets the state of the view's first step from one that holds it, or, where none
// does, from the servers.
func (w *world) obtain(n *simNode) {
	from, anybody := n.view.From, false
	for _, m := range n.view.Members {
		anybody = anybody || m.Holder
		if p := w.node(m); p != nil && m.Holder && p.holds && p.step == from {
			n.holds, n.step = true, from
			return
		}
	}
	switch {
	case anybody:
	case w.stored == from:
		n.holds, n.step = true, from
	default:
		n.broken = true // the servers have gone on
	}
}

// contribute adds a trainer's gradients to the sum of its step; whoever finds the sum
// complete has the next state, the others a moment later.
func (w *world) contribute(n *simNode) {
	v := n.view.Number
	if w.sums[v] == nil {
		w.sums[v] = map[id.Step]map[id.Node]bool{}
	}
	if w.sums[v][n.step] == nil {
		w.sums[v][n.step] = map[id.Node]bool{}
	}
	sum := w.sums[v][n.step]
	sum[n.name] = true
	if len(sum) < len(n.view.Members) {
		return
	}
	n.metrics = append(n.metrics, &pb.StepMetrics{Step: uint64(n.step)})
	if n.step == w.steps {
		n.done = true
		w.stored = w.steps
	} else {
		n.step++
		if n.step%w.every == 0 {
			w.stored = max(w.stored, n.step)
		}
	}
	w.report(n)
}

// committed takes an entry into the group's state and checks the rules.
func (w *world) committed(e *pb.Entry) {
	old := viewFromProto(w.state.View)
	if err := apply(w.state, e); err != nil {
		w.broke("an entry is refused: %v", err)
		return
	}
	if e.View == nil {
		return
	}
	v := viewFromProto(e.View)
	if w.views[v.Number] != nil {
		w.broke("view %d is agreed twice", v.Number)
	}
	w.views[v.Number] = e.View
	owners := map[id.LogicalShard]int{}
	holders := 0
	for _, m := range v.Members {
		for _, s := range m.Shards {
			owners[s]++
		}
		if m.Holder {
			holders++
		}
		w.checkMember(old, v, m, len(e.Metrics))
	}
	for s := range id.LogicalShard(w.shards) {
		if owners[s] != 1 {
			w.broke("view %d: %v has %d owners", v.Number, s, owners[s])
		}
	}
	if len(owners) != w.shards {
		w.broke("view %d: %d logical shards are owned, of %d", v.Number, len(owners), w.shards)
	}
	if holders > 0 && v.From < old.From {
		w.broke("view %d begins at %v, before view %d", v.Number, v.From, old.Number)
	}
}

// checkMember checks a member of a new view against what the trainer itself knows.
func (w *world) checkMember(old, v View, m Member, lost int) {
	n := w.node(m)
	was := old.Rank(m.Node, m.Incarnation) >= 0
	switch {
	case m.Holder && !was:
		w.broke("view %d: %s holds, but comes from outside", v.Number, m.Node)
	case n == nil: // it has crashed since
	case m.Holder && lost > 0 && n.resumes.Add(time.Second).Before(w.now):
		w.broke("view %d: the figures of %d steps are given up, and %s has them", v.Number, lost, m.Node)
	case was && n.frozen < old.Number:
		w.broke("view %d: %s was not frozen for view %d", v.Number, m.Node, old.Number)
	case was && n.holds && n.view.Number == old.Number && n.step > v.From:
		w.broke("view %d begins at %v, but %s holds %v", v.Number, v.From, m.Node, n.step)
	case m.Holder && n.view.Number == old.Number && (!n.holds || n.step != v.From):
		w.broke("view %d: %s does not hold %v", v.Number, m.Node, v.From)
	}
}
