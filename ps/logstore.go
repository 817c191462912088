package ps

import (
	"sync"

	"github.com/hashicorp/raft"
)

// logStore is the raft.LogStore of one replica, in memory. An entry is stored only when
// its payload is held, so Raft's "stored by a majority" covers the payload, and a leader,
// which has every committed entry, has every committed payload.
//
// A truncation is carried out by the store that follows it. Raft deletes a conflicting
// suffix and then stores the leader's entries in its place; if that store fails (a
// payload could not be had) Raft goes on believing in the old last index, never finds
// those entries again and the replica is stuck. So a deletion that reaches the end of
// the log does nothing, and StoreLogs replaces whatever stands from its first index on.
// A store that fails leaves the log as if the truncation had not been tried, which Raft
// allows: entries that conflict are by definition not committed.
//
// Compaction deletes a prefix and is carried out at once. (It would reach the end of the
// log only with TrailingLogs 0, which the replica never asks for.)
type logStore struct {
	payloads *payloads
	hold     func([]reference) error // returns when all are held and marked as logged

	mu      sync.RWMutex
	first   uint64 // index of entries[0]
	entries []storedEntry

	// Reused by StoreLogs, which only Raft's main goroutine calls.
	refs []reference
}

type storedEntry struct {
	log    raft.Log
	ref    reference
	hasRef bool
}

func newLogStore(p *payloads, hold func([]reference) error) *logStore {
	return &logStore{payloads: p, hold: hold}
}

// FirstIndex implements raft.LogStore.
func (s *logStore) FirstIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.entries) == 0 {
		return 0, nil
	}
	return s.first, nil
}

// LastIndex implements raft.LogStore.
func (s *logStore) LastIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.entries) == 0 {
		return 0, nil
	}
	return s.first + uint64(len(s.entries)) - 1, nil
}

// GetLog implements raft.LogStore.
func (s *logStore) GetLog(index uint64, log *raft.Log) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if index < s.first || index >= s.first+uint64(len(s.entries)) {
		return raft.ErrLogNotFound
	}
	*log = s.entries[index-s.first].log
	return nil
}

// StoreLog implements raft.LogStore.
func (s *logStore) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	stored := make([]storedEntry, len(logs))
	s.refs = s.refs[:0]
	for i, l := range logs {
		stored[i].log = *l
		if l.Type != raft.LogCommand {
			continue
		}
		// An entry that does not decode names no payload; the state machine refuses it.
		if e, err := decodeEntry(l.Data); err == nil {
			stored[i].ref, stored[i].hasRef = e.ref, true
			s.refs = append(s.refs, e.ref)
		}
	}
	if err := s.hold(s.refs); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	index := logs[0].Index
	if len(s.entries) > 0 {
		// Entries from index on are replaced. A gap before it follows the installation of
		// a snapshot, which makes everything earlier useless.
		end := s.first + uint64(len(s.entries))
		if index < s.first || index > end {
			s.drop(0, len(s.entries))
		} else {
			s.drop(int(index-s.first), len(s.entries))
		}
	}
	if len(s.entries) == 0 {
		s.first = index
	}
	s.entries = append(s.entries, stored...)
	return nil
}

// DeleteRange implements raft.LogStore.
func (s *logStore) DeleteRange(_, hi uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) == 0 {
		return nil
	}
	last := s.first + uint64(len(s.entries)) - 1
	if hi >= last || hi < s.first {
		return nil
	}
	// Everything before hi goes: Raft deletes prefixes, and holes cannot be kept.
	n := int(hi - s.first + 1)
	s.drop(0, n)
	s.first += uint64(n)
	return nil
}

// drop removes entries[lo:hi] and lets go of their payloads; the caller adjusts first.
func (s *logStore) drop(lo, hi int) {
	for _, e := range s.entries[lo:hi] {
		if e.hasRef {
			s.payloads.unlog(e.ref.id)
		}
	}
	n := copy(s.entries[lo:], s.entries[hi:])
	clear(s.entries[lo+n:])
	s.entries = s.entries[:lo+n]
}

// trailing is how many of the last entries have at most limit bytes of payload together.
func (s *logStore) trailing(limit int64) uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n, sum := uint64(0), int64(0)
	for i := len(s.entries) - 1; i >= 0; i-- {
		if sum += int64(s.entries[i].ref.length); sum > limit {
			break
		}
		n++
	}
	return n
}
