package ps

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/internal/raftgroup"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/ps/table"
)

// ServerConfig is what the shards of one node have in common. Zero durations and limits
// mean the defaults named.
type ServerConfig struct {
	Self      raftgroup.Replica
	Layout    Layout
	Optimizer optim.Optimizer
	Half      Half   // speaks to clients that have one; nil refuses them
	Dir       string // term and vote, one directory for each shard and life; with Durable the log and snapshots, too
	Port      port.Network
	Timing    raftgroup.Timing
	Log       zerolog.Logger

	// Tables are sparse tables, to which a step has a part of each logical shard; none: there is only the dense vector.
	Tables        []table.Config
	LogicalShards int

	// Durable has the log on the disk: what is committed is on the disks of a majority,
	// and an identity outlives its process. Without it, every process needs another one.
	Durable bool
	// Life, when set, says under which identity this node is in a shard, and whether that
	// has taken part before; nil: that of Self, which has not.
	Life func(id.ParamShard) (identity id.Incarnation, known bool)
	// Locate, when set, says where a replica is to be found now; nil: where it was when it
	// was added.
	Locate func(raftgroup.Replica) (addr string)

	// OnLeader is called whenever this node learns of a shard's leader. It must not block.
	OnLeader func(shard id.ParamShard, leader raftgroup.Replica, term uint64)

	PayloadTimeout time.Duration // 2 s: without progress, before StoreLogs gives up a payload
	Patience       time.Duration // 500 ms: without a byte, before a connection is given up
	PendingKeep    time.Duration // 10 s: before a payload that was never proposed is dropped
	LogLimit       int64         // bytes of payloads in a shard's log; max(64 MiB, the shard's state)
}

func (c *ServerConfig) validate() error {
	errs := []error{c.Layout.Validate()}
	if c.Optimizer == nil {
		errs = append(errs, errors.New("ps: Optimizer is missing"))
	}
	if c.Port == nil {
		errs = append(errs, errors.New("ps: Port is missing"))
	}
	if c.Dir == "" {
		errs = append(errs, errors.New("ps: Dir is missing"))
	}
	if !floats.LittleEndian {
		errs = append(errs, errors.New("ps: this machine is big-endian; only little-endian ones can take part"))
	}
	if c.LogLimit < 0 {
		errs = append(errs, fmt.Errorf("ps: LogLimit is %d, must be at least 0", c.LogLimit))
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"PayloadTimeout", &c.PayloadTimeout, 2 * time.Second},
		{"Patience", &c.Patience, 500 * time.Millisecond},
		{"PendingKeep", &c.PendingKeep, 10 * time.Second},
	} {
		if *d.value < 0 {
			errs = append(errs, fmt.Errorf("ps: %s is %v, must be at least 0", d.name, *d.value))
		}
		*d.value = cmp.Or(*d.value, d.def)
	}
	return errors.Join(errs...)
}

// Server hosts this node's replicas.
type Server struct {
	cfg     ServerConfig
	bytesIn atomic.Uint64

	mu       sync.Mutex
	replicas map[id.ParamShard]*replica
	stopped  bool
}

// NewServer checks the configuration; Start brings up the shards.
func NewServer(cfg ServerConfig) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, replicas: map[id.ParamShard]*replica{}}, nil
}

// Start begins to host a replica of the shard. found is the founding set, given to
// exactly the replicas in it and only when the shard has never run; nil waits to be
// added by the shard's leader (Reconcile).
func (s *Server) Start(shard id.ParamShard, found []raftgroup.Replica) error {
	if shard < 0 || int(shard) >= s.cfg.Layout.Shards {
		return fmt.Errorf("ps: %v is not one of %d", shard, s.cfg.Layout.Shards)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return ErrClosed
	}
	if s.replicas[shard] != nil {
		return fmt.Errorf("ps: %v runs already", shard)
	}
	r, err := newReplica(&s.cfg, shard, &s.bytesIn)
	if err == nil {
		err = r.start(found)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("ps: start %v: %w", shard, err), r.stop())
	}
	s.replicas[shard] = r
	return nil
}

// all is the replicas in the order of their shards.
func (s *Server) all() []*replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rs []*replica
	for _, r := range s.replicas {
		rs = append(rs, r)
	}
	slices.SortFunc(rs, func(a, b *replica) int { return cmp.Compare(a.shard, b.shard) })
	return rs
}

// Reconcile takes one step towards the wanted replicas in every shard that this node
// leads: remove an earlier life, add a learner, promote one that has caught up. It is
// meant to be called about every 200 ms; shards are reconciled side by side, so that one
// that is stuck does not hold up the others.
func (s *Server) Reconcile(want func(id.ParamShard) []raftgroup.Replica) {
	var wg sync.WaitGroup
	for _, r := range s.all() {
		if !r.leads() {
			continue
		}
		wg.Go(func() {
			if err := r.group.Reconcile(want(r.shard), r.applied); err != nil {
				r.log.Debug().Err(err).Msg("reconcile")
			}
			poke(r.changed)
		})
	}
	wg.Wait()
}

// LeaderGone says that the processes of these nodes are known to be gone; every survivor
// is to be told. In every shard that one of them leads the survivors then stand for
// election in turn, see raftgroup. A wrong word costs an election and nothing else.
func (s *Server) LeaderGone(gone ...id.Node) {
	lives := make([]raftgroup.Replica, len(gone))
	for i, node := range gone {
		lives[i].Node = node
	}
	for _, r := range s.all() {
		if r.leaderAmong(gone) {
			r.holder.leaderGone() // Raft's goroutine may be waiting for what the leader was sending
			r.group.LeaderGone(lives...)
		}
	}
}

// LeaderSilent says that some server hears another no more; deaf answers which. Where a majority of a shard's voters
// does not hear the leader, the survivors go on as after LeaderGone.
func (s *Server) LeaderSilent(deaf func(who, to id.Node) bool) {
	for _, r := range s.all() {
		if r.group.LeaderSilent(deaf) {
			r.holder.leaderGone()
		}
	}
}

// ShardStatus is one replica as it sees itself.
type ShardStatus struct {
	Shard            id.ParamShard
	Leader           id.Node // "" when none is known
	Role             string  // leader, follower, candidate, fenced or shutdown
	Term             uint64
	Identity         id.Incarnation
	Applied, Commit  uint64    // log indexes
	LogBytes         int64     // payloads in the log
	Bytes            int64     // of values
	Steps            []id.Step // held by every block of the shard, ascending
	Voters, Learners []raftgroup.Replica
	Settled          bool          // who votes is committed
	Fault            string        // why the replica is fenced
	Tables           []table.Stats // of the sparse tables in this shard
}

// Status is every replica on this node, by shard.
func (s *Server) Status() []ShardStatus {
	var all []ShardStatus
	for _, r := range s.all() {
		g := r.group.Raft()
		st := ShardStatus{
			Shard: r.shard, Term: g.CurrentTerm(), Applied: g.AppliedIndex(), Commit: g.CommitIndex(),
			LogBytes: r.payloads.logBytes(), Identity: r.self.Incarnation, Bytes: r.state.bytes(), Steps: r.state.steps(), Tables: r.state.rows.stats(),
		}
		st.Role = map[bool]string{true: "leader", false: "follower"}[r.group.IsLeader()]
		if l, known := r.group.Leader(); known {
			st.Leader = l.Node
		} else if st.Role == "follower" {
			st.Role = "candidate"
		}
		if err := r.fenced(); err != nil {
			st.Role, st.Fault = "fenced", err.Error()
		}
		st.Voters, st.Learners, st.Settled = r.group.Members()
		all = append(all, st)
	}
	return all
}

// Fault is why a replica of this node is out of service, nil when none is.
func (s *Server) Fault() error {
	for _, r := range s.all() {
		if err := r.fenced(); err != nil {
			return err
		}
	}
	return nil
}

// Digest is the SHA-256 of the shard's parameters and optimizer state at step, the same
// on every replica that holds the step. It reads the whole shard.
func (s *Server) Digest(shard id.ParamShard, step id.Step) ([sha256.Size]byte, error) {
	s.mu.Lock()
	r := s.replicas[shard]
	s.mu.Unlock()
	if r == nil {
		return [sha256.Size]byte{}, fmt.Errorf("ps: %v is not hosted here", shard)
	}
	sum, res := r.state.digest(step)
	if res.status != pb.ParamAnswer_OK {
		return sum, fmt.Errorf("ps: %v: %s", shard, res.message)
	}
	return sum, nil
}

// BytesIn counts the payload bytes received from clients by the shards led here. Bytes
// that the replicas send each other are not in it.
func (s *Server) BytesIn() uint64 { return s.bytesIn.Load() }

// Stop ends every replica without a word to the others, as a crash would, and waits.
func (s *Server) Stop() error {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	var errs []error
	for _, r := range s.all() {
		errs = append(errs, r.stop())
	}
	return errors.Join(errs...)
}
