package raftlog

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/musterml/muster/internal/journal"
)

// disk is a store in a folder whose disk can be made to fail.
func disk(t *testing.T, dir string, files journal.Files) *Store {
	t.Helper()
	s, err := Open(journal.Config{Dir: dir, SegmentSize: 2000, Files: files}, nil, func(torn journal.Torn) { t.Errorf("torn: %v", torn) })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func entries(t *testing.T, s *Store) (all []raft.Log) {
	t.Helper()
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	for i := first; i > 0 && i <= last; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

type full struct {
	journal.Disk
	now bool
}

func (f *full) Create(path string) (journal.File, error) {
	file, err := f.Disk.Create(path)
	return &fullFile{file, f}, err
}

type fullFile struct {
	journal.File
	f *full
}

func (f *fullFile) Write(b []byte) (int, error) {
	if f.f.now {
		n, _ := f.File.Write(b[:len(b)/2])
		return n, syscall.ENOSPC
	}
	return f.File.Write(b)
}

// What Raft may do to a log, at random: the one on the disk is at all times that in memory,
// also when it is opened anew, except that entries which a compaction has removed may
// come back in front; a store that fails for a full disk changes nothing.
func TestDiskEqualsMemory(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 5))
		files := &full{}
		dir := t.TempDir()
		memory, s := NewMemory(nil), disk(t, dir, files)
		last, first, term := uint64(0), uint64(1), uint64(1)
		for range 60 {
			switch n := random.IntN(10); {
			case n < 6: // new entries, at times in the place of some that conflict
				index := last + 1
				if n == 0 && last > first {
					index = first + 1 + random.Uint64N(last-first)
					term++
					for _, l := range []*Store{memory, s} {
						if err := l.DeleteRange(index, last); err != nil {
							t.Fatal(err)
						}
					}
				}
				var logs []*raft.Log
				for range 1 + random.IntN(4) {
					logs = append(logs, &raft.Log{
						Index: index, Term: term, Type: raft.LogCommand, AppendedAt: time.Unix(0, random.Int64()),
						Data: fmt.Appendf(nil, "entry %d of term %d", index, term), Extensions: []byte{1, 2}[:random.IntN(3)],
					})
					if len(logs[len(logs)-1].Extensions) == 0 {
						logs[len(logs)-1].Extensions = nil
					}
					index++
				}
				if files.now = random.IntN(5) == 0; files.now {
					if s.StoreLogs(logs) == nil {
						t.Fatal("stored on a full disk")
					}
					files.now = false
				}
				for _, l := range []*Store{memory, s} {
					if err := l.StoreLogs(logs); err != nil {
						t.Fatal(err)
					}
				}
				last = index - 1
			case n < 8 && last > first: // compaction
				first += random.Uint64N(last - first)
				for _, l := range []*Store{memory, s} {
					if err := l.DeleteRange(1, first-1); err != nil {
						t.Fatal(err)
					}
				}
			case n == 8 && last > 0: // a snapshot is installed: what follows leaves a gap
				last += 10
				first = last + 1
				l := &raft.Log{Index: first, Term: term, Type: raft.LogNoop}
				last++
				for _, log := range []*Store{memory, s} {
					if err := log.StoreLog(l); err != nil {
						t.Fatal(err)
					}
				}
			case n == 9:
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = disk(t, dir, files)
			}
			want, got := entries(t, memory), entries(t, s)
			if extra := len(got) - len(want); extra > 0 && len(want) > 0 {
				got = got[extra:]
			}
			for i := range got {
				if got[i].Data == nil && len(want) > i && len(want[i].Data) == 0 {
					got[i].Data = want[i].Data
				}
				if len(got[i].Data) == 0 {
					got[i].Data = nil
				}
			}
			if len(want)+len(got) > 0 && !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: the disk has\n%v, memory\n%v", seed, got, want)
			}
		}
	}
}
