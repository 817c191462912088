package collective

import (
	"time"

	"github.com/musterml/muster/internal/flight"
	"github.com/musterml/muster/internal/id"
)

// What the flight recorder (Config.Flight) is told of an operation, and how it is known.

// tally is what is noted of the current operation on its way. Its owner is who reads from the previous rank on the long way, the caller on the
// short one; the caller reads it when both sides are done.
type tally struct {
	data    int64 // nanoseconds since the operation began, until the first data came in, or all of the short way
	reduced int64 // until this rank's segment was the sum of all
	waited  int64 // the longest time without data
	peer    id.Node
}

func (t *tally) wait(peer id.Node, ns int64) {
	if ns > t.waited {
		t.waited, t.peer = ns, peer
	}
}

// tallyFrame is called by receive when a frame of data has come in at the ring's time now; at is what comes next.
func (r *Ring) tallyFrame(now int64, at *cursor) {
	c, t := &r.call, &r.tally
	if t.data == 0 {
		t.data = now - c.began
	}
	if c.verb == verbAllReduce && t.reduced == 0 && at.round == at.rounds-1 && at.hop >= r.world-1 {
		t.reduced = now - c.began
	}
}

// recordBegin tells the recorder that the current operation is under way.
func (r *Ring) recordBegin() flight.Mark {
	if r.cfg.Flight == nil {
		return flight.Mark{}
	}
	c := &r.call
	s := flight.Span{
		What: c.verb.String(), Track: flight.Ring, View: r.cfg.View, Step: c.op.Step, Bucket: c.op.Bucket,
		Bytes: len(c.x.raw), Transport: r.transport, Waits: r.waits,
	}
	if c.reduce != 0 {
		s.Of = c.reduce.String()
	}
	return r.cfg.Flight.Begin(s)
}

// recordEnd tells the recorder how it ended. Nobody but the caller works on the operation any more.
func (r *Ring) recordEnd(m flight.Mark, err error) {
	if r.cfg.Flight == nil {
		return
	}
	c, t := &r.call, r.tally
	switch e := err.(type) {
	case *PeerError:
		t.peer, t.waited = e.Peer, int64(e.Waited)
	case *AbortError:
		t.peer, t.waited = e.Suspect, r.now()-c.began
	}
	if err == nil && !c.small {
		late := int64(0) // the next rank, of which only its call tells; one that came before this rank's own was not waited for
		if called := r.called[c.seq&1].Load(); called > c.began {
			late = called - c.began
		}
		if late > t.waited-t.waited/8 { // what it held up came late as well
			t.waited, t.peer = late, r.next.peer.Node
		}
	}
	r.cfg.Flight.End(m, flight.Outcome{
		Err: err, Data: time.Duration(t.data), Reduced: time.Duration(t.reduced), Peer: t.peer, Waited: time.Duration(t.waited),
	})
}

// transportOf names the way to both neighbours: "tcp", or "shared memory, tcp" where they differ.
func transportOf(prev, next *link) string {
	a, b := prev.over(), next.over()
	if a == b {
		return a
	}
	return a + ", " + b
}
