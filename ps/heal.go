package ps

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/journal"
)

// What a disk has damaged is healed from the other replicas.
//
// A payload is most of what is on a disk. Where one is damaged the log's entry, which
// says its name and checksum, is whole: the replica still knows which entries it has
// stored, and may vote; it lacks bytes that a majority stored. So it asks the others for
// the payload by name or, where they have cut their logs, for the state after the entry.
// The entry itself is not applied before.
//
// Damage to an entry or a snapshot is another matter: what the replica has stored is no
// longer known, so it must not vote under its identity any more; see raftgroup.

// ErrUnhealed is returned when no replica of a shard has what the disk has damaged here.
var ErrUnhealed = errors.New("ps: damaged on the disk of every replica")

type lostPayload struct {
	index  uint64 // of the entry
	ref    reference
	damage *journal.Damage // nil: it is not there at all
}

func (l *lostPayload) String() string {
	if l.damage == nil {
		return fmt.Sprintf("the payload of entry %d is not on the disk", l.index)
	}
	return fmt.Sprintf("the payload of entry %d: %v", l.index, l.damage)
}

// healer gets lost payloads back, in the order of the log.
type healer struct {
	mu     sync.Mutex
	lost   []lostPayload
	healed chan struct{} // closed and made anew when one is healed
}

func newHealer(lost []lostPayload) *healer {
	return &healer{lost: lost, healed: make(chan struct{})}
}

// next is the first that is lost; ok is false when there is none.
func (h *healer) next() (l lostPayload, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.lost) == 0 {
		return l, false
	}
	return h.lost[0], true
}

func (h *healer) done() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost = h.lost[1:]
	close(h.healed)
	h.healed = make(chan struct{})
}

// wait returns when the payload of the entry is not lost, or no longer.
func (h *healer) wait(ctx context.Context, index uint64) {
	for {
		h.mu.Lock()
		healed := h.healed
		lost := len(h.lost) > 0 && h.lost[0].index <= index
		h.mu.Unlock()
		if !lost {
			return
		}
		select {
		case <-healed:
		case <-ctx.Done():
			return
		}
	}
}

// heal gets back what is lost, until all of it is there or no replica has it.
func (r *replica) heal() {
	const pause = 100 * time.Millisecond
	const patience = 20 // pauses in which every replica must have said that it has nothing
	f := &fetcher{
		payloads: r.payloads, candidates: r.candidates, dial: r.dial,
		limit: r.maxPayload, patience: r.cfg.Patience,
	}
	defer f.close()
	refused := 0
	for {
		l, ok := r.healer.next()
		if !ok {
			return
		}
		done, everybody := r.healOne(f, l)
		switch {
		case done:
			refused = 0
			r.healer.done()
			continue
		case everybody:
			refused++
		}
		if refused > patience {
			r.fence(fmt.Errorf("%w: %v; no replica of %v has it whole; begin anew from a checkpoint, with another --data-dir", ErrUnhealed, &l, r.shard))
			return
		}
		select {
		case <-time.After(pause):
		case <-r.ctx.Done():
			return
		}
	}
}

// healOne tries once; everybody says that all other replicas answered, and have nothing.
func (r *replica) healOne(f *fetcher, l lostPayload) (done, everybody bool) {
	if r.state.has(l.index) {
		return true, false // a snapshot covers it
	}
	everybody = true
	for _, to := range r.candidates() {
		got, err := f.from(r.ctx, to, []reference{l.ref})
		if got > 0 && len(r.payloads.log([]reference{l.ref}, nil)) == 0 {
			r.log.Warn().Str("from", string(to.node)).Msgf("healed %v", &l)
			if p := r.payloads.pin(l.ref.id); p != nil {
				err := r.entries.Rewrite(l.index, l.ref.id.source, l.ref.id.seq, floats.Bytes(p.data))
				if err != nil {
					r.log.Warn().Err(err).Msg("what was healed could not be written; it is healed again when the node starts anew")
				}
				r.payloads.release(p)
			}
			return true, false
		}
		if err == nil {
			err = r.fetchStateFrom(to, l.index)
		}
		if err == nil {
			r.log.Warn().Str("from", string(to.node)).Msgf("has the state of another replica instead of %v", &l)
			r.whole.Store(true)
			poke(r.cut) // the disk needs a snapshot of it
			return true, false
		}
		everybody = everybody && errors.Is(err, errNotFound)
	}
	return false, everybody
}
