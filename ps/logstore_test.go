package ps

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/musterml/muster/internal/raftlog"
	pb "github.com/musterml/muster/proto"
)

// testStore is a log store whose missing payloads come from fetch.
func testStore(t *testing.T, fetch func([]reference) error) (*raftlog.Store, *holder) {
	t.Helper()
	p := newPayloads(1, 1<<20)
	h := &holder{
		payloads: p, timeout: 2 * time.Second, stall: 50 * time.Millisecond,
		fetch: func(_ context.Context, refs []reference) error { return fetch(refs) },
	}
	return raftlog.NewMemory(&logPayloads{payloads: p, hold: func(refs []reference) error { return h.hold(context.Background(), refs) }}), h
}

// arrival makes the payload that a reference describes arrive.
func arrival(p *payloads, r reference) {
	got := p.get(r.length / 4)
	got.id, got.crc = r.id, r.crc
	p.arrive(got, time.Now())
}

func ref(source, seq uint64) reference {
	return reference{payloadID{source, seq}, 400, uint32(seq)}
}

func logOf(t *testing.T, index, term uint64, r reference) *raft.Log {
	t.Helper()
	e := entry{kind: pb.ParamEntry_PUSH, ref: r}
	data, err := e.encode()
	if err != nil {
		t.Fatal(err)
	}
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: data}
}

func span(t *testing.T, s *raftlog.Store) (first, last uint64) {
	t.Helper()
	first, err1 := s.FirstIndex()
	last, err2 := s.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return first, last
}

func TestStoreWaitsForPayload(t *testing.T) {
	s, h := testStore(t, func([]reference) error { return errors.New("must not fetch what is coming") })
	p := h.payloads
	p.opened(9)
	stored := make(chan error, 1)
	go func() { stored <- s.StoreLogs([]*raft.Log{logOf(t, 1, 1, ref(9, 1)), logOf(t, 2, 1, ref(9, 2))}) }()
	p.begins(payloadID{9, 1})
	arrival(p, ref(9, 1))
	p.ends(payloadID{9, 1})
	select {
	case err := <-stored:
		t.Fatalf("stored with a payload missing: %v", err)
	case <-time.After(10 * time.Millisecond):
	}
	if _, last := span(t, s); last != 0 {
		t.Fatal("visible before its payload is held")
	}
	arrival(p, ref(9, 2))
	if err := <-stored; err != nil {
		t.Fatal(err)
	}
	if p.logBytes() != 800 {
		t.Fatalf("%d bytes in the log", p.logBytes())
	}
}

// What a stream has passed over, what no stream brings, and what a stream that stalls
// owes is fetched; when nobody has it the store fails, and nothing is stored.
func TestStoreFetches(t *testing.T) {
	for name, prepare := range map[string]func(p *payloads){
		"no stream": func(*payloads) {},
		"passed over": func(p *payloads) {
			p.opened(9)
			p.begins(payloadID{9, 5})
		},
		"begun and dropped": func(p *payloads) {
			p.opened(9)
			p.begins(payloadID{9, 1})
			p.begins(payloadID{9, 2})
			p.ends(payloadID{9, 1})
		},
		"stalled":      func(p *payloads) { p.opened(9) },
		"stream ended": func(p *payloads) { p.opened(9); p.closed(9) },
	} {
		t.Run(name, func(t *testing.T) {
			var p *payloads
			available := false
			s, h := testStore(t, func(refs []reference) error {
				if !available {
					return errNotFound
				}
				for _, r := range refs {
					arrival(p, r)
				}
				return nil
			})
			p = h.payloads
			prepare(p)
			log := logOf(t, 1, 1, ref(9, 1))
			if err := s.StoreLog(log); !errors.Is(err, ErrPayload) || !errors.Is(err, errNotFound) {
				t.Fatalf("without the payload: %v", err)
			}
			if _, last := span(t, s); last != 0 {
				t.Fatal("stored without the payload")
			}
			available = true
			if err := s.StoreLog(log); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestStoreEndsWhenLeaderIsGone(t *testing.T) {
	for name, coming := range map[string]bool{"while it comes": true, "while it is fetched": false} {
		t.Run(name, func(t *testing.T) { storeEndsWhenLeaderIsGone(t, coming) })
	}
}

func storeEndsWhenLeaderIsGone(t *testing.T, coming bool) {
	s, h := testStore(t, nil)
	h.stall = time.Hour
	h.fetch = func(ctx context.Context, _ []reference) error { // the leader does not answer
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if coming {
		h.payloads.opened(9)
	}
	stored := make(chan error, 1)
	go func() { stored <- s.StoreLog(logOf(t, 1, 1, ref(9, 1))) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-stored:
			if !errors.Is(err, ErrPayload) {
				t.Fatal(err)
			}
			return
		case <-tick.C:
			h.leaderGone()
		}
	}
}

// A payload whose checksum or length is not what the log says does not count as held.
func TestStoreRefusesOtherBytes(t *testing.T) {
	s, h := testStore(t, func([]reference) error { return errNotFound })
	arrival(h.payloads, ref(9, 1))
	other := ref(9, 1)
	other.crc++
	if err := s.StoreLog(logOf(t, 1, 1, other)); !errors.Is(err, ErrPayload) {
		t.Fatal(err)
	}
	other = ref(9, 1)
	other.length += 4
	if err := s.StoreLog(logOf(t, 1, 1, other)); !errors.Is(err, ErrPayload) {
		t.Fatal(err)
	}
}

func TestTruncationIsCarriedOutByTheNextStore(t *testing.T) {
	s, h := testStore(t, func([]reference) error { return errNotFound })
	p := h.payloads
	for i := uint64(1); i <= 4; i++ {
		arrival(p, ref(9, i))
		if err := s.StoreLog(logOf(t, i, 1, ref(9, i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DeleteRange(3, 4); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLog(logOf(t, 3, 2, ref(8, 1))); err == nil {
		t.Fatal("stored without its payload")
	}
	var l raft.Log
	if err := s.GetLog(4, &l); err != nil || l.Term != 1 {
		t.Fatalf("after a store that failed Raft must find what it believes in: %v, term %d", err, l.Term)
	}
	arrival(p, ref(8, 1))
	if err := s.StoreLog(logOf(t, 3, 2, ref(8, 1))); err != nil {
		t.Fatal(err)
	}
	if first, last := span(t, s); first != 1 || last != 3 {
		t.Fatalf("log is [%d, %d]", first, last)
	}
	if err := s.GetLog(3, &l); err != nil || l.Term != 2 {
		t.Fatalf("%v, term %d", err, l.Term)
	}
	if p.logBytes() != 1200 || p.pin(payloadID{9, 4}) != nil {
		t.Fatalf("%d bytes; a truncated entry's payload is still held", p.logBytes())
	}
}

func TestCompactionReleasesPayloads(t *testing.T) {
	s, h := testStore(t, func([]reference) error { return errNotFound })
	p := h.payloads
	store := func(i uint64) {
		t.Helper()
		arrival(p, ref(9, i))
		if err := s.StoreLog(logOf(t, i, 1, ref(9, i))); err != nil {
			t.Fatal(err)
		}
	}
	for i := uint64(1); i <= 5; i++ {
		store(i)
	}
	if n := s.Trailing(1000, payloadSize); n != 2 {
		t.Fatalf("%d entries of 400 bytes in 1000", n)
	}
	held := p.pin(payloadID{9, 2}) // somebody still sends it
	if err := s.DeleteRange(1, 3); err != nil {
		t.Fatal(err)
	}
	if first, last := span(t, s); first != 4 || last != 5 || p.logBytes() != 800 {
		t.Fatalf("log is [%d, %d], %d bytes", first, last, p.logBytes())
	}
	var l raft.Log
	if err := s.GetLog(3, &l); !errors.Is(err, raft.ErrLogNotFound) {
		t.Fatal(err)
	}
	if p.freeBytes != 2*4*poolGrain {
		t.Fatalf("%d bytes free, want those of two payloads", p.freeBytes)
	}
	p.release(held)
	if p.freeBytes != 3*4*poolGrain {
		t.Fatalf("%d bytes free, want those of three payloads", p.freeBytes)
	}
	store(20) // behind a snapshot
	if first, last := span(t, s); first != 20 || last != 20 || p.logBytes() != 400 {
		t.Fatalf("log is [%d, %d], %d bytes", first, last, p.logBytes())
	}
}

func TestPendingPayloadsAreBounded(t *testing.T) {
	p := newPayloads(1, 1000)
	start := time.Now()
	for i := uint64(1); i <= 5; i++ {
		got := p.get(100)
		got.id = payloadID{9, i}
		p.arrive(got, start.Add(time.Duration(i)*time.Second))
	}
	if p.pendingBytes != 800 || p.held[payloadID{9, 3}] != nil || p.held[payloadID{9, 4}] == nil {
		t.Fatalf("%d bytes pending: %v", p.pendingBytes, p.held)
	}
	p.sweep(start.Add(4500 * time.Millisecond))
	if p.pendingBytes != 400 || len(p.held) != 1 {
		t.Fatalf("%d bytes pending after the sweep", p.pendingBytes)
	}
	arrival(p, ref(9, 5)) // again
	if p.pendingBytes != 400 || len(p.held) != 1 {
		t.Fatalf("%d bytes pending after a duplicate", p.pendingBytes)
	}
}
