package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/musterml/muster/internal/journal"
	"github.com/musterml/muster/internal/logadapt"
	"github.com/rs/zerolog"
)

// ErrLostLog is returned by Start when the identity has been used before and
// its log is gone.
var ErrLostLog = errors.New("this replica voted before and has lost its log; start it under a new incarnation")

// ErrDamaged is returned by Start when the snapshots on the disk are not what was written.
var ErrDamaged = errors.New("a snapshot is damaged; start this replica under a new incarnation")

// Group is one replica of a Raft group. All its methods may be called concurrently.
type Group struct {
	cfg       Config
	log       zerolog.Logger
	raft      *raft.Raft
	transport transport
	votes     *stable
	committed *committed
	remove    func() // the port's handler

	ctx    context.Context // ends when Stop begins
	cancel context.CancelFunc
	wg     sync.WaitGroup // watch and campaigns
	once   sync.Once
	stop   error

	mu       sync.Mutex
	stopping bool   // nothing more is added to wg
	stood    uint64 // the term in which LeaderGone last made this replica a candidate to be
}

// Start begins to take part in the group: at once where this life has taken
// part before; otherwise it waits, empty, to be founded or to be added by the
// leader of the group.
func Start(cfg Config) (*Group, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("raft group %s: %w", cfg.Group, err)
	}
	g, err := start(cfg)
	if err != nil {
		return nil, fmt.Errorf("raft group %s: %w", cfg.Group, err)
	}
	return g, nil
}

func start(cfg Config) (g *Group, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	log := cfg.Log.With().Str("group", cfg.Group).Logger()
	logger := logadapt.HCLog(log)
	dir := cfg.dir()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	votes, used, err := openStable(filepath.Join(dir, "ballot"), string(cfg.Self.ServerID()), waitForDisk(ctx, log))
	if err != nil {
		return nil, err
	}
	if cfg.Volatile {
		votes.write = writeThrough
	}
	var files raft.SnapshotStore = &memorySnapshots{}
	if !cfg.Volatile {
		if files, err = raft.NewFileSnapshotStoreWithLogger(dir, cfg.Snapshots.Retain, logger); err != nil {
			return nil, err
		}
	}
	machine := &committed{FSM: cfg.FSM}
	snapshots := watchedSnapshots{SnapshotStore: files, committed: machine}
	if !cfg.Volatile {
		snapshots.dir = dir
	}
	if list, err := files.List(); err == nil && len(list) > 0 {
		machine.note(list[0].ConfigurationIndex, list[0].Configuration)
	}
	if used || cfg.Known {
		if err := checkLog(cfg.Logs, snapshots, cfg.Volatile); err != nil {
			return nil, fmt.Errorf("replica %s: %w", cfg.Self.ServerID(), err)
		}
	}
	s := newStream(&cfg)
	trans := transport{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		// One request in flight: raft's pipeline can wait for ever on a consumer that
		// has gone (v1.8.0, netPipeline.AppendEntries), and then so does its shutdown.
		// Entries are batched and small, so nothing is lost by it.
		MaxRPCsInFlight: 1,
		Stream:          s, MaxPool: 3, Timeout: cfg.Timing.RPCTimeout, Logger: logger, MsgpackUseNewTimeFormat: true,
	}), &positions{}, s}
	conf := cfg.raft()
	conf.Logger = logger
	r, err := raft.NewRaft(conf, machine, cfg.Logs, votes, snapshots, trans)
	if err != nil {
		return nil, errors.Join(err, trans.Close())
	}
	g = &Group{cfg: cfg, log: log, raft: r, transport: trans, votes: votes, committed: machine, ctx: ctx, cancel: cancel}
	g.wg.Go(g.watch())
	g.remove = cfg.Port.Handle(portProtocol, topic(cfg.Group, cfg.Self), s.handle)
	return g, nil
}

// waitForDisk says why term and vote cannot be written, and waits a little, until ctx ends.
func waitForDisk(ctx context.Context, log zerolog.Logger) func(error) bool {
	return func(err error) bool {
		log.Error().Err(err).Msg("this replica waits until its disk takes writes again; make room in the folder of --data-dir")
		select {
		case <-time.After(time.Second):
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// checkLog finds out whether a replica that took part before still has its log.
// (An empty log behind a snapshot is one that a snapshot has replaced.)
func checkLog(logs raft.LogStore, snapshots raft.SnapshotStore, volatile bool) error {
	if volatile {
		return ErrLostLog
	}
	last, err := logs.LastIndex()
	if err != nil {
		return err
	}
	list, err := snapshots.List()
	if err != nil {
		return err
	}
	if last == 0 && len(list) == 0 {
		return ErrLostLog
	}
	return checkSnapshots(logs, snapshots, list)
}

// checkSnapshots finds out whether the snapshots and the log make up a state without a
// gap: raft falls back to an older snapshot when the newest is damaged, and would panic where the log
// does not reach back to it.
func checkSnapshots(logs raft.LogStore, snapshots raft.SnapshotStore, list []*raft.SnapshotMeta) error {
	good, damaged := uint64(0), ""
	for _, meta := range list { // the newest first
		_, r, err := snapshots.Open(meta.ID)
		if err == nil {
			good = meta.Index
			_ = r.Close() // only read
			break
		}
		damaged = fmt.Sprintf(" (%s: %v)", meta.ID, err)
	}
	first, err := logs.FirstIndex()
	if err != nil {
		return err
	}
	if good == 0 && len(list) > 0 || first > good+1 {
		return fmt.Errorf("%w%s: the log begins at entry %d, the newest snapshot that is whole ends at %d", ErrDamaged, damaged, first, good)
	}
	return nil
}

// Untrustworthy says of an error of Start that this identity does not know any more what
// it has stored and how it has voted: the replica can only come back under another one,
// to be filled by the others.
func Untrustworthy(err error) bool {
	var damage *journal.Damage
	return errors.Is(err, ErrLostLog) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrCorrupt) || errors.As(err, &damage)
}

// Found makes this replica, which must be one of them, and the others the first
// voters of the group, and elects a leader without waiting for a timeout. It is
// called on one replica, or on several with the same list in the same order,
// once in the life of a group; the others start empty and are found by the first
// leader. It returns raft.ErrCantBootstrap when this replica has taken part
// already.
func (g *Group) Found(replicas []Replica) error {
	var c raft.Configuration
	for _, r := range replicas {
		if err := r.validate(); err != nil {
			return fmt.Errorf("raft group %s: found: replica %s: %w", g.cfg.Group, r, err)
		}
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: r.ServerID(), Address: r.ServerAddress()})
	}
	if err := g.raft.BootstrapCluster(c).Error(); err != nil {
		return fmt.Errorf("raft group %s: found: %w", g.cfg.Group, err)
	}
	// Several founders take turns, or each would vote for itself.
	if turn, ok := g.turn(); ok {
		g.background(func() {
			if g.await(turn, g.raft.CurrentTerm(), nil) {
				g.stand()
			}
		})
	}
	return nil
}

// Raft is the replica itself, for Apply, Barrier, Snapshot and the like. Its
// LeaderCh is taken: use OnLeader.
func (g *Group) Raft() *raft.Raft { return g.raft }

// Members are the replicas of the latest configuration, with a vote and without; settled says
// that it is committed. None is the truth of a group that is shut down.
func (g *Group) Members() (voters, learners []Replica, settled bool) {
	future := g.raft.GetConfiguration()
	members, err := g.Replicas()
	if err != nil || future.Error() != nil {
		return nil, nil, false
	}
	for _, m := range members {
		if m.Voter {
			voters = append(voters, m.Replica)
		} else {
			learners = append(learners, m.Replica)
		}
	}
	return voters, learners, g.committed.is(future.Configuration())
}

// RemoveFiles removes what this life has on the disk. It is called after Stop.
func (g *Group) RemoveFiles() error { return os.RemoveAll(g.cfg.dir()) }

// Replicas returns the latest configuration that this replica has seen,
// committed or not; it is empty before the replica is founded or added.
func (g *Group) Replicas() ([]Member, error) {
	future := g.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, fmt.Errorf("raft group %s: %w", g.cfg.Group, err)
	}
	var members []Member
	for _, s := range future.Configuration().Servers {
		r, err := parseAddress(s.Address)
		if err != nil {
			return nil, fmt.Errorf("raft group %s: %w", g.cfg.Group, err)
		}
		members = append(members, Member{Replica: r, Voter: s.Suffrage == raft.Voter})
	}
	return members, nil
}
