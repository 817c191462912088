package raftgroup

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	"github.com/rs/zerolog"
)

// who reads "a1" as incarnation 1 of node a.
func who(short string) Replica {
	return Replica{id.Node(short[:1]), id.Incarnation(short[1:2]), "h:" + short[1:]}
}

func TestNextStep(t *testing.T) {
	silent := errors.New("no answer")
	tests := []struct {
		name  string
		have  string // "+" marks a non-voter; the leader is a1
		want  string
		ready string // non-voters that have caught up
		step  string
		err   bool
	}{
		{name: "nothing to do", have: "a1 b1 c1", want: "a1 b1 c1", step: "nothing"},
		{name: "order does not matter", have: "c1 a1 b1", want: "a1 b1 c1", step: "nothing"},
		{name: "an earlier life goes first", have: "a1 b1 c1", want: "a1 b1 c2", step: "removed c1"},
		{name: "even one without a vote", have: "a1 b1 +c1", want: "a1 b1 c2", ready: "c1", step: "removed c1"},
		{name: "then the later life learns", have: "a1 b1", want: "a1 b1 c2", step: "added as a non-voter c2"},
		{name: "it waits to catch up", have: "a1 b1 +c2", want: "a1 b1 c2", step: "nothing"},
		{name: "and votes", have: "a1 b1 +c2", want: "a1 b1 c2", ready: "c2", step: "made a voter c2"},
		{name: "one that lags holds up no other", have: "a1 +b2 +c2", want: "a1 b2 c2", ready: "c2", step: "made a voter c2"},
		{name: "nor one that is silent", have: "a1 +x2 +c2", want: "a1 x2 c2", ready: "c2", step: "made a voter c2"},
		{name: "silence is reported", have: "a1 b1 +x2", want: "a1 b1 x2", step: "nothing", err: true},
		{name: "the unwanted stay while they are needed", have: "a1 b1 c1 +d1", want: "a1 b1 d1", step: "nothing"},
		{name: "and go last", have: "a1 b1 c1 d1", want: "a1 b1 d1", step: "removed c1"},
		{name: "an unwanted leader hands over", have: "a1 b1 c1 d1", want: "b1 c1 d1", step: "handed over by a1"},
		{name: "after removing the others", have: "a1 b1 c1 d1", want: "b1 c1", step: "removed d1"},
		{name: "an outlived leader hands over", have: "a1 b1 c1", want: "a2 b1 c1", step: "handed over by a1"},
		{name: "nobody wanted", have: "a1 b1 c1", want: "", step: "nothing", err: true},
		{name: "two lives wanted", have: "a1 b1 c1", want: "a1 b1 b2", step: "nothing", err: true},
		{name: "a bad address", have: "a1 b1", want: "a1 b1 c1?", step: "nothing", err: true},
		{name: "any life stays", have: "a1 b1 c3", want: "a1 b1 c", step: "nothing"},
		{name: "any life of a newcomer is waited for", have: "a1 b1 d1", want: "a1 b1 c", step: "nothing"},
		{name: "any life that has no vote is waited for", have: "a1 b1 d1 +c3", want: "a1 b1 c", step: "nothing"},
		{name: "any life makes room for nobody", have: "a1 b1 c3 d1", want: "a1 b1 c", step: "removed d1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var have []Member
			for _, f := range strings.Fields(test.have) {
				have = append(have, Member{Replica: who(strings.TrimPrefix(f, "+")), Voter: !strings.HasPrefix(f, "+")})
			}
			var want []Replica
			for _, f := range strings.Fields(test.want) {
				if len(f) < 2 { // any life
					want = append(want, Replica{Node: id.Node(f)})
					continue
				}
				if f[2:] == "?" {
					want = append(want, Replica{Node: id.Node(f[:1]), Incarnation: id.Incarnation(f[1:2])})
					continue
				}
				want = append(want, who(f))
			}
			c, err := next(have, want, who("a1"), func(r Replica) (bool, error) {
				if r.Node == "x" {
					return false, silent
				}
				return strings.Contains(test.ready, string(r.Node)+string(r.Incarnation)), nil
			})
			got := c.kind.String()
			if c.kind != changeNone {
				got += " " + string(c.replica.Node) + string(c.replica.Incarnation)
			}
			if got != test.step || (err != nil) != test.err {
				t.Errorf("step %q, error %v; want %q, error %t", got, err, test.step, test.err)
			}
		})
	}
}

func TestNextStepCorrectsAddresses(t *testing.T) {
	moved := who("b1")
	moved.Addr = "elsewhere:1"
	want := []Replica{who("a1"), moved}
	for voter, step := range map[bool]changeKind{true: changePromote, false: changeAdd} {
		c, err := next([]Member{{who("a1"), true}, {who("b1"), voter}}, want, who("a1"), nil)
		if err != nil || c != (change{step, moved}) {
			t.Errorf("voter %t: %+v, error %v", voter, c, err)
		}
	}
}

// reconcile calls Reconcile on whoever leads until the members are as wanted.
func reconcile(t *testing.T, all []*replica, want []Replica) {
	t.Helper()
	applied := func(r Replica) (uint64, error) {
		for _, x := range all {
			if x.self == r {
				return x.Raft().AppliedIndex(), nil
			}
		}
		return 0, errors.New("nobody there")
	}
	eventually(t, "the wanted replicas vote", func() bool {
		for _, r := range all {
			if !r.IsLeader() {
				continue
			}
			if err := r.Reconcile(want, applied); err != nil {
				t.Log(err)
			}
			members, err := r.Replicas()
			if err != nil || len(members) != len(want) {
				return false
			}
			voting := map[Replica]bool{}
			for _, m := range members {
				voting[m.Replica] = m.Voter
			}
			for _, w := range want {
				if !voting[w] {
					return false
				}
			}
			return r.IsLeader()
		}
		return false
	})
}

// A node ends and comes back at the same address under the same name, as a
// restart is: its earlier life is turned away, the new one learns, then votes.
func TestRestartedNodeRejoins(t *testing.T) {
	quick := func(c *Config) { c.Snapshots.Trailing = 1 }
	all := founded(t, quick)
	lead, other, gone := all[0], all[1], all[2]
	for range 20 {
		apply(t, lead, "x")
	}
	gone.kill(t)
	// The log is cut, so the joiner has to be sent a snapshot.
	if err := lead.Raft().Snapshot().Error(); err != nil {
		t.Fatal(err)
	}

	p, err := port.Listen(port.Config{Listen: gone.self.Addr, Node: gone.self.Node, Cluster: "test", Job: [32]byte{1}, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	self := gone.self
	self.Incarnation = "2"
	back := &replica{self: self, fsm: &tape{}, port: p}
	cfg := Config{Group: "shard-0", Self: self, Dir: t.TempDir(), FSM: back.fsm, Port: p, Log: zerolog.Nop()}
	if back.Group, err = Start(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { back.kill(t) })

	// The leader still calls the earlier life, at this very address.
	if _, err := lead.transport.stream.Dial(gone.self.ServerAddress(), time.Second); !errors.Is(err, port.ErrNoTopic) {
		t.Errorf("a message to the earlier life: %v, want ErrNoTopic", err)
	}
	for range 20 {
		apply(t, lead, "y")
	}
	if members, err := back.Replicas(); err != nil || len(members) != 0 || back.Raft().LastIndex() != 0 {
		t.Errorf("the new life was taken for the old: members %v, last index %d, error %v", members, back.Raft().LastIndex(), err)
	}

	start := time.Now()
	now := []*replica{lead, other, back}
	reconcile(t, now, []Replica{lead.self, other.self, back.self})
	t.Logf("the new life votes %v after it was wanted", time.Since(start).Round(time.Millisecond))
	apply(t, leaderOf(t, now), "z")
	want := strings.Repeat("x,", 20) + strings.Repeat("y,", 20) + "z"
	for _, r := range now {
		eventually(t, "all applied", func() bool { return r.fsm.text() == want })
	}

	// And it counts: with one of the others gone, it makes the majority.
	lead.kill(t)
	apply(t, leaderOf(t, []*replica{other, back}), "!")
}

func TestReplaceEveryReplica(t *testing.T) {
	old := founded(t, nil)
	apply(t, old[0], "x")
	all := append([]*replica(nil), old...)
	var want []Replica
	for _, node := range []id.Node{"d", "e", "f"} {
		r := startReplica(t, node, "1", nil)
		all, want = append(all, r), append(want, r.self)
	}
	reconcile(t, all, want)
	for _, r := range old {
		r.kill(t)
	}
	apply(t, leaderOf(t, all[3:]), "y")
	for _, r := range all[3:] {
		eventually(t, "all applied", func() bool { return r.fsm.text() == "x,y" })
	}
}

func TestReconcileNeedsTheLeader(t *testing.T) {
	all := founded(t, nil)
	if err := all[1].Reconcile([]Replica{all[1].self}, nil); !errors.Is(err, raft.ErrNotLeader) {
		t.Errorf("got %v, want raft.ErrNotLeader", err)
	}
}
