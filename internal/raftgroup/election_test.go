package raftgroup

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/musterml/muster/internal/id"
	"github.com/rs/zerolog"
)

// alone starts the third replica of a group whose other two cannot be reached; what they
// would say is said by the test, with c's own transport.
func alone(t *testing.T, edit func(*Config)) (c *replica, a, b Replica) {
	t.Helper()
	c = startReplica(t, "c", "1", func(cfg *Config) {
		cfg.Timing.HeartbeatTimeout, cfg.Timing.DialTimeout = 200*time.Millisecond, 50*time.Millisecond
		if edit != nil {
			edit(cfg)
		}
	})
	a, b = Replica{"a", "1", "127.0.0.1:1"}, Replica{"b", "1", "127.0.0.1:1"}
	if err := c.Found([]Replica{a, b, c.self}); err != nil {
		t.Fatal(err)
	}
	return c, a, b
}

func header(r Replica) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(r.ServerID()), Addr: []byte(r.ServerAddress())}
}

// counter counts lines of a log that hold a text.
type counter struct {
	text string
	mu   sync.Mutex
	n    int
}

func (c *counter) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte(c.text)) {
		c.mu.Lock()
		c.n++
		c.mu.Unlock()
	}
	return len(line), nil
}

func (c *counter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// A replica that is cut off asks for votes again and again, but its term stands still: so
// when it is back it does not throw the others out of theirs (pre-vote).
func TestCutOffReplicaKeepsItsTerm(t *testing.T) {
	asks := &counter{text: "entering candidate state"}
	c, _, _ := alone(t, func(cfg *Config) { cfg.Log = zerolog.New(asks) })
	// Founding has it stand once without asking first.
	eventually(t, "it asks for the second time", func() bool { return asks.count() >= 2 })
	term := c.Raft().CurrentTerm()
	eventually(t, "it has asked six times", func() bool { return asks.count() >= 6 })
	if now := c.Raft().CurrentTerm(); now != term {
		t.Errorf("after %d attempts term %d became %d", asks.count(), term, now)
	}
}

// A candidate that stood by TimeoutNow notes who won its term but remains a candidate (raft
// v1.8.0). When that leader dies at once, it must not believe in it for ever, or it would
// deny its vote to the only one who can be elected.
func TestConfusedCandidateForgets(t *testing.T) {
	c, a, b := alone(t, nil)
	eventually(t, "a candidate that knows a leader", func() bool {
		c.stand()
		request := &raft.AppendEntriesRequest{RPCHeader: header(b), Term: c.Raft().CurrentTerm()}
		var response raft.AppendEntriesResponse
		if err := c.transport.AppendEntries(c.self.ServerID(), c.self.ServerAddress(), request, &response); err != nil {
			t.Fatal(err)
		}
		leader, known := c.Leader()
		return known && leader == b && c.Raft().State() == raft.Candidate
	})
	eventually(t, "c would vote for a", func() bool {
		request := &raft.RequestPreVoteRequest{RPCHeader: header(a), Term: c.Raft().CurrentTerm() + 10, LastLogIndex: 100, LastLogTerm: c.Raft().CurrentTerm()}
		var response raft.RequestPreVoteResponse
		err := c.transport.RequestPreVote(c.self.ServerID(), c.self.ServerAddress(), request, &response)
		if err != nil {
			t.Fatal(err)
		}
		return response.Granted
	})
}

// When votes are split those who stood do so again long before Raft's timeout.
func TestSplitVotes(t *testing.T) {
	asks := &counter{text: "entering candidate state"}
	c, a, _ := alone(t, func(cfg *Config) {
		cfg.Timing.HeartbeatTimeout, cfg.Timing.RPCTimeout, cfg.Log = time.Hour, time.Hour, zerolog.New(asks)
	})
	eventually(t, "it has stood as founder", func() bool { return asks.count() == 1 })
	request := &raft.AppendEntriesRequest{RPCHeader: header(a), Term: c.Raft().CurrentTerm() + 1}
	var response raft.AppendEntriesResponse
	if err := c.transport.AppendEntries(c.self.ServerID(), c.self.ServerAddress(), request, &response); err != nil {
		t.Fatal(err)
	}
	c.LeaderGone(a)
	eventually(t, "it has stood again, and again", func() bool { return asks.count() >= 4 })
}

// A leader is given up when a majority of the voters does not hear it, and not for one voter's word.
func TestLeaderSilent(t *testing.T) {
	all := founded(t, nil)
	caughtUp(t, all)
	lead, first, second := all[0], all[1], all[2]
	eventually(t, "all follow", func() bool {
		a, _ := first.Leader()
		b, _ := second.Leader()
		return a == lead.self && b == lead.self
	})
	words := func(of ...*replica) func(who, to id.Node) bool {
		return func(who, to id.Node) bool {
			return to == lead.self.Node && slices.ContainsFunc(of, func(r *replica) bool { return r.self.Node == who })
		}
	}
	for _, r := range all {
		if r.LeaderSilent(words()) || r.LeaderSilent(words(first)) {
			t.Errorf("%s gives its leader up for one voter's word", r.self)
		}
	}
	if lead.LeaderSilent(words(first, second)) {
		t.Error("the leader gives itself up")
	}
	term := lead.Raft().CurrentTerm()
	for _, r := range all[1:] {
		if !r.LeaderSilent(words(first, second)) {
			t.Errorf("%s does not give up a leader that nobody hears", r.self)
		}
	}
	eventually(t, "another one leads", func() bool {
		leader, known := lead.Leader()
		return known && leader != lead.self && lead.Raft().CurrentTerm() > term
	})
}

// A leader promotes a learner, commits that with it alone, and dies: the third replica knows nothing of it, and must vote
// for the new voter all the same, whose log is the newest.
func TestPromotionThatOneHasHeardOf(t *testing.T) {
	logs := map[id.Node]*deaf{}
	all := founded(t, func(c *Config) {
		logs[c.Self.Node] = &deaf{LogStore: raft.NewInmemStore()}
		c.Logs, c.Volatile = logs[c.Self.Node], true
	})
	lead, other, learner := all[0], all[1], all[2]
	if err := lead.Raft().DemoteVoter(learner.self.ServerID(), 0, 5*time.Second).Error(); err != nil {
		t.Fatal(err)
	}
	caughtUp(t, all)
	logs[other.self.Node].on.Store(true)
	if err := lead.Raft().AddVoter(learner.self.ServerID(), learner.self.ServerAddress(), 0, 5*time.Second).Error(); err != nil {
		t.Fatal(err)
	}
	apply(t, lead, "x")
	lead.kill(t)
	logs[other.self.Node].on.Store(false)
	if now := leaderOf(t, []*replica{other, learner}); now != learner {
		t.Errorf("%s leads, which lacks a committed entry", now.self)
	}
	eventually(t, "x applied", func() bool { return other.fsm.text() == "x" && learner.fsm.text() == "x" })
}
