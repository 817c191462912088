package raftlog

import (
	"sync"

	"github.com/hashicorp/raft"

	"github.com/musterml/muster/internal/journal"
)

// Payloads is what the entries of a log refer to. Its methods are called by Raft's main
// goroutine, or with the Store locked: they must not call the Store.
type Payloads interface {
	// Hold returns nil once every payload of the entries is held, for each entry once more.
	Hold(logs []*raft.Log) error
	// Drop takes that back for one entry.
	Drop(log *raft.Log)
	// Bytes is the payload of an entry that is held, and its name; false where it has none.
	Bytes(log *raft.Log) (a, b uint64, data []byte, ok bool)
	// Load is given every payload that the disk has, some that no entry refers to any more;
	// damaged ones without data, with what is wrong.
	Load(a, b uint64, data []byte, damage *journal.Damage)
	// Loaded is given the entries that the disk has, once all payloads are loaded.
	Loaded(logs []raft.Log)
}

// nothing is the payloads of a log without.
type nothing struct{}

func (nothing) Hold([]*raft.Log) error                              { return nil }
func (nothing) Drop(*raft.Log)                                      {}
func (nothing) Bytes(*raft.Log) (a, b uint64, data []byte, ok bool) { return 0, 0, nil, false }
func (nothing) Load(uint64, uint64, []byte, *journal.Damage)        {}
func (nothing) Loaded([]raft.Log)                                   {}

// Store implements raft.LogStore. Safe for concurrent use, as Raft needs it: one
// goroutine writes.
type Store struct {
	payloads Payloads
	journal  *journal.Journal // nil: in memory only

	mu      sync.RWMutex
	first   uint64 // index of entries[0]
	entries []raft.Log

	// Reused by StoreLogs.
	records []journal.Record
	bodies  []byte
}

// NewMemory makes an empty log that ends with the process. payloads may be nil.
func NewMemory(payloads Payloads) *Store {
	if payloads == nil {
		payloads = nothing{}
	}
	return &Store{payloads: payloads}
}

// FirstIndex implements raft.LogStore.
func (s *Store) FirstIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.entries) == 0 {
		return 0, nil
	}
	return s.first, nil
}

// LastIndex implements raft.LogStore.
func (s *Store) LastIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.entries) == 0 {
		return 0, nil
	}
	return s.first + uint64(len(s.entries)) - 1, nil
}

// GetLog implements raft.LogStore.
func (s *Store) GetLog(index uint64, log *raft.Log) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if index < s.first || index >= s.first+uint64(len(s.entries)) {
		return raft.ErrLogNotFound
	}
	*log = s.entries[index-s.first]
	return nil
}

// StoreLog implements raft.LogStore.
func (s *Store) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	if err := s.payloads.Hold(logs); err != nil {
		return err
	}
	if err := s.persist(logs); err != nil {
		for _, l := range logs {
			s.payloads.Drop(l)
		}
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeRoom(logs[0].Index)
	for _, l := range logs {
		s.entries = append(s.entries, *l)
	}
	return nil
}

// makeRoom drops the entries from index on, which another takes the place of. A gap
// before it follows the installation of a snapshot, which makes everything earlier useless.
func (s *Store) makeRoom(index uint64) {
	if end := s.first + uint64(len(s.entries)); index < s.first || index > end {
		s.drop(0, len(s.entries))
	} else {
		s.drop(int(index-s.first), len(s.entries))
	}
	if len(s.entries) == 0 {
		s.first = index
	}
}

// DeleteRange implements raft.LogStore.
func (s *Store) DeleteRange(_, hi uint64) error {
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
	if s.journal == nil {
		return nil
	}
	return s.journal.Trim(s.first)
}

// drop removes entries[lo:hi] and lets go of their payloads; the caller adjusts first.
func (s *Store) drop(lo, hi int) {
	for i := lo; i < hi; i++ {
		s.payloads.Drop(&s.entries[i])
	}
	n := copy(s.entries[lo:], s.entries[hi:])
	clear(s.entries[lo+n:])
	s.entries = s.entries[:lo+n]
}

// Trailing is how many of the last entries have at most limit bytes together, counted by size.
func (s *Store) Trailing(limit int64, size func(*raft.Log) int64) uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n, sum := uint64(0), int64(0)
	for i := len(s.entries) - 1; i >= 0; i-- {
		if sum += size(&s.entries[i]); sum > limit {
			break
		}
		n++
	}
	return n
}

// Size is the sizes of the entries after one, added up.
func (s *Store) Size(after uint64, size func(*raft.Log) int64) int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	sum := int64(0)
	for i := range s.entries {
		if l := &s.entries[i]; l.Index > after {
			sum += size(l)
		}
	}
	return sum
}
