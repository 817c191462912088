package raftgroup

import (
	"bytes"
	"io"
	"testing"

	"github.com/hashicorp/raft"
)

// A snapshot that goes to the disk as it grows is what was written; one that was given up is none. (Where raft keeps it must be
// known for that.)
func TestSteadySnapshots(t *testing.T) {
	dir := t.TempDir()
	files, err := raft.NewFileSnapshotStore(dir, 2, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	w := watchedSnapshots{SnapshotStore: files, committed: &committed{}, dir: dir}
	data := bytes.Repeat([]byte("state"), settleBytes/3)
	write := func(index uint64) *steadySink {
		sink, err := w.Create(1, index, 1, raft.Configuration{}, 1, nil)
		s, steady := sink.(*steadySink)
		if err != nil || !steady {
			t.Fatalf("%v; raft's file was not found: %v", err, !steady)
		}
		for rest := data; len(rest) > 0; rest = rest[min(len(rest), 1<<18):] {
			if _, err := s.Write(rest[:min(len(rest), 1<<18)]); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	whole, given := write(5), write(6)
	for range 2 { // as raft does
		if err := whole.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := given.Cancel(); err != nil {
		t.Fatal(err)
	}
	list, err := w.List()
	if err != nil || len(list) != 1 || list[0].Index != 5 {
		t.Fatalf("%v, %v", list, err)
	}
	_, r, err := w.Open(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v; %d were written", len(got), err, len(data))
	}
}
