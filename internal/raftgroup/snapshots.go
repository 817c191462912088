package raftgroup

import (
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// watchedSnapshots tells the owner while a snapshot is read: cutting the log meanwhile
// could leave a replica that is sent one behind again when it has it. And it notes the
// configurations of snapshots.
type watchedSnapshots struct {
	raft.SnapshotStore
	sending   func(int)
	committed *committed
}

// Create implements raft.SnapshotStore.
func (w watchedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	w.committed.note(configurationIndex, configuration)
	return w.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
}

// Open implements raft.SnapshotStore.
func (w watchedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := w.SnapshotStore.Open(id)
	if err != nil || w.sending == nil {
		return meta, r, err
	}
	w.sending(1)
	return meta, &watchedReader{ReadCloser: r, done: sync.OnceFunc(func() { w.sending(-1) })}, nil
}

type watchedReader struct {
	io.ReadCloser
	done func()
}

// Close may be called more than once, as raft does.
func (r *watchedReader) Close() error {
	r.done()
	return r.ReadCloser.Close()
}
