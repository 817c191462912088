package raftgroup

import (
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
	return &steadySink{SnapshotSink: sink, file: file}, nil
}

// steadySink has a snapshot written to the disk as it grows. Left to the system, all of it would be when it is closed, and the log,
// on the same disk, would wait for that.
type steadySink struct {
	raft.SnapshotSink
	file    *os.File // opened for itself
	written int      // since it was last settled
}

const settleBytes = 4 << 20

// Write implements io.Writer.
func (s *steadySink) Write(b []byte) (int, error) {
	n, err := s.SnapshotSink.Write(b)
	if s.written += n; s.written >= settleBytes && err == nil {
		s.written = 0
		err = journal.Settle(s.file)
	}
	return n, err
}

// Close implements io.Closer. It may be called more than once, as raft does.
func (s *steadySink) Close() error {
	_ = s.file.Close() // nothing was written to it
	return s.SnapshotSink.Close()
}

// Cancel implements raft.SnapshotSink.
func (s *steadySink) Cancel() error {
	_ = s.file.Close()
	return s.SnapshotSink.Cancel()
}
