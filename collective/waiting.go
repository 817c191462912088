package collective

import (
	"fmt"
	"time"

	"github.com/musterml/muster/internal/id"
)

// Waiting says what the current call waits for, of whom, and since when; ok is false while no call is running. Where
// more than one thing is missing it names the one that holds up the others. Any goroutine may ask at any time.
//
// A rank that has not begun the operation is seen by its predecessor, which waits "for it to begin"; every other rank
// waits for data from its own predecessor, and so following the names leads to the rank that is late.
func (r *Ring) Waiting() (what string, peer id.Node, since time.Time, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &r.call
	if !c.live || r.err != nil {
		return "", "", time.Time{}, false
	}
	at := func(ns int64) time.Time { return r.started.Add(time.Duration(ns)) }
	switch {
	case c.small:
		what, peer = r.missing()
		return fmt.Sprintf("%v of %v: %s", c.verb, c.op, what), peer, at(c.began), true
	case r.credited.Load() < c.seq && r.sendSeq.Load() == c.seq:
		what = fmt.Sprintf("%v of %v: for it to begin", c.verb, c.op)
		return what, r.next.peer.Node, at(c.began), true
	case r.recvSeq.Load() == c.seq && int(r.hopIn.Load()) < c.end:
		hop := int(r.hopIn.Load())
		what = fmt.Sprintf("%v of %v: %v, for data, hop %d of %d", c.verb, c.op, c.phase(hop), hop-c.first+1, c.end-c.first)
		return what, r.prev.peer.Node, at(r.moved.Load()), true
	}
	what = fmt.Sprintf("%v of %v: for it to take data", c.verb, c.op)
	return what, r.next.peer.Node, at(r.moved.Load()), true
}

// waitsFor is Waiting for the flight recorder.
func (r *Ring) waitsFor() (peer id.Node, since time.Time, ok bool) {
	_, peer, since, ok = r.Waiting()
	return peer, since, ok
}

// missing says what an operation of the short way waits for. Whoever is nearest of those that are missing on a side has
// not begun, or is cut off: those between would pass its contribution on at once.
func (r *Ring) missing() (what string, peer id.Node) {
	for _, l := range [...]*link{&r.prev, &r.next} {
		if n := r.came(l, r.call.seq); n < r.wholesFrom(l) {
			return "for its part", r.cfg.Peers[r.origin(l, n)].Node
		}
	}
	return "for it to take data", r.next.peer.Node
}

// Way is what the kernel tells of the connection that data take to the next rank.
type Way struct {
	To   id.Node
	Busy time.Duration // in which something was on its way, and the next rank had room for it; since the ring was formed
	Rate float64       // bytes per second at which what was sent last has arrived
}

// Way tells of the way to the next rank; ok is false where that is no connection (a world of one, memory), or nothing is known of it.
func (r *Ring) Way() (w Way, ok bool) {
	if r.world == 1 || r.next.lane != nil {
		return w, false
	}
	s, ok := observe(r.next.conn)
	return Way{To: r.next.peer.Node, Busy: s.Busy, Rate: float64(s.Rate)}, ok
}

// LastHeard is when the neighbours last gave a sign of life; ok is false in a world of one.
func (r *Ring) LastHeard() (prev, next time.Time, ok bool) {
	if r.world == 1 {
		return time.Time{}, time.Time{}, false
	}
	at := func(l *link) time.Time { return r.started.Add(time.Duration(l.heard.Load())) }
	return at(&r.prev), at(&r.next), true
}
