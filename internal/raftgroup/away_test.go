package raftgroup

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/musterml/muster/internal/port"
)

// away is a network on which nobody answers until back.
type away struct {
	back  time.Time
	dials int
}

func (n *away) Handle(port.Protocol, string, port.Handler) func() { return func() {} }

func (n *away) Dial(context.Context, string, port.Protocol, string) (net.Conn, error) {
	n.dials++
	if time.Now().Before(n.back) {
		return nil, errors.New("connection refused")
	}
	near, far := net.Pipe()
	_ = far.Close()
	return near, nil
}

// However long a replica is away, an entry and a snapshot for it fail once, at the moment it is back: raft's pause after
// many failures would be ten seconds.
func TestAwayIsOneFailure(t *testing.T) {
	send := map[string]func(transport, raft.ServerAddress) error{
		"entry": func(t transport, to raft.ServerAddress) error {
			return t.AppendEntries("b", to, &raft.AppendEntriesRequest{PrevLogEntry: 7}, &raft.AppendEntriesResponse{})
		},
		"snapshot": func(t transport, to raft.ServerAddress) error {
			return t.InstallSnapshot("b", to, &raft.InstallSnapshotRequest{}, &raft.InstallSnapshotResponse{}, nil)
		},
		"heartbeat": func(t transport, to raft.ServerAddress) error {
			return t.AppendEntries("b", to, &raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{})
		},
	}
	for _, c := range []struct {
		what       string
		away, want time.Duration
	}{
		{"entry", 30 * time.Second, 30 * time.Second},
		{"snapshot", 30 * time.Second, 30 * time.Second},
		{"entry", time.Hour, awayPatience},
		{"heartbeat", time.Hour, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := &away{back: time.Now().Add(c.away)}
			cfg := Config{Group: "shard-0", Self: Replica{Node: "a", Incarnation: "1", Addr: "a:1"}, Port: n, Timing: Timing{DialTimeout: time.Second}}
			s := newStream(&cfg)
			trans := transport{raft.NewNetworkTransport(s, 1, time.Second, nil), &positions{}, s}
			start := time.Now()
			err := send[c.what](trans, Replica{Node: "b", Incarnation: "1", Addr: "b:1"}.ServerAddress())
			if took := time.Since(start); err == nil || took < c.want || took > c.want+time.Second {
				t.Errorf("%s to a replica that is away for %v: %v after %v, want an error after %v", c.what, c.away, err, took, c.want)
			}
			if err := trans.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
