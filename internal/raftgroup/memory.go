package raftgroup

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// memorySnapshots keeps the newest snapshot, where nothing of the log outlives the process: a file would cost its
// fsyncs at each cut of the log, and a full disk would keep the log from being cut, for nothing. raft's own such store is
// made for tests: it shows snapshots that are not finished, and those that were given up.
type memorySnapshots struct {
	mu     sync.Mutex
	made   int
	newest *memorySnapshot // nil: none
}

// memorySnapshot implements raft.SnapshotSink. Once it is the newest it does not change.
type memorySnapshot struct {
	owner *memorySnapshots
	meta  raft.SnapshotMeta
	data  bytes.Buffer
}

// Create implements raft.SnapshotStore.
func (m *memorySnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made++
	return &memorySnapshot{owner: m, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d-%d", term, index, m.made), Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	}}, nil
}

// List implements raft.SnapshotStore.
func (m *memorySnapshots) List() ([]*raft.SnapshotMeta, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.newest == nil {
		return nil, nil
	}
	meta := m.newest.meta
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open implements raft.SnapshotStore.
func (m *memorySnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.newest == nil || m.newest.meta.ID != id {
		return nil, nil, fmt.Errorf("snapshot %s has been replaced by a newer one", id)
	}
	meta := m.newest.meta
	return &meta, io.NopCloser(bytes.NewReader(m.newest.data.Bytes())), nil
}

// Write implements io.Writer.
func (s *memorySnapshot) Write(b []byte) (int, error) { return s.data.Write(b) }

// Close implements io.Closer: the snapshot is whole.
func (s *memorySnapshot) Close() error {
	m := s.owner
	m.mu.Lock()
	defer m.mu.Unlock()
	s.meta.Size = int64(s.data.Len())
	if m.newest == nil || s.meta.Index >= m.newest.meta.Index {
		m.newest = s
	}
	return nil
}

// ID implements raft.SnapshotSink.
func (s *memorySnapshot) ID() string { return s.meta.ID }

// Cancel implements raft.SnapshotSink.
func (s *memorySnapshot) Cancel() error { return nil }
