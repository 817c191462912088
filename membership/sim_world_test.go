package membership

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// A simulated run: the real director, and trainers that are no more than what the
// director can know of them. Time is a heap of things to do; every delay is drawn from
// one seed. Messages of one session keep their order, as on TCP, and nothing else does.
type world struct {
	rng      *rand.Rand
	now      time.Time
	todo     agenda
	seq      int
	calm     bool // no more failures
	nodes    []*simNode
	shards   int
	steps    id.Step             // of the job
	every    id.Step             // the state goes to the servers every so many steps
	stored   id.Step             // newest step that the servers hold
	cuts     map[[2]id.Node]bool // nothing goes from the one to the other
	sums     map[id.View]map[id.Step]map[id.Node]bool
	state    *pb.RunState // as the group has committed it
	d        *director    // nil between two leaders
	epoch    int          // counts leaders
	pending  []*pb.Entry  // of this leader
	sessions uint64
	views    map[id.View]*pb.View
	fault    error // the first rule that was broken
}

type simNode struct {
	name    id.Node
	life    int
	alive   bool
	resumes time.Time // it stands still until then
	session *simSession

	view    View
	frozen  id.View
	holds   bool
	step    id.Step
	broken  bool
	suspect []*pb.Suspicion
	metrics []*pb.StepMetrics
	done    bool
	over    bool // it knows of the end
}

type simSession struct {
	number   uint64
	epoch    int
	node     *simNode
	life     int
	up, down time.Time // when the last message of each direction arrives
}

func (n *simNode) inc() id.Incarnation { return id.Incarnation(fmt.Sprintf("%s%d", n.name, n.life)) }

type task struct {
	at  time.Time
	seq int
	do  func()
}

type agenda []task

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at.Before(a[j].at) || a[i].at.Equal(a[j].at) && a[i].seq < a[j].seq
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(task)) }
func (a *agenda) Pop() any {
	t := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return t
}

func (w *world) at(when time.Time, do func()) {
	w.seq++
	heap.Push(&w.todo, task{when, w.seq, do})
}

func (w *world) after(d time.Duration, do func()) { w.at(w.now.Add(d), do) }

// between draws a delay.
func (w *world) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.rng.Int64N(int64(hi-lo)+1))
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) broke(format string, args ...any) {
	if w.fault == nil {
		w.fault = fmt.Errorf("%v: "+format, append([]any{w.now.Sub(time.Unix(0, 0))}, args...)...)
	}
}

func newWorld(seed uint64) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(0, 0), state: &pb.RunState{},
		cuts: map[[2]id.Node]bool{}, sums: map[id.View]map[id.Step]map[id.Node]bool{}, views: map[id.View]*pb.View{},
	}
	w.shards, w.steps, w.every = 1+w.rng.IntN(6), id.Step(5+w.rng.IntN(100)), id.Step(1+w.rng.IntN(10))
	for i := range 1 + w.rng.IntN(5) {
		n := &simNode{name: id.Node(rune('a' + i))}
		w.nodes = append(w.nodes, n)
		w.after(w.between(0, 500*time.Millisecond), func() { w.boot(n) })
		w.after(0, func() { w.act(n) })
		w.after(0, func() { w.heartbeat(n) })
	}
	w.elect()
	w.after(0, w.tick)
	return w
}

// run goes on until the run is finished and its end agreed, a rule is broken, or time is up.
func (w *world) run(until time.Duration) {
	end := time.Unix(0, 0).Add(until)
	for w.fault == nil && w.state.Finish == nil && len(w.todo) > 0 && w.now.Before(end) {
		t := heap.Pop(&w.todo).(task)
		w.now = t.at
		t.do()
	}
}

// elect makes a new director from what is committed. Of what the old one had proposed, some was.
func (w *world) elect() {
	w.d = nil
	w.epoch++
	for _, e := range w.pending[:w.rng.IntN(len(w.pending)+1)] {
		w.committed(e)
	}
	w.pending = nil
	for _, n := range w.nodes {
		w.hangUp(n.session)
	}
	epoch := w.epoch
	w.after(w.between(20*time.Millisecond, 700*time.Millisecond), func() {
		if w.epoch == epoch {
			w.d = newDirector(w.now, proto.CloneOf(w.state), w.shards, true, ServerQuota{}, defaultTiming())
		}
	})
}

func (w *world) tick() {
	alive := 0
	for _, n := range w.nodes {
		if n.alive || w.chance(0.002) { // gossip is not always right
			alive++
		}
	}
	w.event(evTick{trainers: alive})
	w.after(20*time.Millisecond, w.tick)
}

func (w *world) event(e any) {
	if w.d == nil {
		return
	}
	for _, a := range w.d.step(w.now, e) {
		switch a := a.(type) {
		case doSend:
			w.deliver(a.session, a.down)
		case doHangUp:
			for _, n := range w.nodes {
				if n.session != nil && n.session.number == a.session {
					w.hangUp(n.session)
				}
			}
		case doPropose:
			w.pending = append(w.pending, a.entry)
			epoch := w.epoch
			w.after(w.between(time.Millisecond, 60*time.Millisecond), func() { w.commit(epoch) })
		case doRestore:
			epoch := w.epoch
			w.after(w.between(time.Millisecond, 300*time.Millisecond), func() {
				if step := w.stored; w.epoch == epoch {
					w.event(evRestored{step})
				}
			})
		}
	}
}

// commit agrees on the oldest proposal of a leader, if it still leads.
func (w *world) commit(epoch int) {
	if w.epoch != epoch || len(w.pending) == 0 {
		return
	}
	e := w.pending[0]
	w.pending = w.pending[1:]
	w.committed(e)
	if err := apply(w.d.state, e); err != nil {
		w.broke("the leader's own state refuses an entry: %v", err)
	}
	w.event(evApplied{e})
}

func (w *world) deliver(session uint64, down *pb.Down) {
	if v := down.GetView(); v != nil && !proto.Equal(w.views[id.View(v.Number)], v) {
		w.broke("view %d is sent, but another was agreed", v.Number)
	}
	for _, n := range w.nodes {
		s := n.session
		if s == nil || s.number != session {
			continue
		}
		s.down = later(s.down, w.now.Add(w.between(0, 40*time.Millisecond)))
		w.at(s.down, func() { w.hear(s, down) })
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// hear has a node act on a word of the leader, as trainer.Trainer does.
func (w *world) hear(s *simSession, down *pb.Down) {
	n := s.node
	switch {
	case n.session != s:
		return
	case n.resumes.After(w.now):
		w.at(n.resumes, func() { w.hear(s, down) })
		return
	}
	switch m := down.M.(type) {
	case *pb.Down_View:
		w.enter(n, viewFromProto(m.View))
	case *pb.Down_Freeze:
		n.frozen = max(n.frozen, id.View(m.Freeze.View))
	case *pb.Down_Ack:
		n.metrics = slices.DeleteFunc(n.metrics, func(x *pb.StepMetrics) bool { return x.Step < m.Ack.Metrics })
	case *pb.Down_Finish:
		n.over = true
	}
	w.report(n)
}

func (w *world) enter(n *simNode, v View) {
	if v.Number <= n.view.Number {
		return
	}
	n.view, n.broken, n.suspect, n.done = v, false, nil, false
	n.frozen = max(n.frozen, v.Number-1)
	if rank := v.Rank(n.name, n.inc()); rank < 0 || !v.Members[rank].Holder {
		n.holds = false
	}
}

// up sends on a node's session, in order.
func (w *world) up(s *simSession, event any) {
	s.up = later(s.up, w.now.Add(w.between(0, 40*time.Millisecond)))
	w.at(s.up, func() {
		if s.epoch == w.epoch {
			w.event(event)
		}
	})
}

// hangUp ends a session: both sides hear of it, each in its time.
func (w *world) hangUp(s *simSession) {
	if s == nil {
		return
	}
	n := s.node
	n.session = nil
	w.up(s, evClosed{n.name, s.number, "the connection broke"})
	life := n.life
	w.after(w.between(10*time.Millisecond, 200*time.Millisecond), func() { w.open(n, life) })
}

func (w *world) open(n *simNode, life int) {
	switch {
	case !n.alive || n.life != life || n.session != nil:
		return
	case w.d == nil || n.resumes.After(w.now):
		w.after(20*time.Millisecond, func() { w.open(n, life) })
		return
	}
	w.sessions++
	n.session = &simSession{number: w.sessions, epoch: w.epoch, node: n, life: life}
	w.up(n.session, evOpened{n.name, w.sessions, &pb.NodeMeta{Incarnation: string(n.inc()), Addr: string(n.inc()), Trainer: true}})
	w.report(n)
}

func (w *world) report(n *simNode) {
	if n.session == nil {
		return
	}
	r := &pb.Report{
		View: uint64(n.view.Number), Frozen: uint64(n.frozen), Holds: n.holds, Step: uint64(n.step), Broken: n.broken,
		Suspects: slices.Clone(n.suspect), Done: n.done, Metrics: slices.Clone(n.metrics[:min(len(n.metrics), 3)]), More: len(n.metrics) > 3,
	}
	if n.done {
		r.Digest = "the weights"
	}
	w.up(n.session, evReport{n.name, n.session.number, r})
}

func (w *world) heartbeat(n *simNode) {
	if !n.resumes.After(w.now) {
		w.report(n)
	}
	w.after(100*time.Millisecond, func() { w.heartbeat(n) })
}
