package collective

import (
	"context"
	"runtime"
	"time"
)

// The caller drives. A goroutine that is woken to read a few bytes, wakes another to add them and a third to send them
// on, costs more than the bytes do. So whoever calls an operation first does all of its work alone: it takes the seat
// (the roles of both links' readers), and asks the connections and lanes in turn what they have and what they take. It
// sleeps only when nothing has moved for a while, and then the ring's goroutines do the work, as they do between
// operations, and where a connection cannot be asked (TLS between hosts). At the first sign of progress it tries again.
//
// The seat is kept for a moment after an operation: a step makes several, and to wake the goroutines in between would
// cost what was saved. Until then nobody reads; so a failure may be seen that much later.

// seat is who reads.
type seat struct {
	role
	taken bool        // by the caller
	busy  bool        // an operation runs
	idle  *time.Timer // gives it back
}

const (
	seatKeep   = time.Millisecond
	drivePolls = 2000                   // without progress, then the caller sleeps
	driveFor   = 200 * time.Microsecond // that long a wait for sockets counts as a tenth of that
)

// canDrive: both links can be asked.
func (r *Ring) canDrive() bool {
	return (r.prev.lane != nil || r.prev.prompt != nil) && (r.next.lane != nil || r.next.prompt != nil)
}

// sit takes the seat, unless a reader is at work and the caller does not want to wait for it, or the ring has failed: a
// reader of a failed ring stays until the peer's last frame has come.
func (r *Ring) sit(wait bool) {
	if !r.canDrive() {
		return
	}
	s := &r.seat
	s.Lock()
	defer s.Unlock()
	s.busy = true
	if s.taken {
		r.driving = true
		return
	}
	for i, l := range [...]*link{&r.prev, &r.next} {
		if !r.takeRole(l.bulk.role, wait) {
			if i > 0 {
				r.prev.bulk.role.Unlock()
				r.prev.laneTurnLater()
			}
			s.busy = false
			return
		}
		if l.lane != nil {
			l.lane.in.readerDozing.Store(0)
		}
	}
	s.taken, r.driving = true, true
}

func (r *Ring) takeRole(a role, wait bool) bool {
	if !wait {
		return a.TryLock()
	}
	select {
	case a <- struct{}{}:
		return true
	case <-r.failed:
		return false
	}
}

// rise ends an operation.
func (r *Ring) rise() {
	s := &r.seat
	s.Lock()
	defer s.Unlock()
	if s.taken {
		s.busy, r.driving = false, false
		s.idle.Reset(seatKeep)
	}
}

// stand gives the seat to the ring's goroutines, unless an operation runs.
func (r *Ring) stand() {
	s := &r.seat
	s.Lock()
	defer s.Unlock()
	if !s.taken || s.busy {
		return
	}
	s.taken = false
	for _, l := range [...]*link{&r.prev, &r.next} {
		l.bulk.role.Unlock()
		l.laneTurnLater()
	}
}

// laneTurnLater lets the lane's goroutine look, and doze.
func (l *link) laneTurnLater() {
	if l.lane != nil {
		kick(l.laneKick)
	}
}

// drive makes what progress it can, and returns true when the operation is complete on this rank.
func (r *Ring) drive(ctx context.Context) bool {
	if !r.seat.taken { // only this goroutine takes it
		return r.handOver()
	}
	for idle := 0; idle < r.cfg.drivePolls; {
		moved, done := r.poll(idle)
		if done {
			return true
		}
		select {
		case <-r.failed:
			idle = r.cfg.drivePolls
		case <-ctx.Done():
			idle = r.cfg.drivePolls
		default:
		}
		if moved {
			idle = 0
			continue
		}
		idle = r.pause(idle)
	}
	s := &r.seat
	s.Lock()
	s.busy, r.driving = false, false
	s.Unlock()
	r.stand()
	return r.handOver()
}

// handOver leaves reading to the ring's goroutines, and sees to it that what is to be written is.
func (r *Ring) handOver() (done bool) {
	if r.call.small {
		return r.exchangeStep(true)
	}
	kick(r.sendKick)
	r.flushCall(true)
	return false
}

// pause lets a little time pass when nothing has moved, and counts it. First it offers the core to whoever else wants
// it, which with more ranks than cores is the one waited for (four ranks on two cores: 16 us instead of 140 for four
// bytes, with 20 to 40 offers). Then it lets sockets wake this very thread, but not before it has waited for as long as that takes: who
// sleeps is late by 25 us, so that the peer sleeps as well, and so on for ever (two ranks: 29 us instead of 5 now and then, with 32
// offers or fewer). With cores for all it does so, too, when an offer was taken: two ranks that the kernel has put on one core stay
// there as long as they only offer, but one that sleeps is woken on a core of its own.
func (r *Ring) pause(idle int) int {
	const offers, taken = 64, 10 * time.Microsecond
	if idle < offers {
		began := r.now()
		yield()
		if r.crowded || r.now()-began < int64(taken) {
			return idle + 1
		}
	}
	if awaitSockets(&r.prev, &r.next, driveFor) {
		return idle + drivePolls/10
	}
	if idle < offers {
		nap()
	} else if yield(); idle%16 == 0 {
		runtime.Gosched()
	}
	return idle + 1
}

// poll does what can be done now. It asks a link only for what is still to come: a read that finds nothing costs as much as
// one that finds a small message. From time to time it asks nevertheless, for an abort.
func (r *Ring) poll(idle int) (moved, done bool) {
	c, others := &r.call, idle%16 == 15
	if c.small {
		at := r.whole.done
		if r.exchangeStep(false) {
			return true, true
		}
		moved = at != r.whole.done
		if others || r.came(&r.prev, c.seq) < r.whole.right {
			moved = r.ask(&r.prev) || moved
		}
		if others || r.came(&r.next, c.seq) < r.whole.left {
			moved = r.ask(&r.next) || moved
		}
		return moved, false
	}
	if others || r.recvDone != c.seq {
		moved = r.ask(&r.prev)
	}
	if others || r.credited.Load() < c.seq { // the next rank has little else to say
		moved = r.ask(&r.next) || moved
	}
	if r.calling {
		r.flushCall(false)
	}
	at := r.sent.Load()
	if run, err := r.pump(false); err != nil {
		r.loseWriting(&r.next, err)
	} else if !run {
		kick(r.sendKick) // the next rank has left: send says goodbye
	}
	return moved || at != r.sent.Load(), r.open.Load() == 0 && !r.calling
}

// ask takes in what has come over a link.
func (r *Ring) ask(l *link) bool {
	in := l.bulk
	got, left, open := in.got, len(in.dst), in.open
	err := r.absorb(l, in, false)
	switch err {
	case nil:
		return true
	case errNotNow:
		return got != in.got || left != len(in.dst) || open != in.open
	}
	r.endReading(l, err)
	return false
}
