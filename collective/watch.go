package collective

import (
	"net"
	"time"

	"github.com/musterml/muster/internal/pacing"
)

// When silence is death.
//
// A neighbour that lives gives a sign of life in every heartbeat, and whatever it sends is one. But a reader gets the bytes of a
// connection in order. Where a queue on the way overflows, as under a burst of our own, a packet is lost, and what comes behind
// it cannot be read until it has been sent again: 200 ms and a round trip later at the earliest, after twice that when it is lost
// once more. So, before a peer is taken for dead, the kernel is asked:
//
//   - Packets with data that have come meanwhile are a sign of life, whether they can be read or not. What the kernel of a
//     frozen process still has to send counts as well, as it always did where it could be read.
//   - Over a long way the silence must be longer than a packet takes that is lost twice. In a local network the promise to name
//     a dead peer within 500 ms is worth more, and there the queues are short. A way is as long as the shortest round trip that was ever
//     seen on it: one that is full for minutes does not become a long one. And none is taken to be longer than Config.Dial waits for.
//
// Rejected: acknowledgements as signs of life. The kernel of a frozen process gives them for ever.

// watchLoop is the watch goroutine: it declares a silent neighbour dead.
func (r *Ring) watchLoop() {
	defer r.wg.Done()
	tick := time.NewTicker(r.cfg.Heartbeat)
	defer tick.Stop()
	p := patience{dead: int64(r.cfg.DeadAfter), last: r.now(), resumed: r.now()}
	var doubts [2]doubt
	for {
		select {
		case <-r.failed:
			return
		case <-tick.C:
		}
		p.tick(r.now())
		for i, l := range [...]*link{&r.prev, &r.next} {
			if !l.left.Load() && doubts[i].lost(&p, l) {
				r.lose(l, ErrSilent)
			}
		}
	}
}

// patience measures silence. Times are nanoseconds on the ring's clock.
type patience struct {
	dead    int64 // silence that is death
	last    int64 // tick
	resumed int64 // since when this process has been awake
}

// tick is called once per heartbeat. One that comes very late means that this process stood still (stopped, swapped
// out, starved): what the peers sent meanwhile lies unread, and they get a full term before they are judged.
func (p *patience) tick(now int64) {
	if now-p.last > p.dead/2 {
		p.resumed = now
	}
	p.last = now
}

func (p *patience) silence(heard int64) int64 { return p.last - max(heard, p.resumed) }

// doubt is whether the peer of a link still lives. It begins at half of what is death: until then the kernel is not asked.
type doubt struct {
	open     bool
	arrived  uint32 // pacing.State.Arrived, when it began
	looked   bool   // before any doubt, for
	shortest time.Duration
}

// look asks the kernel.
func (d *doubt) look(l *link) (s pacing.State, ok bool) {
	s, ok = observe(l.conn)
	if !d.looked || s.Shortest < d.shortest {
		d.looked, d.shortest = ok, s.Shortest
	}
	s.Shortest = d.shortest
	return s, ok
}

// lost is called at every tick.
func (d *doubt) lost(p *patience, l *link) bool {
	if !d.looked {
		d.look(l)
	}
	silence := p.silence(l.heard.Load())
	if silence < p.dead/2 {
		d.open = false
		return false
	}
	s, ok := d.look(l)
	switch {
	case !ok:
		return silence >= p.dead
	case d.open && s.Arrived != d.arrived:
		d.open = false
		l.heard.Store(p.last)
		return false
	}
	d.open, d.arrived = true, s.Arrived
	return silence >= max(p.dead, lostTwice(s))
}

// lostTwice is how long a packet takes at most that is lost twice on a long way: TCP sends it again after resend and a round trip, and
// then after twice that.
func lostTwice(s pacing.State) int64 {
	const resend = 200 * time.Millisecond // the least on Linux
	if !s.Far() {
		return 0
	}
	rtt := min(s.RTT, AnswerWithin)
	return int64(3*(resend+rtt) + rtt)
}

// observed is a connection that is not TCP itself, and can say what the kernel knows of it.
type observed interface{ observe() (pacing.State, bool) }

func observe(conn net.Conn) (pacing.State, bool) {
	if c, ok := conn.(observed); ok {
		return c.observe()
	}
	return pacing.Observe(conn)
}
