package membership

import (
	"fmt"
	"strings"
	"time"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// What the director writes down of a run: its events, and the figures of every step.

func (d *director) event(kind string, node id.Node, format string, args ...any) *pb.Event {
	return &pb.Event{
		Time: d.now.UnixNano(), Kind: kind, Node: string(node), Text: fmt.Sprintf(format, args...),
		View: d.state.GetView().GetNumber(), Step: recorded(d.state),
	}
}

// noteOnce is note for what happens once, although it is heard of again and again: from
// every report, and by every new leader.
func (d *director) noteOnce(key string, e *pb.Event) {
	if d.told[key] {
		return
	}
	d.told[key], e.Key = true, key
	d.note(e)
}

// note puts a line into the run's history.
func (d *director) note(e *pb.Event) {
	d.do(doPropose{&pb.Entry{Events: []*pb.Event{e}}})
}

// noteElsewhere tells of nodes that found each other too late: one cluster has two runs of the same job.
func (d *director) noteElsewhere(peers []Peer) {
	for _, p := range peers {
		d.noteOnce("elsewhere/"+p.Meta.Incarnation, d.event("elsewhere", p.Node,
			"%s at %s takes part in another run, %s, that was founded apart from this one; to have it in this run, stop it and start it again with --join to a node of this run",
			p.Node, p.Meta.Addr, p.Meta.Run))
	}
}

// noteLeads keeps the history of who leads which Raft group.
func (d *director) noteLeads(name id.Node, r *pb.Report) {
	for _, l := range r.Leads {
		d.noteOnce(fmt.Sprintf("leader/%s/%d", l.Group, l.Term),
			d.event("leader", name, "%s leads %s in term %d", name, l.Group, l.Term))
	}
}

// record proposes the steps that are not yet in the history. Every trainer of the
// view reports them; only the first report of a step counts, so each is there once.
func (d *director) record(metrics []*pb.StepMetrics) {
	var fresh []*pb.StepMetrics
	for _, m := range metrics {
		switch {
		case len(m.Parts) > 0:
			d.gather(m)
		case m.Step == d.recording:
			fresh = append(fresh, m)
			d.recording++
		}
	}
	for m := d.gathered(); m != nil; m = d.gathered() {
		fresh = append(fresh, m)
		d.recording++
	}
	if len(fresh) == 0 {
		return
	}
	if d.round != nil {
		d.round.figures = time.Time{}
	}
	entry := &pb.Entry{Metrics: fresh}
	if v := d.state.GetView(); !d.recovering.IsZero() && d.round == nil && d.recording > v.GetFrom() {
		entry.Events = []*pb.Event{d.event("recovered", "", "step %d is done in view %d, %d ms after the loss was seen",
			v.GetFrom(), v.GetNumber(), d.now.Sub(d.recovering).Milliseconds())}
		d.recovering = time.Time{}
	}
	d.do(doPropose{entry})
}

// lostMetrics stands in for the figures of steps before from, which are done: the state
// at from exists. Nobody is left who could report them, and without an entry for each
// step no later one could be recorded.
func (d *director) lostMetrics(from id.Step) []*pb.StepMetrics {
	var lost []*pb.StepMetrics
	for ; d.recording < uint64(from); d.recording++ {
		delete(d.parts, d.recording)
		lost = append(lost, &pb.StepMetrics{Step: d.recording, Unknown: true, Time: d.now.UnixNano()})
	}
	return lost
}

func roles(m *pb.NodeMeta) string {
	var r []string
	if m.GetServer() {
		r = append(r, "server")
	}
	if m.GetTrainer() {
		r = append(r, "trainer")
	}
	return strings.Join(r, ", ")
}
