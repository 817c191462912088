package raftgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
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

// caughtUp waits until all have what the first, the leader, has.
func caughtUp(t testing.TB, all []*replica) {
	t.Helper()
	for _, r := range all {
		eventually(t, "all entries everywhere", func() bool { return r.Raft().LastIndex() == all[0].Raft().LastIndex() })
	}
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

func TestCommit(t *testing.T) {
	all := founded(t, nil)
	for i := range 100 {
		apply(t, all[0], fmt.Sprint(i))
	}
	for _, r := range all {
		eventually(t, "all applied", func() bool { return r.fsm.text() == all[0].fsm.text() })
	}
	if err := all[0].Found([]Replica{all[0].self}); !errors.Is(err, raft.ErrCantBootstrap) {
		t.Errorf("founded twice: %v, want raft.ErrCantBootstrap", err)
	}
}

// All of them may found the group, as long as they found the same; it has a
// leader long before a timeout.
func TestAllFound(t *testing.T) {
	var all []*replica
	var selves []Replica
	for _, node := range []id.Node{"a", "b", "c"} {
		r := startReplica(t, node, "1", nil)
		all, selves = append(all, r), append(selves, r.self)
	}
	start := time.Now()
	for _, r := range all {
		if err := r.Found(selves); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
			t.Error(err)
		}
	}
	lead := leaderOf(t, all)
	t.Logf("%s leads %v after the founding, in term %d", lead.self.Node, time.Since(start).Round(100*time.Microsecond), lead.Raft().CurrentTerm())
	apply(t, lead, "x")
	for _, r := range all {
		eventually(t, "x applied", func() bool { return r.fsm.text() == "x" })
	}
}

// Before it is founded or added, a replica waits and disturbs nobody.
func TestUnfoundedWaits(t *testing.T) {
	r := startReplica(t, "a", "1", func(c *Config) {
		c.Timing.HeartbeatTimeout, c.Timing.ElectionTimeout = 20*time.Millisecond, 20*time.Millisecond
	})
	select {
	case <-r.Raft().LeaderCh():
		t.Error("it leads")
	case <-time.After(200 * time.Millisecond):
	}
	if term := r.Raft().CurrentTerm(); term != 0 {
		t.Errorf("term %d, want 0", term)
	}
	if members, err := r.Replicas(); err != nil || len(members) != 0 {
		t.Errorf("members %v, error %v", members, err)
	}
}

// A log that outlives the process lets the same identity go on.
func TestRestartWithLog(t *testing.T) {
	disk, dir := raft.NewInmemStore(), t.TempDir()
	durable := func(c *Config) { c.Logs, c.Dir = disk, dir }
	r := startReplica(t, "a", "1", durable)
	if err := r.Found([]Replica{r.self}); err != nil {
		t.Fatal(err)
	}
	leaderOf(t, []*replica{r})
	apply(t, r, "x")
	term := r.Raft().CurrentTerm()
	r.kill(t)

	again := startReplica(t, "a", "1", durable)
	leaderOf(t, []*replica{again})
	if now := again.Raft().CurrentTerm(); now <= term {
		t.Errorf("term %d after %d: it was forgotten", now, term)
	}
	if got := again.fsm.text(); got != "x" {
		t.Errorf("applied %q, want x", got)
	}
}

// start1 tries to start a/1 in dir.
func start1(t *testing.T, dir string, logs raft.LogStore) error {
	t.Helper()
	p := newPort(t, "a")
	g, err := Start(Config{Group: "shard-0", Self: Replica{"a", "1", p.Addr()}, Dir: dir, FSM: &tape{}, Logs: logs, Port: p, Log: zerolog.Nop()})
	if err == nil {
		return g.Stop()
	}
	return err
}

func TestLostLogMayNotVote(t *testing.T) {
	dir := t.TempDir()
	r := startReplica(t, "a", "1", func(c *Config) { c.Dir = dir })
	if err := r.Found([]Replica{r.self}); err != nil {
		t.Fatal(err)
	}
	leaderOf(t, []*replica{r})
	r.kill(t)
	for what, logs := range map[string]raft.LogStore{"in memory": nil, "empty": raft.NewInmemStore()} {
		if err := start1(t, dir, logs); !errors.Is(err, ErrLostLog) {
			t.Errorf("log %s: %v, want ErrLostLog", what, err)
		}
	}
	// A later life in the same folder is none of its business.
	later := startReplica(t, "a", "2", func(c *Config) { c.Dir = dir })
	if members, err := later.Replicas(); err != nil || len(members) != 0 {
		t.Errorf("the later life knows members %v, error %v", members, err)
	}
}

func TestStartRefusesDamage(t *testing.T) {
	dir := t.TempDir()
	r := startReplica(t, "a", "1", func(c *Config) { c.Dir = dir })
	if err := r.Found([]Replica{r.self}); err != nil {
		t.Fatal(err)
	}
	leaderOf(t, []*replica{r})
	r.kill(t)
	if err := os.WriteFile(filepath.Join(dir, "shard-0", "1", "ballot"), []byte("muster ballot 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := start1(t, dir, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
}

func TestStopLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("group", func(t *testing.T) {
		all := founded(t, nil)
		apply(t, all[0], "x")
		all[1].Campaign() // all have connections to all
		leaderOf(t, all)
		for _, r := range all {
			r.kill(t)
			if err := r.Stop(); err != nil { // again
				t.Error(err)
			}
		}
	})
	eventually(t, "goroutines gone", func() bool { return runtime.NumGoroutine() <= before })
}

// Stop comes while the replica is in the middle of everything, and nobody waits
// for ever: neither for Stop nor for what was to be applied.
func TestStopWhileBusy(t *testing.T) {
	for _, voters := range []int{1, 3} {
		t.Run(fmt.Sprintf("voters=%d", voters), func(t *testing.T) {
			for range 20 {
				stopWhileBusy(t, voters)
			}
		})
	}
}

func stopWhileBusy(t *testing.T, voters int) {
	t.Helper()
	var all []*replica
	if voters == 1 {
		all = []*replica{startReplica(t, "a", "1", nil)}
		if err := all[0].Found([]Replica{all[0].self}); err != nil {
			t.Fatal(err)
		}
		leaderOf(t, all)
	} else {
		all = founded(t, nil)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for all[0].Raft().Apply([]byte("x"), time.Second).Error() == nil {
			}
		})
	}
	eventually(t, "at work", func() bool { return all[0].Raft().AppliedIndex() > 20 })
	for _, r := range all {
		start := time.Now()
		r.kill(t)
		t.Logf("Stop took %v", time.Since(start))
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("somebody still waits for an entry of a group that has stopped")
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	_, err := Start(Config{
		Self:   Replica{Node: "a/b", Addr: "x"},
		Timing: Timing{HeartbeatTimeout: 100 * time.Millisecond, LeaderLeaseTimeout: time.Second, RPCTimeout: time.Millisecond},
	})
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{"group:", "self: node:", "incarnation:", "addr:", "dir:", "fsm:", "port:", "timing.rpc_timeout:", "timing: LeaderLeaseTimeout"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
}

func TestAddress(t *testing.T) {
	r := Replica{"node-a", "0123", "[fe80::1%eth0]:7000"}
	if got, err := parseAddress(r.ServerAddress()); err != nil || got != r {
		t.Errorf("got %+v, error %v", got, err)
	}
	for _, bad := range []string{"", "node", "node/1", "node@h:1"} {
		if _, err := parseAddress(raft.ServerAddress(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
