package raftgroup

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/musterml/muster/internal/atomicfile"
)

func newStable(t *testing.T) (*stable, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ballot")
	s, used, err := openStable(path, "a/1", nil)
	if err != nil || used {
		t.Fatalf("a new file: used %t, error %v", used, err)
	}
	return s, path
}

// vote is what raft does to give one.
func vote(t *testing.T, s *stable, term uint64, candidate string) {
	t.Helper()
	if err := errors.Join(
		s.SetUint64([]byte(keyCurrentTerm), term),
		s.SetUint64([]byte(keyLastVoteTerm), term),
		s.Set([]byte(keyLastVoteCand), []byte(candidate)),
	); err != nil {
		t.Fatal(err)
	}
}

func checkStable(t *testing.T, s *stable, term, voteTerm uint64, voteFor string) {
	t.Helper()
	gotTerm, err := s.GetUint64([]byte(keyCurrentTerm))
	gotVoteTerm, err2 := s.GetUint64([]byte(keyLastVoteTerm))
	gotVoteFor, err3 := s.Get([]byte(keyLastVoteCand))
	if gotTerm != term || gotVoteTerm != voteTerm || string(gotVoteFor) != voteFor {
		t.Errorf("term %d, vote in %d for %q (errors %v, %v, %v); want %d, %d, %q",
			gotTerm, gotVoteTerm, gotVoteFor, err, err2, err3, term, voteTerm, voteFor)
	}
}

func TestStableSurvives(t *testing.T) {
	s, path := newStable(t)
	checkStable(t, s, 0, 0, "")
	vote(t, s, 7, "b/1@\"host\"\n:1")
	again, used, err := openStable(path, "a/1", nil)
	if err != nil || !used {
		t.Fatalf("used %t, error %v", used, err)
	}
	checkStable(t, again, 7, 7, "b/1@\"host\"\n:1")
	if err := again.SetUint64([]byte(keyCurrentTerm), 9); err != nil {
		t.Fatal(err)
	}
	third, _, err := openStable(path, "a/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	checkStable(t, third, 9, 7, "b/1@\"host\"\n:1")
}

// A vote costs one write for the term and one for the vote itself.
func TestStableWritesOnce(t *testing.T) {
	s, _ := newStable(t)
	writes := 0
	s.write = func(string, []byte) error { writes++; return nil }
	vote(t, s, 1, "b/1@h:1")
	if writes != 2 {
		t.Errorf("%d writes, want 2", writes)
	}
	if err := s.SetUint64([]byte(keyCurrentTerm), 1); err != nil || writes != 2 {
		t.Errorf("the same term was written again (%d writes, error %v)", writes, err)
	}
}

// What could not be written before the replica stopped is not held either: raft reads a
// vote back and would confirm it to the candidate.
func TestStableForgetsWhatItCannotKeep(t *testing.T) {
	s, path := newStable(t)
	vote(t, s, 3, "b/1@h:1")
	s.write = func(string, []byte) error { return syscall.ENOSPC }
	s.retry = func(error) bool { return false }
	if err := s.SetUint64([]byte(keyCurrentTerm), 4); err != nil {
		t.Errorf("term: %v", err)
	}
	if err := s.SetUint64([]byte(keyLastVoteTerm), 4); err != nil {
		t.Errorf("half a vote: %v", err)
	}
	checkStable(t, s, 3, 3, "b/1@h:1")
	if err := s.Set([]byte(keyLastVoteCand), []byte("c/1@h:1")); err != nil {
		t.Errorf("vote: %v", err)
	}
	checkStable(t, s, 3, 3, "b/1@h:1")
	again, _, err := openStable(path, "a/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	checkStable(t, again, 3, 3, "b/1@h:1")
}

func TestStableRefusesDamage(t *testing.T) {
	s, path := newStable(t)
	vote(t, s, 7, "b/1@h:1")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := openStable(path, "a/1", nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", what, err)
		}
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		check("a flipped bit", bad)
		check("a torn end", good[:i])
	}
	check("more behind it", append(append([]byte(nil), good...), '\n'))
	check("twice", append(append([]byte(nil), good...), good...))
	if err := os.WriteFile(path, good, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openStable(path, "a/2", nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another replica's file: %v, want ErrCorrupt", err)
	}
}

func TestStableKnowsNoOtherKeys(t *testing.T) {
	s, _ := newStable(t)
	if s.Set([]byte("x"), nil) == nil || s.SetUint64([]byte("x"), 1) == nil {
		t.Error("an unknown key was taken")
	}
	if _, err := s.Get([]byte("x")); err == nil {
		t.Error("an unknown key was found")
	}
}

func FuzzBallot(f *testing.F) {
	f.Add(ballot{Identity: "a/1", Term: 7, VoteTerm: 6, VoteFor: "b/1@h:1"}.render())
	f.Add([]byte("muster ballot 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseBallot(data)
		if err == nil && string(b.render()) != string(data) {
			t.Errorf("took %q as %+v", data, b)
		}
	})
}

// A full disk is waited for; a replica that stops meanwhile gets out of raft's way.
func TestStableWaitsForTheDisk(t *testing.T) {
	s, path := newStable(t)
	full := true
	s.write = func(path string, data []byte) error {
		if full {
			return syscall.ENOSPC
		}
		return atomicfile.WriteBytes(path, data)
	}
	waits := 0
	s.retry = func(err error) bool {
		if waits++; !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("the reason is %v", err)
		}
		full = waits < 3
		return true
	}
	vote(t, s, 5, "b/1@h:1")
	if waits != 3 {
		t.Errorf("%d waits, want 3", waits)
	}
	again, _, err := openStable(path, "a/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	checkStable(t, again, 5, 5, "b/1@h:1")
	full, s.retry = true, func(error) bool { return false }
	s.write = func(string, []byte) error { return syscall.ENOSPC }
	if err := s.SetUint64([]byte(keyCurrentTerm), 6); err != nil {
		t.Errorf("stopping: %v", err)
	}
}

func TestStableKnowsItsVote(t *testing.T) {
	s, _ := newStable(t)
	vote(t, s, 4, "b/1@h:1")
	for _, test := range []struct {
		since uint64
		self  raft.ServerAddress
		want  bool
	}{{3, "a/1@h:1", true}, {4, "a/1@h:1", false}, {3, "b/1@h:1", false}} {
		if got := s.votedForOther(test.since, test.self); got != test.want {
			t.Errorf("since %d, self %s: %t", test.since, test.self, got)
		}
	}
}

func BenchmarkStableVote(b *testing.B) {
	s, _, err := openStable(filepath.Join(b.TempDir(), "ballot"), "a/1", nil)
	if err != nil {
		b.Fatal(err)
	}
	term := uint64(0)
	for b.Loop() {
		term++
		if err := errors.Join(
			s.SetUint64([]byte(keyCurrentTerm), term),
			s.SetUint64([]byte(keyLastVoteTerm), term),
			s.Set([]byte(keyLastVoteCand), []byte("b/1@h:1")),
		); err != nil {
			b.Fatal(err)
		}
	}
}
