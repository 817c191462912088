package raftgroup

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/musterml/muster/internal/id"
)

func TestFailover(t *testing.T) {
	for _, campaign := range []bool{false, true} {
		t.Run(fmt.Sprintf("campaign=%t", campaign), func(t *testing.T) {
			all := founded(t, nil)
			apply(t, all[0], "x")
			took := failover(t, all, campaign)
			t.Logf("a new leader has committed %v after the old one went", took.Round(100*time.Microsecond))
			lead := leaderOf(t, all[1:])
			apply(t, lead, "y")
			for _, r := range all[1:] {
				eventually(t, "y applied", func() bool { return r.fsm.text() == "x,y" })
			}
		})
	}
}

// failover kills the first replica, the leader, and returns how long the others
// took to elect another and to commit.
func failover(t testing.TB, all []*replica, campaign bool) time.Duration {
	t.Helper()
	caughtUp(t, all)
	all[0].kill(t)
	start := time.Now()
	if campaign {
		for _, r := range all[1:] {
			r.LeaderGone(all[0].self)
		}
	}
	leaderOf(t, all[1:])
	return time.Since(start)
}

// A voter that accepts connections and never says a word (a machine without
// power behind a switch, a stopped process) delays neither the leader's
// heartbeats to the others nor the next election.
func TestMuteVoterDelaysNobody(t *testing.T) {
	const patience = 600 * time.Millisecond
	mute, err := net.Listen("tcp", "127.0.0.1:0") // the backlog accepts
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	var all []*replica
	replicas := []Replica{{"mute", "1", mute.Addr().String()}}
	for _, node := range []id.Node{"a", "b", "c", "d"} {
		r := startReplica(t, node, "1", func(c *Config) {
			// Twice the defaults, all of them, for busy machines.
			c.Timing.HeartbeatTimeout, c.Timing.DialTimeout = patience, patience
		})
		all, replicas = append(all, r), append(replicas, r.self)
	}
	if err := all[0].Found(replicas); err != nil {
		t.Fatal(err)
	}
	lead := leaderOf(t, all)
	for i, r := range all {
		if r == lead {
			all[0], all[i] = r, all[0]
		}
	}
	for _, r := range all { // none of them may miss its leader for a whole timeout
		eventually(t, "all follow", func() bool { l, ok := r.Leader(); return ok && l == lead.self })
	}
	term := lead.Raft().CurrentTerm()
	end := time.After(3 * patience)
	for i := 0; ; i++ {
		if err := lead.Raft().Apply([]byte("x"), 5*time.Second).Error(); err != nil {
			t.Skipf("this machine is so busy that the leader lost its office (%v): nothing can be said of the mute one", err)
		}
		select {
		case <-end:
			// Times are told, not judged: they hang on what else the machine does.
			took := failover(t, all, true)
			t.Logf("%d entries in terms %d to %d; the next leader has committed after %v",
				i, term, lead.Raft().CurrentTerm(), took.Round(100*time.Microsecond))
			return
		default:
		}
	}
}

// news records what OnLeader is told.
type news struct {
	mu  sync.Mutex
	all map[id.Node][]string
}

func (n *news) edit(c *Config) {
	node := c.Self.Node
	c.OnLeader = func(leader Replica, known bool) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.all[node] = append(n.all[node], fmt.Sprintf("%s %t", leader.Node, known))
	}
}

func (n *news) last(node id.Node) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.all[node]) == 0 {
		return ""
	}
	return n.all[node][len(n.all[node])-1]
}

func TestOnLeader(t *testing.T) {
	n := &news{all: map[id.Node][]string{}}
	all := founded(t, n.edit)
	told := func(r *replica, want string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s is told %q", r.self.Node, want), func() bool { return n.last(r.self.Node) == want })
	}
	for _, r := range all {
		told(r, string(all[0].self.Node)+" true")
	}
	caughtUp(t, all)
	all[0].kill(t)
	all[1].Campaign()
	for _, r := range all[1:] {
		told(r, string(all[1].self.Node)+" true")
	}
	// A leader that has lost its majority steps down, and says so.
	all[2].kill(t)
	told(all[1], " false")
}

func TestCampaignIsGuarded(t *testing.T) {
	all := founded(t, nil)
	lead, follower := all[0], all[1]
	learner := startReplica(t, "d", "1", nil)
	if err := lead.Raft().AddNonvoter(learner.self.ServerID(), learner.self.ServerAddress(), 0, 0).Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the learner follows", func() bool { _, ok := learner.Leader(); return ok })
	term := lead.Raft().CurrentTerm()

	lead.Campaign()
	learner.Campaign()
	learner.LeaderGone(lead.self)
	follower.LeaderGone(all[2].self)                          // not the leader
	follower.LeaderGone(Replica{lead.self.Node, "other", ""}) // another life of it
	for range 50 {
		apply(t, lead, "x")
	}
	caughtUp(t, append(all, learner))
	if now := lead.Raft().CurrentTerm(); now != term {
		t.Errorf("term %d became %d", term, now)
	}

	follower.LeaderGone(Replica{Node: lead.self.Node}) // any life
	eventually(t, "the next term", func() bool { return lead.Raft().CurrentTerm() > term })
	follower.kill(t)
	follower.Campaign() // after Stop: nothing
}

// A candidate that lacks a committed entry loses, however early it stands.
func TestCampaignNeedsTheLog(t *testing.T) {
	all := founded(t, nil)
	behind := all[2]
	behind.kill(t)
	apply(t, all[0], "x")
	// Its earlier life, as it was before x, may not win against one that has x.
	if all[1].Raft().LastIndex() < all[0].Raft().CommitIndex() {
		eventually(t, "the follower has x", func() bool { return all[1].fsm.text() == "x" })
	}
	var response raft.RequestVoteResponse
	request := &raft.RequestVoteRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(behind.self.ServerID()), Addr: []byte(behind.self.ServerAddress())},
		Term:      all[0].Raft().CurrentTerm() + 1, LastLogIndex: 1, LastLogTerm: 1, LeadershipTransfer: true,
	}
	err := all[0].transport.RequestVote(all[1].self.ServerID(), all[1].self.ServerAddress(), request, &response)
	if err != nil || response.Granted {
		t.Errorf("granted %t, error %v", response.Granted, err)
	}
}

// deaf is a log that refuses entries when told so, like a full disk.
type deaf struct {
	raft.LogStore
	on atomic.Bool
}

func (d *deaf) StoreLogs(logs []*raft.Log) error {
	if d.on.Load() {
		return errors.New("deaf")
	}
	return d.LogStore.StoreLogs(logs)
}

// Whoever has the newest log stands first, also where the configuration names it last.
func TestNewestLogStandsFirst(t *testing.T) {
	logs := map[id.Node]*deaf{}
	all := founded(t, func(c *Config) {
		logs[c.Self.Node] = &deaf{LogStore: raft.NewInmemStore()}
		c.Logs, c.Volatile = logs[c.Self.Node], true
	})
	caughtUp(t, all)
	gone := []Replica{all[0].self}
	behind, newest := all[1], all[2]
	eventually(t, "with the same log the configuration decides", func() bool { return behind.rank(gone)+newest.rank(gone) == 1 })
	if behind.rank(gone) > newest.rank(gone) {
		behind, newest = newest, behind
	}
	logs[behind.self.Node].on.Store(true)
	apply(t, all[0], "x")
	term := all[0].Raft().CurrentTerm()
	all[0].kill(t)
	logs[behind.self.Node].on.Store(false)
	eventually(t, "the newest log is first", func() bool { return newest.rank(gone) == 0 && behind.rank(gone) == 1 })
	start := time.Now()
	for range 3 { // who tells it again in the meantime changes nothing
		behind.LeaderGone(gone...)
		newest.LeaderGone(gone...)
	}
	lead := leaderOf(t, []*replica{behind, newest})
	t.Logf("it has committed after %v and %d terms", time.Since(start).Round(100*time.Microsecond), lead.Raft().CurrentTerm()-term)
	if lead != newest {
		t.Errorf("%s leads, which lacks a committed entry", lead.self)
	}
	eventually(t, "x applied", func() bool { return behind.fsm.text() == "x" })
}

// The times behind the claim in doc.go, with everything on one machine.
func BenchmarkFailover(b *testing.B) {
	for _, campaign := range []bool{false, true} {
		b.Run(fmt.Sprintf("campaign=%t", campaign), func(b *testing.B) {
			var sum, worst time.Duration
			for range b.N {
				b.StopTimer()
				all := founded(b, nil)
				b.StartTimer()
				took := failover(b, all, campaign)
				b.StopTimer()
				sum, worst = sum+took, max(worst, took)
				for _, r := range all {
					r.kill(b)
				}
			}
			b.ReportMetric(float64(sum.Microseconds())/1000/float64(b.N), "ms/failover")
			b.ReportMetric(float64(worst.Microseconds())/1000, "ms/worst")
		})
	}
}

func BenchmarkCommit(b *testing.B) {
	all := founded(b, nil)
	entry := make([]byte, 64)
	for b.Loop() {
		if err := all[0].Raft().Apply(entry, time.Second).Error(); err != nil {
			b.Fatal(err)
		}
	}
}
