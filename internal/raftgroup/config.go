package raftgroup

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	"github.com/musterml/muster/internal/port"
	"github.com/rs/zerolog"
)

// Config says which group, who this replica is, and what it replicates.
type Config struct {
	Group string
	Self  Replica
	// Dir keeps term, vote and snapshots, in a folder for each group and life;
	// groups and lives may share it.
	Dir string
	// Known says that this identity has taken part before, so that a folder without its
	// vote is not a new one, but one that was lost.
	Known bool
	FSM   raft.FSM
	// Logs is where entries go; nil keeps them in memory. StoreLogs blocks the
	// replica: while it waits, no vote is given, and after Timing.RPCTimeout the
	// leader sends again.
	Logs raft.LogStore
	// Volatile says that Logs does not outlive the process, so that this identity
	// must not either. Nil Logs imply it.
	Volatile  bool
	Port      port.Network
	Timing    Timing
	Snapshots Snapshots
	// Locate, when set, says where a replica is to be found now; nil: at its address.
	Locate func(Replica) (addr string)
	Log    zerolog.Logger
	// OnLeader, when set, is told who leads, as this replica sees it: after every
	// change, and again when the same leader has a new term. It is called from
	// one goroutine; changes during a call are reported as one. It must not call
	// Stop.
	OnLeader func(leader Replica, known bool)
}

// Timing holds the protocol's times. Zero fields get the default.
type Timing struct {
	HeartbeatTimeout   time.Duration // 500 ms: without the leader, before standing for election (at random up to twice that)
	ElectionTimeout    time.Duration // 500 ms: without a result, before standing again
	LeaderLeaseTimeout time.Duration // two thirds of that: without a majority, before stepping down
	CommitTimeout      time.Duration // 5 ms: idle, before telling followers what is committed
	DialTimeout        time.Duration // 300 ms: for a connection to a replica
	// RPCTimeout (3 s) is for one message and its answer. It is longer than
	// StoreLogs may take; that a silent peer holds one goroutine that long delays
	// nobody else, because each peer has its own for heartbeats, for entries and
	// for votes.
	RPCTimeout time.Duration
}

// Snapshots says when the log is cut. Zero fields get the default.
type Snapshots struct {
	Interval  time.Duration // 30 s: how often to look
	Threshold uint64        // 8192: entries since the last snapshot that call for one
	Trailing  uint64        // 1024: entries kept behind a snapshot for followers that lag
	Retain    int           // 2: snapshots kept on disk
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// validate fills in the defaults and reports everything that is wrong at once.
func (c *Config) validate() error {
	t, s := &c.Timing, &c.Snapshots
	if c.Logs == nil {
		c.Logs, c.Volatile = raft.NewInmemStore(), true
	}
	orDefault(&t.HeartbeatTimeout, 500*time.Millisecond)
	orDefault(&t.ElectionTimeout, t.HeartbeatTimeout)
	orDefault(&t.LeaderLeaseTimeout, t.HeartbeatTimeout*2/3)
	orDefault(&t.CommitTimeout, 5*time.Millisecond)
	orDefault(&t.DialTimeout, 300*time.Millisecond)
	orDefault(&t.RPCTimeout, 3*time.Second)
	orDefault(&s.Interval, 30*time.Second)
	orDefault(&s.Threshold, 8192)
	orDefault(&s.Trailing, 1024)
	orDefault(&s.Retain, 2)

	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.Group != "", "group: the name is empty")
	if err := c.Self.validate(); err != nil {
		errs = append(errs, fmt.Errorf("self: %w", err))
	}
	check(c.Dir != "", "dir: term, vote and snapshots need a folder")
	check(c.FSM != nil, "fsm: missing")
	check(c.Port != nil, "port: missing")
	check(t.DialTimeout > 0, "timing.dial_timeout: %v must be positive", t.DialTimeout)
	check(t.RPCTimeout >= t.HeartbeatTimeout, "timing.rpc_timeout: %v must be at least heartbeat_timeout (%v)", t.RPCTimeout, t.HeartbeatTimeout)
	check(s.Retain > 0, "snapshots.retain: %d must be positive", s.Retain)
	if err := raft.ValidateConfig(c.raft()); err != nil {
		errs = append(errs, fmt.Errorf("timing: %w", err))
	}
	return errors.Join(errs...)
}

// batch is the most entries that are sent at once. A replica stores all of them or none, and may have to fetch what they refer
// to first: one that is behind must not need more at once than it may hold.
const batch = 8

// raft is raft's own part of the configuration.
func (c *Config) raft() *raft.Config {
	r := raft.DefaultConfig()
	r.LocalID = c.Self.ServerID()
	r.HeartbeatTimeout = c.Timing.HeartbeatTimeout
	r.ElectionTimeout = c.Timing.ElectionTimeout
	r.LeaderLeaseTimeout = c.Timing.LeaderLeaseTimeout
	r.CommitTimeout = c.Timing.CommitTimeout
	r.SnapshotInterval = c.Snapshots.Interval
	r.SnapshotThreshold = c.Snapshots.Threshold
	r.TrailingLogs = c.Snapshots.Trailing
	r.MaxAppendEntries = batch
	r.ShutdownOnRemove = false // the owner decides when a group stops
	r.NoLegacyTelemetry = true
	return r
}

// dir is the folder of one life in one group. Lives are apart because a
// snapshot brings its configuration with it: one of an earlier life would make
// a replica of a group founded anew wait for members that are gone for good.
func (c *Config) dir() string {
	return filepath.Join(c.Dir, url.PathEscape(c.Group), url.PathEscape(string(c.Self.Incarnation)))
}
