package membership

import (
	"fmt"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// How a run ends: the members agree that it is done, or one says that it cannot go on;
// then every node is told, saves its outputs, and is let go.

// finish ends the run when every member of the view says that the last step is done
// and committed, with the same weights, or when one says that nobody can go on.
func (d *director) finish() {
	v := d.view()
	if d.finishing || len(v.Members) == 0 {
		return
	}
	for _, m := range v.Members {
		if s := d.seats[m.Node]; s.lives(&m) && s.report.GetFailed() != "" {
			d.giveUp(m.Node, s.report.Failed)
			return
		}
	}
	if d.round != nil {
		return
	}
	var last *pb.Report
	for _, m := range v.Members {
		s := d.seats[m.Node]
		if !s.lives(&m) || !s.report.GetDone() || id.View(s.report.View) != v.Number {
			return
		}
		if last != nil && last.Digest != s.report.Digest {
			d.begin(fmt.Sprintf("%s ends with other weights", m.Node), m.Node, "its weights differ: "+s.report.Digest)
			d.round.diverged[m.Node] = true
			return
		}
		last = s.report
	}
	m := figures(d.state, last.Step)
	if m == nil {
		return // the last lines of the history are still on their way
	}
	d.finishing = true
	score := "accuracy"
	if m.Regression {
		score = "R²"
	}
	auc := ""
	if m.TestAuc > 0 {
		auc = fmt.Sprintf(", AUC %.4f", m.TestAuc)
	}
	d.do(doPropose{&pb.Entry{
		Finish: &pb.Finish{Step: last.Step, Digest: last.Digest, TestAccuracy: m.TestAccuracy, TestLoss: m.TestLoss, TestAuc: m.TestAuc, Regression: m.Regression, Time: d.now.UnixNano()},
		Events: []*pb.Event{d.event("finished", "", "all %d steps are done; held-out %s %.2f %%%s; weights %s", last.Step, score, 100*m.TestAccuracy, auc, last.Digest)},
	}})
}

// giveUp ends a run that cannot go on anywhere.
func (d *director) giveUp(node id.Node, why string) {
	d.finishing = true
	d.do(doPropose{&pb.Entry{
		Finish: &pb.Finish{Step: recorded(d.state), Failed: why, Time: d.now.UnixNano()},
		Events: []*pb.Event{d.event("failed", node, "the run ends: %s", why)},
	}})
}

// sayGoodbye tells the nodes that the run is over, waits until they have saved their
// outputs, and lets them go; the leader goes last, so that none loses its source.
func (d *director) sayGoodbye() {
	if d.finished.IsZero() {
		d.finished = d.now
	}
	waiting := 0
	for _, name := range sortedSeats(d.seats) {
		s := d.seats[name]
		if s.told != finishTold {
			s.told = finishTold
			d.send(name, &pb.Down{M: &pb.Down_Finish{Finish: d.state.Finish}})
		}
		if !s.report.GetSaved() {
			waiting++
		}
	}
	switch {
	case d.left || len(d.seats) == 0:
		return
	case d.now.Sub(d.began) < d.timing.silence && !d.allHere():
		return // a new leader does not know yet who else is there
	case waiting > 0 && d.now.Sub(d.finished) < d.timing.goodbye:
		return
	}
	d.left = true
	for _, name := range sortedSeats(d.seats) {
		d.send(name, &pb.Down{M: &pb.Down_Bye{Bye: &pb.Bye{}}})
	}
	d.do(doLeave{})
}

// allHere says whether everybody has a session with this leader: the servers that keep something, and as
// many trainers as gossip knows.
func (d *director) allHere() bool {
	if d.state.Founding == nil {
		return false
	}
	for _, g := range d.placement().Groups {
		for _, s := range g.Places {
			if d.seats[s.Node] == nil {
				return false
			}
		}
	}
	trainers := 0
	for _, s := range d.seats {
		if s.meta.GetTrainer() {
			trainers++
		}
	}
	return d.trainers > 0 && trainers >= d.trainers
}
