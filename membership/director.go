package membership

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// The director is the mind of the coordinator's leader: a pure step function from
// what nodes report to what is agreed next. It reads no clock and does no I/O, so a
// test can drive any interleaving; coordinator.go is the shell around it. It keeps
// nothing that must survive: a new leader begins with a new director, the committed
// RunState, and what the nodes report to it. How a view ends stands in round.go.

// timing holds the director's patience.
type timing struct {
	settle  time.Duration // how long joiners are collected before a view is made for them
	first   time.Duration // how long the first view waits for trainers that gossip knows
	answer  time.Duration // how long a round waits for a member of which nobody says that it is gone
	doubt   time.Duration // silence that confirms a peer's word that a member is gone
	silence time.Duration // a session that reported nothing for so long is closed
	goodbye time.Duration // how long a finished run waits for nodes to save their outputs
}

func defaultTiming() timing {
	return timing{
		settle:  150 * time.Millisecond,
		first:   3 * time.Second,
		answer:  500 * time.Millisecond,
		doubt:   300 * time.Millisecond,
		silence: 1500 * time.Millisecond,
		goodbye: 10 * time.Second,
	}
}

// Events the director reacts to. Sessions are numbered, so that the end of an old
// session is not taken for the end of the new one.
type (
	evOpened struct {
		name    id.Node
		session uint64
		meta    *pb.NodeMeta
	}
	evReport struct {
		name    id.Node
		session uint64
		report  *pb.Report
	}
	evClosed struct {
		name    id.Node
		session uint64
		why     string
	}
	evGone struct { // the process is known to be gone, whether it had a session or not
		name        id.Node
		incarnation id.Incarnation
		why         string
	}
	evApplied  struct{ entry *pb.Entry } // an entry of ours was committed; state holds it already
	evRestored struct{ step id.Step }    // the newest step that the servers hold completely
	evTick     struct {                  // time passes
		trainers  int    // that gossip knows alive
		elsewhere []Peer // who takes part in another run
	}
)

// Actions it asks its shell for.
type (
	doSend struct {
		to      id.Node
		session uint64
		down    *pb.Down
	}
	doHangUp struct { // end a session, once what was sent on it is written; the node opens another
		to      id.Node
		session uint64
	}
	doPropose struct{ entry *pb.Entry }
	doRestore struct{} // find the newest complete step on the servers, then evRestored
	doLeave   struct{} // every node has been told; the leader may go
)

// seat is a node that has a session.
type seat struct {
	session uint64
	meta    *pb.NodeMeta
	report  *pb.Report // the newest; nil before the first
	opened  time.Time
	heard   time.Time
	told    id.View // the newest view it was sent; finishTold once it knows of the end
	roster  int     // version of the roster that it was sent
}

// finishTold marks a seat that knows of the end; no view has this number.
const finishTold = ^id.View(0)

// lives says whether the seat belongs to the very life that the view knows.
func (s *seat) lives(m *Member) bool {
	return s != nil && m != nil && s.meta.GetIncarnation() == string(m.Incarnation)
}

type director struct {
	timing   timing
	shards   int          // logical shards: the most trainers that a view can use
	exact    bool         // sums are exact: all trainers must have one arithmetic
	state    *pb.RunState // as committed
	began    time.Time    // when it took office
	now      time.Time
	trainers int // alive by gossip
	ticked   time.Time
	seats    map[id.Node]*seat
	round    *round
	feuds    feuds
	places   places
	known    struct { // the committed view, read once
		from *pb.View
		view View
	}
	restore struct {
		asked, known bool
		step         id.Step
	}
	recording  uint64                // metrics of steps below this are recorded or proposed
	parts      map[uint64]*gathering // of steps from there on, where trainers are at different ones
	told       map[string]bool       // keys of the events that are in the history, or proposed
	recovering time.Time             // when the loss of a member was seen; zero when all is well
	finishing  bool                  // the end is proposed
	finished   time.Time
	left       bool
	actions    []any
}

func newDirector(now time.Time, state *pb.RunState, shards int, exact bool, q ServerQuota, t timing) *director {
	d := &director{
		timing: t, shards: shards, exact: exact, state: state, began: now, now: now, ticked: now,
		feuds: newFeuds(), seats: map[id.Node]*seat{}, parts: map[uint64]*gathering{}, recording: recorded(state), told: map[string]bool{},
		places: places{quota: q, away: map[id.Node]time.Time{}, leads: map[string]reported{}, unwell: now},
	}
	for _, e := range state.GetEvents() {
		d.told[e.Key] = true
	}
	return d
}

// step takes one event and returns what is to be done about it, in order.
func (d *director) step(now time.Time, event any) []any {
	d.now, d.actions = now, nil
	switch e := event.(type) {
	case evOpened:
		d.open(e)
	case evReport:
		d.reported(e)
	case evClosed:
		if s := d.seats[e.name]; s != nil && s.session == e.session {
			d.close(e.name, e.why)
		}
	case evGone:
		d.gone(e)
	case evApplied:
		d.applied(e.entry)
	case evRestored:
		d.restore.known, d.restore.step = d.restore.asked, e.step
	case evTick:
		d.trainers = e.trainers
		d.noteElsewhere(e.elsewhere)
		d.forgivePause()
		d.dropSilent()
		if d.state.Finish == nil {
			d.placeServers()
		}
	}
	if d.state.Finish != nil {
		d.sayGoodbye()
		return d.actions
	}
	d.convene()
	d.conclude()
	d.finish()
	return d.actions
}

func (d *director) do(action any) { d.actions = append(d.actions, action) }

// view returns the committed view; nobody may change what it refers to.
func (d *director) view() View {
	if p := d.state.GetView(); p != d.known.from {
		d.known.from, d.known.view = p, viewFromProto(p)
	}
	return d.known.view
}

// send tells a node that has a seat.
func (d *director) send(name id.Node, down *pb.Down) {
	d.do(doSend{name, d.seats[name].session, down})
}

func (d *director) open(e evOpened) {
	old := d.seats[e.name]
	if old != nil && old.session > e.session {
		d.do(doHangUp{e.name, e.session}) // it was overtaken by the node's next one
		return
	}
	if why := d.unfit(e.meta); why != "" {
		d.refuse(e.name, e.session, e.meta, why)
		return
	}
	if old != nil {
		d.do(doHangUp{e.name, old.session})
	}
	d.seats[e.name] = &seat{session: e.session, meta: e.meta, opened: d.now, heard: d.now}
	d.noteOnce("joined/"+e.meta.GetIncarnation(),
		d.event("joined", e.name, "%s opened its session from %s (%s)", e.name, e.meta.GetAddr(), roles(e.meta)))
	d.tellView(e.name)
	m := d.view().member(e.name)
	switch {
	case m == nil:
	case !d.seats[e.name].lives(m):
		d.begin(fmt.Sprintf("%s has restarted", e.name), e.name, "it has restarted")
	case d.round != nil:
		d.freeze(e.name)
	}
}

// refuse sends a node away. A seat that another session of that name holds is not touched.
func (d *director) refuse(name id.Node, session uint64, meta *pb.NodeMeta, why string) {
	if s := d.seats[name]; s != nil && s.session == session {
		delete(d.seats, name)
	}
	d.noteOnce("refused/"+meta.GetIncarnation(), d.event("refused", name, "%s is refused: %s", name, why))
	d.do(doSend{name, session, &pb.Down{M: &pb.Down_Refusal{Refusal: &pb.Refusal{Why: why}}}})
}

// unfit says why a trainer cannot take part in this run, "" if it can.
func (d *director) unfit(m *pb.NodeMeta) string {
	v := d.state.GetView()
	switch {
	case !m.GetTrainer() || v == nil:
		return ""
	case !bytes.Equal(v.Data, m.Data):
		return "its data, or its file of weights, differ from those of the trainers in the run; give it the same files"
	case d.exact && v.Arithmetic != m.Arithmetic:
		return fmt.Sprintf("its kernels compute as %q, those of the run as %q, which gives other bits; use the same kind of processor, or sync.sum: fast", m.Arithmetic, v.Arithmetic)
	}
	return ""
}

// tellView sends the current view to a seat that has not seen it; every node is told,
// members and others, because a trainer must know when it is left out.
func (d *director) tellView(name id.Node) {
	v, s := d.state.GetView(), d.seats[name]
	if v == nil || s == nil || s.told >= id.View(v.Number) {
		return
	}
	s.told = id.View(v.Number)
	d.send(name, &pb.Down{M: &pb.Down_View{View: v}})
}

// freeze asks a member to take no further step in the current view.
func (d *director) freeze(name id.Node) {
	d.send(name, &pb.Down{M: &pb.Down_Freeze{Freeze: &pb.Freeze{View: d.state.GetView().GetNumber()}}})
}

func (d *director) reported(e evReport) {
	s := d.seats[e.name]
	if s == nil || s.session != e.session {
		// A node must not believe itself heard on a session that has no seat.
		d.do(doHangUp{e.name, e.session})
		return
	}
	d.noteLeads(e.name, e.report)
	d.places.hear(e.name, e.report)
	s.report, s.heard = e.report, d.now
	v := d.view()
	if !s.lives(v.member(e.name)) {
		return
	}
	d.record(e.report.Metrics)
	if done := e.report.Metrics; len(done) > 0 && done[0].Step < recorded(d.state) {
		d.acknowledge(e.name) // it missed the word, or did those steps again; a report has room for so many only
	}
	if e.report.Retired != "" {
		d.begin(fmt.Sprintf("%s computes no more: %s", e.name, e.report.Retired), e.name, e.report.Retired)
		d.round.gone[e.name] = e.report.Retired // whatever others have made of its silence
		return
	}
	if id.View(e.report.View) == v.Number {
		for _, x := range e.report.Suspects {
			if v.member(id.Node(x.Node)) != nil {
				d.begin(fmt.Sprintf("%s says of %s: %s", e.name, x.Node, x.Why), id.Node(x.Node), x.Why)
				d.accuse(cmp.Or(id.Node(x.By), e.name), id.Node(x.Node))
			}
		}
		if e.report.Broken {
			d.begin(fmt.Sprintf("the ring broke at %s", e.name), "", "")
		}
	}
	if id.View(e.report.Frozen) >= v.Number && d.round == nil {
		// A leader before this one began a round and did not live to end it.
		d.begin(fmt.Sprintf("%s has stopped in %v", e.name, v.Number), "", "")
	}
}

// close takes away the seat of a node whose session has ended.
func (d *director) close(name id.Node, why string) {
	inc := d.seats[name].meta.GetIncarnation()
	delete(d.seats, name)
	switch {
	case d.state.Finish != nil:
	case d.view().Rank(name, id.Incarnation(inc)) >= 0:
		d.begin(fmt.Sprintf("%s is gone: %s", name, why), name, why)
	default:
		d.note(d.event("lost", name, "%s is gone: %s", name, why))
	}
}

// gone hears that a process has died. One that has a session is left to its session:
// its end says the same, and a late word about an earlier life does no harm.
func (d *director) gone(e evGone) {
	if d.seats[e.name] == nil && d.state.Finish == nil && d.view().Rank(e.name, e.incarnation) >= 0 {
		d.begin(fmt.Sprintf("%s is gone: %s", e.name, e.why), e.name, e.why)
	}
}

// forgivePause keeps a pause of this process (its loop waited for Raft, or the whole
// machine stood still) from being taken for silence of everybody else.
func (d *director) forgivePause() {
	if pause := d.now.Sub(d.ticked); pause > d.timing.silence/3 {
		d.began = d.began.Add(pause)
		for _, s := range d.seats {
			s.heard = s.heard.Add(pause)
		}
		for node, since := range d.places.away {
			d.places.away[node] = since.Add(pause)
		}
	}
	d.ticked = d.now
}

// dropSilent ends the sessions of nodes that report no more, and misses the members
// that never opened one with this leader.
func (d *director) dropSilent() {
	for _, name := range sortedSeats(d.seats) {
		s := d.seats[name]
		if silent := d.now.Sub(s.heard); silent > d.timing.silence {
			d.do(doHangUp{name, s.session})
			d.close(name, fmt.Sprintf("no report for %d ms", silent.Milliseconds()))
		}
	}
	if d.now.Sub(d.began) > d.timing.silence {
		for _, m := range d.view().Members {
			d.gone(evGone{m.Node, m.Incarnation, "it has no session with the coordinator"})
		}
	}
}

// applied reacts to what the group has committed.
func (d *director) applied(e *pb.Entry) {
	if e.View != nil {
		d.viewApplied()
	}
	if len(e.Metrics) > 0 {
		for _, name := range sortedSeats(d.seats) {
			if d.seats[name].meta.GetTrainer() {
				d.acknowledge(name)
			}
		}
	}
}

// acknowledge tells a trainer which steps it need not report any more.
func (d *director) acknowledge(name id.Node) {
	d.send(name, &pb.Down{M: &pb.Down_Ack{Ack: &pb.Ack{Metrics: recorded(d.state)}}})
}

func sortedSeats(seats map[id.Node]*seat) []id.Node {
	names := make([]id.Node, 0, len(seats))
	for n := range seats {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
