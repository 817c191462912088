package membership

import (
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	pb "github.com/musterml/muster/proto"
)

// apply adds one committed entry to the run's state. It is the only way the state
// changes, and a function of its arguments alone, so every server holds the same.
func apply(s *pb.RunState, e *pb.Entry) {
	if e.Founding != nil && s.Founding == nil {
		s.Founding = e.Founding
	}
	if e.View != nil && e.View.Number == s.View.GetNumber()+1 {
		s.View = e.View
	}
	for _, m := range e.Metrics {
		if m.Step == uint64(len(s.Metrics)) { // once each, without a gap
			s.Metrics = append(s.Metrics, m)
		}
	}
	s.Events = append(s.Events, e.Events...)
	if e.Finish != nil && s.Finish == nil {
		s.Finish = e.Finish
	}
}

// machine is the coordinator's replicated state machine. Safe for concurrent use.
type machine struct {
	mu    sync.Mutex
	state pb.RunState
}

func (m *machine) Apply(l *raft.Log) any {
	var e pb.Entry
	if err := proto.Unmarshal(l.Data, &e); err != nil {
		return fmt.Errorf("coordinator: log entry %d cannot be read: %w", l.Index, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	apply(&m.state, &e)
	return nil
}

// copy returns the state of this moment; the caller owns it.
func (m *machine) copy() *pb.RunState {
	m.mu.Lock()
	defer m.mu.Unlock()
	return proto.Clone(&m.state).(*pb.RunState)
}

func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := proto.Marshal(&m.state)
	return snapshot(b), err
}

func (m *machine) Restore(r io.ReadCloser) error {
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("coordinator: reading a snapshot: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := proto.Unmarshal(b, &m.state); err != nil {
		return fmt.Errorf("coordinator: a snapshot cannot be read: %w", err)
	}
	return nil
}

type snapshot []byte

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		_ = sink.Cancel()
		return fmt.Errorf("coordinator: writing a snapshot: %w", err)
	}
	return sink.Close()
}

func (s snapshot) Release() {}
