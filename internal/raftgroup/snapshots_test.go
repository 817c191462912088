package raftgroup

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
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

// A snapshot reads as its layers, those that it has of the one before it first, and then what was written to it, also when that one is
// gone; a layer that is damaged or missing is told.
func TestLayers(t *testing.T) {
	dir := t.TempDir()
	files, err := raft.NewFileSnapshotStore(dir, 1, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	w := watchedSnapshots{SnapshotStore: files, committed: &committed{}, dir: dir}
	last, want := "", ""
	for index, layer := range []string{"first ", "second ", "third "} {
		sink, err := w.Create(1, uint64(index+1), 1, raft.Configuration{}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		l, err := sink.(Layered).Layer(last)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(l, layer)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(sink, "rest")
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
		last, want = sink.ID(), want+layer
	}
	meta, r, err := w.Open(last)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil || string(got) != want+"rest" || meta.Size != int64(len(got)) {
		t.Fatalf("%q of %d bytes, %v", got, meta.Size, err)
	}
	folder := filepath.Join(dir, "snapshots", last)
	names, err := layersOf(folder)
	if err != nil || len(names) != 3 {
		t.Fatalf("%v, %v", names, err)
	}
	second := filepath.Join(folder, names[1])
	if err := os.WriteFile(second, []byte("secomd "), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Open(last); err == nil || !strings.Contains(err.Error(), second+" is damaged") {
		t.Errorf("a damaged layer: %v", err)
	}
	if err := os.Remove(second); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Open(last); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a missing layer: %v", err)
	}
	sink, err := w.Create(1, 9, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.(Layered).Layer("7-7-7"); err == nil {
		t.Error("there are layers of a snapshot that never was")
	}
	if err := sink.Cancel(); err != nil {
		t.Fatal(err)
	}
}
