package raftgroup

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/musterml/muster/internal/journal"
)

// watchedSnapshots notes the configurations of snapshots, and has those on the disk written as they grow.
type watchedSnapshots struct {
	raft.SnapshotStore
	committed *committed
	dir       string // where raft has a folder of files; "": they are in memory
}

// Create implements raft.SnapshotStore.
func (w watchedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	w.committed.note(configurationIndex, configuration)
	sink, err := w.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil || w.dir == "" {
		return sink, err
	}
	file, err := os.Open(filepath.Join(w.dir, "snapshots", sink.ID()+".tmp", "state.bin"))
	if err != nil { // raft keeps it elsewhere: it is as good, only less steady
		return sink, nil
	}
	return &steadySink{SnapshotSink: sink, folder: filepath.Dir(file.Name()), state: settler{file: file}}, nil
}

// Open implements raft.SnapshotStore: layers come first.
func (w watchedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, state, err := w.SnapshotStore.Open(id)
	if err != nil || w.dir == "" {
		return meta, state, err
	}
	layers, size, err := openLayers(filepath.Join(w.dir, "snapshots", id))
	if err != nil {
		return nil, nil, errors.Join(err, state.Close())
	}
	whole := *meta
	whole.Size += size
	return &whole, newLayered(append(layers, state)), nil
}

// steadySink has a snapshot written to the disk as it grows, and can begin with layers.
type steadySink struct {
	raft.SnapshotSink
	folder string  // until it is closed
	state  settler // of the file that raft writes
}

// Write implements io.Writer.
func (s *steadySink) Write(b []byte) (int, error) {
	n, err := s.SnapshotSink.Write(b)
	if err == nil {
		err = s.state.wrote(n)
	}
	return n, err
}

// Close implements io.Closer. It may be called more than once, as raft does.
func (s *steadySink) Close() error {
	_ = s.state.file.Close() // nothing was written to it
	return s.SnapshotSink.Close()
}

// Cancel implements raft.SnapshotSink.
func (s *steadySink) Cancel() error {
	_ = s.state.file.Close()
	return s.SnapshotSink.Cancel()
}

// settler has what is written to a file written to the disk in portions. Left to the system, all of it would be when it is
// closed, and the log, on the same disk, would wait for that.
type settler struct {
	file    *os.File
	written int // since it was last settled
}

const settleBytes = 4 << 20

func (t *settler) wrote(n int) error {
	if t.written += n; t.written < settleBytes {
		return nil
	}
	t.written = 0
	return journal.Settle(t.file)
}
