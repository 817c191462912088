package cuda

import (
	"errors"
	"unsafe"

	"github.com/musterml/muster/trainer/device"
)

// How contents come to the host while the GPU goes on: by a second queue, that of copies. An event orders a copy behind what
// was asked for before it, and another tells when it is done. So gradients leave the GPU bucket by bucket during the backward
// pass, into the host's slices where they are locked (lock.go), else through pinned memory. The host waits for nothing but those events, in their order, in Sync: by then all has been asked for.

// handover is what is on its way to the host since the last Sync.
type handover struct {
	copies queue
	pieces []piece
	tells  []tell
	events []event // as many as have ever been needed at once
	used   int     // of events
}

// piece is elements [from, to) of a port that is bound out to memory that is not locked.
type piece struct {
	m        *memory
	from, to int
}

// tell is who is told that the first so many pieces have come.
type tell struct {
	done   event
	pieces int
	n      int
	told   func(n int)
}

// Flush implements device.Stream.
func (s *stream) Flush(b device.Buffer) {
	m, ok := b.Mem.(*memory)
	if !ok || m.owner != s || m.out == nil || b.Off < 0 || b.Off > len(m.out) {
		s.fail(errors.New("flush: not a part of a port of this stream that is bound out"))
		return
	}
	to := min(b.Off+b.Len, len(m.out))
	if s.issue(); s.err != nil || to <= b.Off {
		return
	}
	if s.hasAsked { // since the copies waited last
		s.hasAsked = false
		if e := s.event(); e != nil {
			s.asked(s.q.record(e))
			s.asked(s.handover.copies.after(e))
		}
	}
	place := m.staged
	if m.direct {
		place = bytesOf(m.out)
	}
	s.asked(s.handover.copies.read(place[4*b.Off:4*to], m.at+pointer(4*b.Off)))
	if !m.direct {
		s.handover.pieces = append(s.handover.pieces, piece{m, b.Off, to})
	}
}

// Tell implements device.Stream.
func (s *stream) Tell(n int, told func(n int)) {
	h := &s.handover
	if s.err != nil {
		return
	}
	if e := s.event(); e != nil {
		s.asked(h.copies.record(e))
		h.tells = append(h.tells, tell{e, len(h.pieces), n, told})
	}
}

// event is one that nothing waits for.
func (s *stream) event() event {
	h := &s.handover
	if h.used == len(h.events) {
		e, err := s.d.gpu.newEvent()
		if err != nil {
			s.asked(err)
			return nil
		}
		h.events = append(h.events, e)
	}
	h.used++
	return h.events[h.used-1]
}

// settle waits until all that was asked for is done, and what was flushed has come.
func (s *stream) settle() {
	h := &s.handover
	s.issue()
	come := 0
	for _, t := range h.tells {
		if s.broken == nil {
			s.asked(t.done.wait())
		}
		if s.err == nil {
			deliver(h.pieces[come:t.pieces])
			come = t.pieces
			t.told(t.n)
		}
	}
	if s.broken == nil {
		s.asked(s.q.sync())
	}
	if s.broken == nil {
		s.asked(h.copies.sync())
	}
	if s.err == nil {
		deliver(h.pieces[come:])
	}
	clear(h.pieces)
	clear(h.tells)
	h.pieces, h.tells, h.used = h.pieces[:0], h.tells[:0], 0
}

// deliver copies pieces that have come from pinned memory to where they were bound.
func deliver(pieces []piece) {
	for _, p := range pieces {
		copy(p.m.out[p.from:p.to], unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(p.m.staged))), len(p.m.out))[p.from:])
	}
}

func (h *handover) close() (errs []error) {
	for _, e := range h.events {
		errs = append(errs, e.close())
	}
	if h.copies != nil {
		errs = append(errs, h.copies.close())
	}
	return errs
}
