package raftgroup

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	"github.com/rs/zerolog"
)

// tape is an FSM that remembers what was applied, in order.
type tape struct {
	mu      sync.Mutex
	entries []string
}

func (f *tape) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries = append(f.entries, string(l.Data))
	return len(f.entries)
}

func (f *tape) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.entries, ",")
}

func (f *tape) Snapshot() (raft.FSMSnapshot, error) { return &frozen{f.text()}, nil }

func (f *tape) Restore(r io.ReadCloser) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries = strings.Split(string(data), ",")
	return r.Close()
}

type frozen struct{ text string }

func (s *frozen) Persist(sink raft.SnapshotSink) error {
	if _, err := io.WriteString(sink, s.text); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (s *frozen) Release() {}

// replica is a whole node: a port and one group on it.
type replica struct {
	*Group
	self Replica
	fsm  *tape
	port *port.Port
	once sync.Once
}

func newPort(t testing.TB, node id.Node) *port.Port {
	t.Helper()
	p, err := port.Listen(port.Config{Listen: "127.0.0.1:0", Node: node, Cluster: "test", Job: [32]byte{1}, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() }) // again, where the test has killed the node
	return p
}

func startReplica(t testing.TB, node id.Node, incarnation id.Incarnation, edit func(*Config)) *replica {
	t.Helper()
	p := newPort(t, node)
	r := &replica{self: Replica{node, incarnation, p.Addr()}, fsm: &tape{}, port: p}
	cfg := Config{Group: "shard-0", Self: r.self, Dir: t.TempDir(), FSM: r.fsm, Port: p, Log: zerolog.Nop()}
	if edit != nil {
		edit(&cfg)
	}
	g, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Group = g
	t.Cleanup(func() { r.kill(t) })
	return r
}

// kill takes the whole node away, as the end of its process would: Stop breaks
// every connection of the group without a farewell.
func (r *replica) kill(t testing.TB) {
	r.once.Do(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
		if err := r.port.Close(); err != nil {
			t.Error(err)
		}
	})
}

// founded starts and founds a group of three, and returns its leader first.
func founded(t testing.TB, edit func(*Config)) []*replica {
	t.Helper()
	var all []*replica
	var selves []Replica
	for _, node := range []id.Node{"a", "b", "c"} {
		r := startReplica(t, node, "1", edit)
		all, selves = append(all, r), append(selves, r.self)
	}
	if err := all[1].Found(selves); err != nil {
		t.Fatal(err)
	}
	lead := leaderOf(t, all)
	sorted := []*replica{lead}
	for _, r := range all {
		if r != lead {
			sorted = append(sorted, r)
		}
	}
	for _, r := range sorted {
		eventually(t, "everybody knows the leader and the replicas", func() bool {
			l, ok := r.Leader()
			members, err := r.Replicas()
			return err == nil && ok && l == lead.self && len(members) == 3
		})
	}
	return sorted
}

// leaderOf waits until one of the replicas leads and has committed an entry of its term.
func leaderOf(t testing.TB, among []*replica) *replica {
	t.Helper()
	var lead *replica
	eventually(t, "a leader", func() bool {
		for _, r := range among {
			if r.IsLeader() && r.Raft().Barrier(time.Second).Error() == nil {
				lead = r
				return true
			}
		}
		return false
	})
	return lead
}

func apply(t testing.TB, r *replica, text string) {
	t.Helper()
	if err := r.Raft().Apply([]byte(text), 5*time.Second).Error(); err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func TestCommitAndFailover(t *testing.T) {
	for _, campaign := range []bool{false, true} {
		t.Run(fmt.Sprintf("campaign=%t", campaign), func(t *testing.T) {
			all := founded(t, nil)
			apply(t, all[0], "x")
			for _, r := range all {
				eventually(t, "x applied", func() bool { return r.fsm.text() == "x" })
			}
			gone := time.Now()
			all[0].kill(t)
			if campaign {
				all[1].LeaderGone(all[0].self)
			}
			lead := leaderOf(t, all[1:])
			t.Logf("a new leader has committed %v after the old one went", time.Since(gone).Round(100*time.Microsecond))
			if campaign && lead != all[1] {
				t.Errorf("%s leads, want the one that stood for election", lead.self)
			}
			apply(t, lead, "y")
			for _, r := range all[1:] {
				eventually(t, "y applied", func() bool { return r.fsm.text() == "x,y" })
			}
			all[0].kill(t)
		})
	}
}

