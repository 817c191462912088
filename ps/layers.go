package ps

import (
	"bufio"
	"errors"
	"io"

	"github.com/hashicorp/raft"

	"github.com/musterml/muster/internal/crash"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/raftgroup"
)

// layers is what a replica remembers of its last snapshot on the disk, so that the next one need not write every row of sparse tables
// again: it writes a delta, the rows that steps have seen since, on top of the layers that are there. When deltas together
// are as large as the first layer, all rows are written anew; so at most two thirds of what lies on the disk is out of date. A replica
// that has just started, was sent a state, or failed to write one begins with all rows.
//
// The dense state changes as a whole in every step, and is always written whole.
//
// Raft takes one snapshot after the other, so this needs no lock.
type layers struct {
	id     string  // of the snapshot; "": the next is whole
	step   id.Step // of its rows
	first  int64   // bytes of its first layer
	deltas int64   // bytes of the others
}

// leastDelta is what a delta counts for at least, as a share of the first layer: it bounds how many there are.
const leastDelta = 64

// snapshot begins a snapshot for the disk.
func (l *layers) snapshot(s *shardState) raft.FSMSnapshot {
	if l.deltas >= l.first || l.step == 0 {
		*l = layers{}
	}
	return &wholeState{s.snapshot(l.step), l}
}

// written notes a snapshot whose layer has so many bytes.
func (l *layers) written(snapshot string, step id.Step, bytes int64) {
	if l.id == "" {
		l.first = bytes
	} else {
		l.deltas += max(bytes, l.first/leastDelta)
	}
	l.id, l.step = snapshot, step
}

// wholeState implements raft.FSMSnapshot where the log is on the disk: there a snapshot
// is what its replica begins with when all of them were lost. It is written while the shard goes on.
type wholeState struct {
	*stateSnapshot
	layers *layers
}

// Persist implements raft.FSMSnapshot. The sink keeps checksums, and is made durable when
// it is closed.
func (s *wholeState) Persist(sink raft.SnapshotSink) error {
	crash.At("ps.snapshot-begin")
	step, bytes, err := s.persistLayer(sink)
	if err == nil {
		w := bufio.NewWriterSize(sink, 1<<18)
		err = errors.Join(s.write(w), w.Flush())
	}
	if err != nil {
		*s.layers = layers{}
		return errors.Join(err, sink.Cancel())
	}
	crash.At("ps.snapshot-written")
	if err = sink.Close(); err == nil {
		s.layers.written(sink.ID(), step, bytes)
	} else {
		*s.layers = layers{}
	}
	crash.At("ps.snapshot-closed")
	return err
}

// persistLayer writes what comes before all else.
func (s *wholeState) persistLayer(sink raft.SnapshotSink) (step id.Step, bytes int64, err error) {
	if s.rows == nil {
		return 0, 0, nil
	}
	layered, ok := sink.(raftgroup.Layered)
	if !ok {
		return 0, 0, s.writeLayer(sink)
	}
	layer, err := layered.Layer(s.layers.id)
	if err != nil {
		return 0, 0, err
	}
	w := &countingWriter{to: layer}
	err = errors.Join(s.writeLayer(w), layer.Close())
	return s.rows.Step(), w.n, err
}

type countingWriter struct {
	to io.Writer
	n  int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.to.Write(b)
	c.n += int64(n)
	return n, err
}

// Release implements raft.FSMSnapshot.
func (s *wholeState) Release() { s.release() }
