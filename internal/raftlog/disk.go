package raftlog

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/musterml/muster/internal/journal"
)

// The records of the journal. An entry has its index as mark and its term as A; its
// bytes are type:u8, time:u64 (unix nanoseconds, 0 for none), the length of the
// extensions:u32, the extensions, the data. A payload has the index of its entry as mark
// and its name as A and B.
const (
	recordEntry   = 1
	recordPayload = 2
)

// Open opens the log in a folder, or makes one. A journal.Damage that is returned is of an
// entry: what was acknowledged is lost, and the replica must not vote any more (see
// raftgroup). torn is told of what a crash left unfinished. payloads may be nil.
func Open(cfg journal.Config, payloads Payloads, torn func(journal.Torn)) (*Store, error) {
	s := NewMemory(payloads)
	j, t, err := journal.Open(cfg, s.load)
	if err != nil {
		return nil, err
	}
	if t != nil {
		torn(*t)
	}
	s.journal = j
	s.payloads.Loaded(s.entries)
	return s, nil
}

func (s *Store) load(r journal.Record, damage *journal.Damage) error {
	switch r.Kind {
	case recordPayload:
		s.payloads.Load(r.A, r.B, r.Body, damage)
		return nil
	case recordEntry:
		if damage != nil {
			return damage
		}
		l, err := parseEntry(r)
		if err != nil {
			return err
		}
		// No payload is held yet, so none is dropped with an entry that is replaced.
		if end := s.first + uint64(len(s.entries)); l.Index < s.first || l.Index > end {
			s.entries = s.entries[:0]
		} else {
			s.entries = s.entries[:l.Index-s.first]
		}
		if len(s.entries) == 0 {
			s.first = l.Index
		}
		s.entries = append(s.entries, l)
		return nil
	}
	return fmt.Errorf("a record of kind %d is none of this version", r.Kind)
}

// persist writes entries, each behind its payload, with one sync.
func (s *Store) persist(logs []*raft.Log) error {
	if s.journal == nil {
		return nil
	}
	s.records, s.bodies = s.records[:0], s.bodies[:0]
	size := 0
	for _, l := range logs {
		size += entryHead + len(l.Extensions) + len(l.Data)
	}
	if cap(s.bodies) < size { // so that appending moves nothing
		s.bodies = make([]byte, 0, 2*size)
	}
	for _, l := range logs {
		if a, b, data, ok := s.payloads.Bytes(l); ok {
			s.records = append(s.records, journal.Record{Kind: recordPayload, Mark: l.Index, A: a, B: b, Body: data})
		}
		at := len(s.bodies)
		s.bodies = appendEntry(s.bodies, l)
		s.records = append(s.records, journal.Record{Kind: recordEntry, Mark: l.Index, A: l.Term, Body: s.bodies[at:]})
	}
	err := s.journal.Append(s.records...)
	clear(s.records)
	return err
}

// Rewrite stores the payload of an entry that is in the log again, after the disk damaged it.
func (s *Store) Rewrite(index, a, b uint64, data []byte) error {
	return s.journal.Append(journal.Record{Kind: recordPayload, Mark: index, A: a, B: b, Body: data})
}

// Stats are those of the journal; zero for a log in memory.
func (s *Store) Stats() journal.Stats {
	if s.journal == nil {
		return journal.Stats{}
	}
	return s.journal.Stats()
}

// Close closes the log's file. Nothing is lost by not closing it.
func (s *Store) Close() error {
	if s.journal == nil {
		return nil
	}
	return s.journal.Close()
}

const entryHead = 1 + 8 + 4

func appendEntry(b []byte, l *raft.Log) []byte {
	at := int64(0)
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	b = append(b, byte(l.Type))
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(l.Extensions)))
	b = append(b, l.Extensions...)
	return append(b, l.Data...)
}

func parseEntry(r journal.Record) (raft.Log, error) {
	b := r.Body
	if len(b) < entryHead || int64(len(b)-entryHead) < int64(binary.LittleEndian.Uint32(b[9:])) {
		return raft.Log{}, fmt.Errorf("entry %d of the log has only %d bytes", r.Mark, len(b))
	}
	l := raft.Log{Index: r.Mark, Term: r.A, Type: raft.LogType(b[0])}
	if at := int64(binary.LittleEndian.Uint64(b[1:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	n := binary.LittleEndian.Uint32(b[9:])
	rest := append([]byte(nil), b[entryHead:]...)
	if n > 0 {
		l.Extensions = rest[:n:n]
	}
	l.Data = rest[n:]
	return l, nil
}
