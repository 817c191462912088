package raftgroup

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/musterml/muster/internal/atomicfile"
	"github.com/musterml/muster/internal/crash"
)

// ErrCorrupt is returned by Start when the file with term and vote is not what
// was written. The replica may have voted in a way it no longer knows.
var ErrCorrupt = errors.New("the file with term and vote is damaged; start this replica under a new incarnation")

// stable is raft's StableStore in one small text file, replaced whole (temp,
// fsync, rename, fsync of the folder).
//
// raft stores the two halves of a vote by two calls, the term first and the
// candidate second, and answers the candidate after both. The first half is
// held back until the second comes, so that a vote costs one write, and is on
// disk whole or not at all.
//
// A write that fails, on a full disk say, is tried again until it succeeds or the
// replica stops: raft would panic on an error, and a replica that waits gives no vote
// but does no harm; the others go on without it.
type stable struct {
	path  string
	write func(path string, data []byte) error // atomicfile.WriteBytes, but for tests
	retry func(err error) bool                 // waits a while; false when the replica stops

	mu      sync.Mutex
	kept    ballot // what the file holds; no term before the first write
	pending *uint64
}

// ballot is what a replica must not forget: the newest term it has seen, and
// the newest vote it gave.
type ballot struct {
	Identity string // whose it is, so that files cannot be mixed up
	Term     uint64
	VoteTerm uint64
	VoteFor  string // a ServerAddress; "" before the first vote
}

const ballotFormat = "muster ballot 1\nidentity %q\nterm %d\nvote-term %d\nvote-for %q\n"

// The names under which raft keeps the three values (raft.go, api.go).
const (
	keyCurrentTerm  = "CurrentTerm"
	keyLastVoteTerm = "LastVoteTerm"
	keyLastVoteCand = "LastVoteCand"
)

// writeThrough writes the file without waiting for the disk. It is for an identity that does not outlive its process: that
// one only has to see, should it be started again by mistake, that it was used. An election has eight fsyncs one after the
// other otherwise, which took 150 ms on a busy disk.
func writeThrough(path string, data []byte) error { return os.WriteFile(path, data, 0o644) }

// openStable reads the file, if any; used reports whether the replica has taken part.
func openStable(path, identity string, retry func(error) bool) (s *stable, used bool, err error) {
	s = &stable{path: path, write: atomicfile.WriteBytes, retry: retry, kept: ballot{Identity: identity}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	b, err := parseBallot(data)
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", path, err)
	}
	if b.Identity != identity {
		return nil, false, fmt.Errorf("%s: it is of replica %s, not of %s: %w", path, b.Identity, identity, ErrCorrupt)
	}
	s.kept = b
	return s, b.used(), nil
}

// used tells whether a replica can have voted or stored anything. One that died while it
// was being founded, which is term 1, has not.
func (b ballot) used() bool { return b.Term > 1 || b.VoteFor != "" }

func (b ballot) render() []byte {
	text := fmt.Appendf(nil, ballotFormat, b.Identity, b.Term, b.VoteTerm, b.VoteFor)
	return fmt.Appendf(text, "crc32c %08x\n", crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli)))
}

// parseBallot accepts exactly what render writes, checksum and all.
func parseBallot(data []byte) (ballot, error) {
	var b ballot
	if _, err := fmt.Sscanf(string(data), ballotFormat, &b.Identity, &b.Term, &b.VoteTerm, &b.VoteFor); err != nil {
		return ballot{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if string(b.render()) != string(data) {
		return ballot{}, ErrCorrupt
	}
	return b, nil
}

// keep writes b and, when that has succeeded, holds it.
func (s *stable) keep(b ballot) error {
	for {
		crash.At("raftgroup.before-ballot")
		err := s.write(s.path, b.render())
		crash.At("raftgroup.after-ballot")
		if err == nil {
			s.kept = b
			return nil
		}
		if !s.retry(fmt.Errorf("term and vote cannot be kept: %w", err)) {
			return nil // raft is being shut down and sends nothing any more
		}
	}
}

// SetUint64 implements raft.StableStore.
func (s *stable) SetUint64(key []byte, v uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch string(key) {
	case keyCurrentTerm:
		if v == s.kept.Term {
			return nil
		}
		b := s.kept
		b.Term = v
		return s.keep(b)
	case keyLastVoteTerm:
		s.pending = &v
		return nil
	}
	return fmt.Errorf("term and vote: no place for the key %q", key)
}

// Set implements raft.StableStore.
func (s *stable) Set(key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if string(key) != keyLastVoteCand {
		return fmt.Errorf("term and vote: no place for the key %q", key)
	}
	b := s.kept
	b.VoteFor = string(value)
	if s.pending != nil {
		b.VoteTerm = *s.pending
	}
	s.pending = nil
	return s.keep(b)
}

// GetUint64 implements raft.StableStore.
func (s *stable) GetUint64(key []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case string(key) == keyCurrentTerm && s.kept.Term != 0:
		return s.kept.Term, nil
	case string(key) == keyLastVoteTerm && s.kept.VoteFor != "":
		return s.kept.VoteTerm, nil
	}
	return 0, errNotFound
}

// Get implements raft.StableStore.
func (s *stable) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if string(key) == keyLastVoteCand && s.kept.VoteFor != "" {
		return []byte(s.kept.VoteFor), nil
	}
	return nil, errNotFound
}

// votedForOther reports whether the newest vote is of a term after since and
// went to another replica. It waits for a vote that is being written.
func (s *stable) votedForOther(since uint64, self raft.ServerAddress) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.VoteTerm > since && s.kept.VoteFor != string(self)
}

// errNotFound has the text by which raft knows a missing key.
var errNotFound = errors.New("not found")

var _ raft.StableStore = (*stable)(nil)
