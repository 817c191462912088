package collective

import (
	"errors"
	"time"
)

// How a ring ends. Whoever finds a reason (a reader, the watch, a caller) calls fail; the first reason counts. Then
//
//  1. failed is closed, and every read and write is interrupted by a deadline: reads at once, writes after a short
//     grace, on a dead link at once.
//  2. send and receive stop, and give the caller's memory back (released): the pending call returns.
//  3. The writers end the frame they were in, and write the last one: an abort or a bye; to a peer that is taken for dead, too,
//     but without waiting: a wire may be broken in one direction only, and who is cut off must not blame who hangs up.
//     The readers go on reading until the peer's last frame, for at most the linger time.
//  4. The last user of each connection closes it.
//
// A rank that is told of an abort fails in the same way, so the news runs round the ring in both directions at once,
// and a link is never closed over the head of a peer that still reads.

// grace is how long a write that has begun may go on before it is interrupted: a peer that reads needs far less.
func (r *Ring) grace() time.Duration { return r.cfg.Heartbeat }

// linger is how long a peer has to answer the last frame with its own.
func (r *Ring) linger() time.Duration { return r.cfg.DeadAfter }

// fail ends the ring, unless it has ended already. dead is the link that is of no more use, if any.
func (r *Ring) fail(err error, dead *link) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failLocked(err, dead)
}

func (r *Ring) failLocked(err error, dead *link) error {
	if r.err != nil {
		return r.err
	}
	r.err = err
	r.last = r.header(kindAbort)
	n := notice{origin: r.cfg.Peers[r.cfg.Rank].Node, reason: err.Error()}
	switch e := err.(type) { // not errors.As: the cause of an abort may be anything
	case *PeerError:
		n.suspect = e.Peer
		r.cfg.Log.Warn().Err(err).Stringer("view", r.cfg.View).Msg("ring broken")
	case *AbortError:
		e.Op, e.Phase, e.Waited = r.doingLocked(&r.prev)
		n = notice{origin: e.Origin, suspect: e.Suspect, reason: e.Reason}
		for _, l := range [...]*link{&r.prev, &r.next} { // nobody need wait once more for whom another has missed
			// Nor for who says that it has missed this rank.
			if e.Suspect != "" && l.peer.Node == e.Suspect || e.Suspect == r.cfg.Peers[r.cfg.Rank].Node && l.peer.Node == e.Origin {
				l.dead.Store(true)
			}
		}
		r.cfg.Log.Info().Err(err).Stringer("view", r.cfg.View).Msg("ring aborted")
	default: // ErrClosed
		r.last = r.header(kindBye)
		if r.last.seq = r.call.seq; r.call.live {
			r.last.seq--
		}
	}
	if r.last.kind == kindAbort {
		r.lastText = n.encode()
		r.last.step, r.last.bucket = r.call.op.Step, r.call.op.Bucket
	}
	if dead != nil {
		dead.dead.Store(true)
	}
	close(r.failed)
	now := time.Now()
	for _, l := range [...]*link{&r.prev, &r.next} {
		if !l.up {
			continue
		}
		_ = l.conn.SetReadDeadline(now)
		if l.dead.Load() {
			_ = l.conn.SetWriteDeadline(now)
		} else {
			_ = l.conn.SetWriteDeadline(now.Add(r.grace()))
		}
	}
	close(r.kicked)
	r.seat.idle.Reset(time.Nanosecond) // gives the seat back
	return err
}

// lose ends the ring because of the peer at the other end of l. One that is there but does the wrong thing is told so
// like the others; else it would take the closed connection for our failure, and blame us.
func (r *Ring) lose(l *link, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	dead := l
	if misbehaves(err) {
		dead = nil
	}
	_ = r.failLocked(r.peerErrorLocked(l, err), dead)
}

// loseWriting is lose for an error that a write has met. The peer has hung up, and its last frame, which says why, may not
// be read yet: whoever reads has a moment for that.
func (r *Ring) loseWriting(l *link, err error) {
	if misbehaves(err) {
		r.lose(l, err)
	} else if !l.hungUp.Swap(true) {
		time.AfterFunc(hearOut, func() { r.lose(l, err) })
	}
}

// misbehaves says of an error whether the peer is there, but does the wrong thing.
func misbehaves(err error) bool {
	return errors.Is(err, ErrProtocol) || errors.Is(err, ErrMismatch) || errors.Is(err, ErrLeft)
}

const hearOut = 10 * time.Millisecond

func (r *Ring) peerErrorLocked(l *link, err error) *PeerError {
	e := &PeerError{Peer: l.peer.Node, Err: err}
	e.Op, e.Phase, e.Waited = r.doingLocked(l)
	return e
}

// doingLocked says in which operation the ring is, how far it has come towards a link, and since when: since it began, or
// since the link's peer was last heard where that is longer.
func (r *Ring) doingLocked(l *link) (op Op, phase string, waited time.Duration) {
	now, c := r.now(), &r.call
	waited = time.Duration(now - l.heard.Load())
	if !c.live {
		return Op{}, phaseNone.String(), waited
	}
	hop := r.hopIn.Load()
	if l == &r.next {
		hop = r.hopOut.Load()
	}
	phase = c.phase(min(int(hop), c.end-1)).String()
	if c.small {
		phase = phaseExchange.String()
	}
	return c.op, phase, max(waited, time.Duration(now-c.began))
}

// giveUp begins an abort on this rank.
func (r *Ring) giveUp(cause error) {
	reason := "no reason given"
	if cause != nil {
		reason = cause.Error()
	}
	_ = r.fail(&AbortError{Origin: r.cfg.Peers[r.cfg.Rank].Node, Reason: reason, Cause: cause}, nil)
}

// letGo is called once by send and once by receive, when they will not touch the caller's memory again.
func (r *Ring) letGo() {
	if r.holders.Add(-1) == 0 {
		close(r.released)
	}
}

// Abort gives the ring up, on every rank: pending and later calls return an *AbortError with this cause. It returns
// when the neighbours have answered or their time is up (Config.DeadAfter) and every goroutine of the ring has ended.
// After a failure, or a second time, it only waits.
func (r *Ring) Abort(cause error) {
	r.giveUp(cause)
	r.wg.Wait()
}

// Close leaves the ring in peace: the other ranks complete what does not need this one, and fail with ErrLeft at what
// does. Called while an operation is pending it fails that with ErrClosed. It must be called on every ring that
// Join returned, also after a failure; it waits for the ring's goroutines as Abort does.
func (r *Ring) Close() error {
	_ = r.fail(ErrClosed, nil)
	r.wg.Wait()
	return nil
}
