package membership

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// errStale is returned for an entry that was made for another state than the one it
// meets: its proposer had not heard of an entry before it, and must not go on.
var errStale = errors.New("coordinator: the entry does not follow the run's state")

const (
	maxEvents  = 10_000 // that a run keeps; a run that is restless for weeks must not outgrow its servers
	keepEvents = 1_000  // of the first, which tell how it began
	dropEvents = 1_000  // at a time, the oldest after those

	maxMetrics = 1 << 17 // figures of steps, for the same reason
)

// apply adds one committed entry to the run's state, as a whole or not at all. It is the
// only way the state changes, and a function of its arguments alone, so every server
// holds the same.
func apply(s *pb.RunState, e *pb.Entry) error {
	if e.View != nil && e.View.Number != s.View.GetNumber()+1 {
		return fmt.Errorf("%w: it makes view %d after view %d", errStale, e.View.Number, s.View.GetNumber())
	}
	if e.Placement != nil && e.Placement.Number != s.Placement.GetNumber()+1 {
		return fmt.Errorf("%w: it makes placement %d after placement %d", errStale, e.Placement.Number, s.Placement.GetNumber())
	}
	for i, m := range e.Metrics { // once each, without a gap
		if next := recorded(s) + uint64(i); m.Step != next {
			return fmt.Errorf("%w: it records step %d where step %d is next", errStale, m.Step, next)
		}
	}
	if e.Founding != nil && s.Founding == nil {
		s.Founding = e.Founding
	}
	if e.View != nil {
		s.View = e.View
	}
	if e.Placement != nil {
		s.Placement = e.Placement
	}
	s.Metrics = thin(append(s.Metrics, e.Metrics...))
	s.Events = append(s.Events, e.Events...)
	if over := len(s.Events) - maxEvents; over > 0 {
		drop := over + dropEvents
		s.Events = slices.Delete(s.Events, keepEvents, keepEvents+drop)
		s.Forgotten += uint64(drop)
	}
	if e.Finish != nil && s.Finish == nil {
		s.Finish = e.Finish
	}
	return nil
}

// recorded is the number of steps whose figures were recorded: all before that one.
func recorded(s *pb.RunState) uint64 {
	if n := len(s.GetMetrics()); n > 0 {
		return s.Metrics[n-1].Step + 1
	}
	return 0
}

// figures are those of a recorded step; nil when they were left out since.
func figures(s *pb.RunState, of uint64) *pb.StepMetrics {
	i, found := slices.BinarySearchFunc(s.Metrics, of, func(m *pb.StepMetrics, step uint64) int { return cmp.Compare(m.Step, step) })
	if !found {
		return nil
	}
	return s.Metrics[i]
}

// thin leaves figures out when there are too many: the newest half of maxMetrics stays whole, and the steps before make up to a
// quarter, evenly spread. Of the figures that it chooses from it keeps an evaluation.
func thin(all []*pb.StepMetrics) []*pb.StepMetrics {
	if len(all) <= maxMetrics {
		return all
	}
	older := len(all) - maxMetrics/2
	stride := uint64(1)
	for all[older].Step/stride >= maxMetrics/4 {
		stride *= 2
	}
	kept := all[:0]
	for _, m := range all[:older] {
		switch last := len(kept) - 1; {
		case last < 0 || m.Step/stride != kept[last].Step/stride:
			kept = append(kept, m)
		case m.Evaluated:
			kept[last] = m
		}
	}
	return slices.Delete(all, len(kept), older)
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
	return apply(&m.state, &e) // an error tells the proposer; the state is as before
}

// copy returns the state of this moment; the caller owns it.
func (m *machine) copy() *pb.RunState {
	m.mu.Lock()
	defer m.mu.Unlock()
	return proto.Clone(&m.state).(*pb.RunState)
}

// placement is that agreed; nil: that of the founding.
func (m *machine) placement() *pb.Placement {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Placement // never changed once agreed
}

// recorded is the number of steps whose figures are in the history.
func (m *machine) recorded() id.Step {
	m.mu.Lock()
	defer m.mu.Unlock()
	return id.Step(recorded(&m.state))
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
	var state pb.RunState
	if err := proto.Unmarshal(b, &state); err != nil {
		return fmt.Errorf("coordinator: a snapshot cannot be read: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	proto.Reset(&m.state)
	proto.Merge(&m.state, &state)
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
