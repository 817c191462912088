package collective

import "time"

// sendLoop is the send goroutine: data and heartbeats to the next rank.
func (r *Ring) sendLoop() {
	defer r.wg.Done()
	l := &r.next
	beat := time.NewTicker(r.cfg.Heartbeat)
	defer beat.Stop()
	finished := uint64(0) // the operation whose part is done: its cursor is no longer ours
	for run := true; run; {
		var err error
		select {
		case <-r.failed:
			run = false
		case <-beat.C:
			h := r.header(kindBeat)
			err = l.write(&h, nil)
		case <-r.sendKick:
			run, err = r.pump(&finished)
		}
		if err != nil {
			r.lose(l, err)
		}
	}
	l.saveRest()
	r.letGo()
	r.sayLast(l)
	l.release()
}

// pump sends every chunk that may be sent now: the next rank has begun the operation, and the chunk is the own part or
// has come in complete. It returns false when the next rank has left and needs nothing more.
func (r *Ring) pump(finished *uint64) (bool, error) {
	l := &r.next
	for {
		left := l.left.Load() // before sendSeq: an operation begun after it was set fails at once
		seq := r.sendSeq.Load()
		if seq == *finished {
			return !left, nil
		}
		if left {
			return false, ErrLeft
		}
		c, out := &r.call, &r.outgoing
		if r.credited.Load() < seq || int64(out.count) >= int64(c.lead)+r.taken.Load() {
			return true, nil
		}
		select {
		case <-r.failed:
			return false, nil
		default:
		}
		h := r.header(kindData)
		h.step, h.bucket, h.seq = c.op.Step, c.op.Bucket, seq
		h.phase, h.hop, h.offset = c.phase(out.hop), uint16(out.hop), uint64(out.lo)
		payload := c.x.bytes(out.lo, out.hi(&c.timetable))
		if err := l.write(&h, payload); err != nil {
			return false, err
		}
		r.sentBytes.Add(uint64(len(payload)))
		out.next(&c.timetable)
		r.hopOut.Store(int64(out.hop))
		r.sent.Store(int64(out.count))
		kick(r.sentKick)
		if out.done {
			*finished = seq
			r.sideDone()
		}
	}
}

// answerLoop is the answer goroutine: heartbeats to the previous rank. (Calls are written by the caller itself.)
func (r *Ring) answerLoop() {
	defer r.wg.Done()
	l := &r.prev
	beat := time.NewTicker(r.cfg.Heartbeat)
	defer beat.Stop()
	for run := true; run; {
		select {
		case <-r.failed:
			run = false
		case <-r.answerKick:
			run = false
		case <-beat.C:
			h := r.header(kindBeat)
			if err := l.write(&h, nil); err != nil {
				r.lose(l, err)
			}
		}
	}
	r.sayLast(l)
	l.release()
}

// sayLast ends this direction of a link: with bye where the peer has left, else with what the ring ended with.
func (r *Ring) sayLast(l *link) {
	last, text := r.header(kindBye), []byte(nil)
	select {
	case <-r.failed:
		<-r.kicked
		r.mu.Lock()
		last, text = r.last, r.lastText
		r.mu.Unlock()
	default:
	}
	l.farewell(&last, text, time.Now().Add(r.linger()))
}

// watchLoop is the watch goroutine: it declares a silent neighbour dead.
func (r *Ring) watchLoop() {
	defer r.wg.Done()
	tick := time.NewTicker(r.cfg.Heartbeat)
	defer tick.Stop()
	p := patience{dead: int64(r.cfg.DeadAfter), last: r.now(), resumed: r.now()}
	for {
		select {
		case <-r.failed:
			return
		case <-tick.C:
		}
		p.tick(r.now())
		for _, l := range [...]*link{&r.prev, &r.next} {
			if p.lost(l.heard.Load()) && !l.left.Load() {
				r.lose(l, ErrSilent)
			}
		}
	}
}

// patience decides when silence is death. Times are nanoseconds on the ring's clock.
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

func (p *patience) lost(heard int64) bool { return p.last-max(heard, p.resumed) >= p.dead }
