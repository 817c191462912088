package ps

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/journal"
	"github.com/musterml/muster/internal/pacing"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/internal/raftgroup"
	"github.com/musterml/muster/internal/raftlog"
	pb "github.com/musterml/muster/proto"
)

// replica is this node's member of one shard's Raft group: the state machine, the log
// with its payloads, and the side channel.
type replica struct {
	cfg        *ServerConfig
	shard      id.ParamShard
	log        zerolog.Logger
	state      *shardState
	payloads   *payloads
	entries    *raftlog.Store
	logged     *logPayloads
	healer     *healer
	audits     auditor
	disk       layers            // of the last snapshot there
	self       raftgroup.Replica // of this shard
	holder     *holder
	fetcher    *fetcher
	known      bool  // this identity has taken part before
	maxPayload int   // bytes of a put of the whole shard
	logLimit   int64 // bytes of payloads in the log that call for a snapshot

	ctx     context.Context // ends when stop begins
	cancel  context.CancelCauseFunc
	wg      sync.WaitGroup // goroutines and handlers
	remove  []func()       // handlers on the port
	group   *raftgroup.Group
	ready   chan struct{} // closed once group is set
	changed chan struct{} // capacity 1: leader or replicas may have changed
	cut     chan struct{} // capacity 1: the log has grown past its limit
	bytesIn *atomic.Uint64
	whole   atomic.Bool // the state is not that of snapshot and log on the disk: it needs a snapshot

	propose sync.Mutex // makes payloads' numbers and the senders' queues agree in order

	mu      sync.Mutex
	conns   map[net.Conn]struct{} // accepted; nil once stopping
	senders map[endpoint]*sender
	broken  error // why the replica was fenced
}

func newReplica(cfg *ServerConfig, shard id.ParamShard, bytesIn *atomic.Uint64) (*replica, error) {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails
	r := &replica{
		cfg: cfg, shard: shard, bytesIn: bytesIn,
		log:     cfg.Log.With().Stringer("shard", shard).Logger(),
		state:   newShardState(cfg.Layout, shard, cfg.Optimizer),
		ready:   make(chan struct{}),
		changed: make(chan struct{}, 1),
		cut:     make(chan struct{}, 1),
		conns:   map[net.Conn]struct{}{},
		senders: map[endpoint]*sender{},
		self:    cfg.Self,
		audits:  auditor{changed: make(chan struct{})},
	}
	r.state.half = cfg.Half
	if cfg.Life != nil {
		r.self.Incarnation, r.known = cfg.Life(shard)
	}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	floats := payloadFloats(cfg.Layout, shard, cfg.Optimizer.Slots(), pb.ParamEntry_PUT, 0, id.Block(cfg.Layout.Blocks()))
	r.maxPayload = 4 * floats
	var err error
	if r.state.rows, err = newRows(cfg, shard); err != nil {
		return r, err
	}
	if r.state.rows != nil {
		r.maxPayload = max(r.maxPayload, maxRows)
	}
	r.logLimit = cfg.LogLimit
	if r.logLimit == 0 {
		// A log shorter than the state would make a replica that lags fetch more than
		// what it lacks.
		r.logLimit = max(minLogLimit, int64(r.maxPayload))
		if cfg.Durable { // each cut writes the state, two versions of it
			r.logLimit *= 2
		}
	}
	r.payloads = newPayloads(binary.LittleEndian.Uint64(seed[:]), r.logLimit)
	r.fetcher = &fetcher{
		payloads: r.payloads, candidates: r.candidates, dial: r.dial,
		limit: r.maxPayload, patience: cfg.Patience,
	}
	r.holder = &holder{
		payloads: r.payloads, fetch: r.fetcher.fetch, timeout: cfg.PayloadTimeout,
		stall: min(250*time.Millisecond, cfg.PayloadTimeout/4),
	}
	r.logged = &logPayloads{payloads: r.payloads, hold: r.hold}
	r.entries = raftlog.NewMemory(r.logged)
	if cfg.Durable {
		err = r.openLog()
	}
	r.healer = newHealer(r.logged.loading.lost)
	return r, err
}

// openLog reads what the disk has of the log.
func (r *replica) openLog() error {
	cfg := journal.Config{Dir: filepath.Join(r.dir(), "log"), SegmentSize: r.logLimit / 4}
	begin := time.Now()
	entries, err := raftlog.Open(cfg, r.logged, func(t journal.Torn) {
		r.log.Warn().Msgf("%s: cut %d bytes at byte %d, which a crash left behind unfinished", t.File, t.Bytes, t.Offset)
	})
	if err != nil {
		return err
	}
	r.entries = entries
	for i := range r.logged.loading.lost {
		r.log.Error().Msgf("%v; it is to be healed from the other replicas", &r.logged.loading.lost[i])
	}
	s := r.entries.Stats()
	r.log.Info().Int("segments", s.Segments).Int64("bytes", s.Bytes).Dur("took", time.Since(begin)).Msg("the log is read")
	return nil
}

// minLogLimit is the least default for ServerConfig.LogLimit.
const minLogLimit = 64 << 20

func clientTopic(shard id.ParamShard) string { return "client/" + shard.String() }

func payloadTopic(shard id.ParamShard, r raftgroup.Replica) string {
	return fmt.Sprintf("payload/%v/%s/%s", shard, r.Node, r.Incarnation)
}

func (r *replica) dial(ctx context.Context, addr, topic string) (net.Conn, error) {
	conn, err := r.cfg.Port.Dial(ctx, addr, port.Params, topic)
	if err == nil {
		pacing.Unpace(conn)
	}
	return conn, err
}

// start begins to serve the side channel, then joins the group, then serves clients:
// each needs what comes before it.
func (r *replica) start(found []raftgroup.Replica) error {
	p := r.cfg.Port
	r.remove = append(r.remove, p.Handle(port.Params, payloadTopic(r.shard, r.self), r.handler(r.servePeer)))
	g, err := raftgroup.Start(raftgroup.Config{
		Group: r.shard.String(), Self: r.self, Dir: r.dir(), Known: r.known,
		FSM: machine{r}, Logs: r.entries, Volatile: !r.cfg.Durable, Port: p, Timing: r.cfg.Timing, Locate: r.cfg.Locate,
		// What the log may keep is counted in bytes, by compact.
		Snapshots: raftgroup.Snapshots{Trailing: 1},
		Log:       r.log, OnLeader: r.onLeader,
	})
	if err != nil {
		return err
	}
	r.group = g
	close(r.ready)
	if found != nil {
		if err := g.Found(found); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
			return err
		}
	}
	r.wg.Go(r.heal)
	r.wg.Go(r.tend)
	r.wg.Go(r.compact)
	r.remove = append(r.remove, p.Handle(port.Params, clientTopic(r.shard), r.handler(r.serveClient)))
	return nil
}

// dir is apart for every identity. It holds term, vote, snapshots and the log, all
// worthless to another identity, so those of earlier ones are removed.
func (r *replica) dir() string {
	parent := filepath.Join(r.cfg.Dir, r.shard.String())
	own := string(r.self.Incarnation)
	lives, err := os.ReadDir(parent)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	for _, e := range lives {
		if e.Name() != own {
			err = errors.Join(err, os.RemoveAll(filepath.Join(parent, e.Name())))
		}
	}
	if err != nil {
		r.log.Warn().Err(err).Msg("could not remove what earlier lives left on disk")
	}
	return filepath.Join(parent, own)
}

// stop ends everything, as a crash would, and waits for it.
func (r *replica) stop() error {
	for _, remove := range r.remove {
		remove()
	}
	r.cancel(ErrClosed)
	r.fetcher.close()
	var err error
	if r.group != nil {
		err = r.group.Stop() // also ends every proposal that a handler waits for
	}
	r.mu.Lock()
	for conn := range r.conns {
		_ = conn.Close()
	}
	r.conns = nil
	r.mu.Unlock()
	r.setSenders(nil)
	r.wg.Wait()
	return errors.Join(err, r.entries.Close())
}

// drop is stop for a replica that is never to come back.
func (r *replica) drop() error {
	return errors.Join(r.stop(), os.RemoveAll(r.dir()))
}

// handler lets stop close the connections that are being served and wait for them.
func (r *replica) handler(serve func(net.Conn)) port.Handler {
	return func(conn net.Conn, _ port.Peer) {
		defer func() { _ = conn.Close() }()
		pacing.Unpace(conn)
		r.mu.Lock()
		if r.conns == nil {
			r.mu.Unlock()
			return
		}
		r.conns[conn] = struct{}{}
		r.wg.Add(1)
		r.mu.Unlock()
		defer r.wg.Done()
		serve(conn)
		r.mu.Lock()
		delete(r.conns, conn)
		r.mu.Unlock()
	}
}

// hold is the log store's wait for payloads. A log that cannot be cut (its disk is full)
// must not take all memory: a follower then refuses entries, lags, and is
// brought back by a snapshot. The leader never refuses its own entries, because Raft
// would take its leadership away; it delays its clients instead.
func (r *replica) hold(refs []reference) error {
	if len(refs) > 0 && refs[0].id.source != r.payloads.source && r.payloads.logBytes() > 4*r.logLimit {
		poke(r.cut)
		return fmt.Errorf("%w: the log has %d bytes of payloads and waits for a snapshot", ErrPayload, r.payloads.logBytes())
	}
	return r.holder.hold(r.ctx, refs)
}

// leads reports whether this replica believes to lead. Only a commit proves it.
func (r *replica) leads() bool {
	return r.group.IsLeader() && r.fenced() == nil
}

// candidates are the other replicas' side channels, the leader's first.
func (r *replica) candidates() []endpoint {
	select {
	case <-r.ready:
	case <-r.ctx.Done():
		return nil
	}
	members, err := r.group.Replicas()
	if err != nil {
		return nil
	}
	leader, known := r.group.Leader()
	var to []endpoint
	if known && leader.ServerID() != r.self.ServerID() {
		to = append(to, r.endpoint(leader))
	}
	for _, m := range members {
		if m.ServerID() != r.self.ServerID() && (!known || m.ServerID() != leader.ServerID()) {
			to = append(to, r.endpoint(m.Replica))
		}
	}
	return to
}

func (r *replica) endpoint(to raftgroup.Replica) endpoint {
	if r.cfg.Locate != nil {
		to.Addr = r.cfg.Locate(to)
	}
	return endpoint{to.Node, to.Addr, payloadTopic(r.shard, to)}
}

func (r *replica) onLeader(leader raftgroup.Replica, known bool) {
	poke(r.changed)
	if known && r.cfg.OnLeader != nil {
		<-r.ready
		r.cfg.OnLeader(r.shard, leader, r.group.Raft().CurrentTerm())
	}
}

// leaderAmong tells whether the shard is led by one of the nodes, or by nobody known.
func (r *replica) leaderAmong(gone []id.Node) bool {
	leader, known := r.group.Leader()
	return !known || slices.Contains(gone, leader.Node)
}

// poke wakes the goroutine that waits on a channel of capacity 1.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// tend keeps one sender for each follower while this replica leads, and drops payloads
// that were never proposed.
func (r *replica) tend() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	trim := time.NewTicker(trimEvery)
	defer trim.Stop()
	for {
		var to []endpoint
		if r.leads() {
			to = r.candidates()
		}
		r.setSenders(to)
		r.payloads.sweep(time.Now().Add(-r.cfg.PendingKeep))
		select {
		case <-tick.C:
			if r.payloads.logBytes() > r.logLimit { // those who needed it may have it by now
				poke(r.cut)
			}
		case <-trim.C:
			r.payloads.trim()
		case <-r.changed:
		case <-r.ctx.Done():
			return
		}
	}
}

// trimEvery is longer than a log takes to grow and be cut while it is in use.
const trimEvery = 30 * time.Second

func (r *replica) setSenders(to []endpoint) {
	want := map[endpoint]bool{}
	for _, e := range to {
		want[e] = true
	}
	var old []*sender
	r.mu.Lock()
	for e, s := range r.senders {
		if !want[e] {
			old = append(old, s)
			delete(r.senders, e)
		}
	}
	for e := range want {
		if r.senders[e] == nil && r.ctx.Err() == nil {
			r.senders[e] = startSender(r.ctx, e, r.payloads, r.dial, r.logLimit/2, r.cfg.Patience)
		}
	}
	r.mu.Unlock()
	for _, s := range old {
		s.close()
	}
}

// compact cuts the log whenever its payloads pass the limit, down to half of it: what
// stays lets a follower that lags a little catch up without the whole state. One that lags more, or is being sent the state, has
// the leader let the log grow, within bounds, or it would find itself too far behind again.
func (r *replica) compact() {
	for {
		select {
		case <-r.cut:
		case <-r.ctx.Done():
			return
		}
		size := r.payloads.logBytes()
		if r.whole.Swap(false) {
			r.log.Info().AnErr("error", r.group.Raft().Snapshot().Error()).Msg("wrote a snapshot of the state received")
		}
		keep := r.logLimit / 2
		if after, known := r.group.Needed(); known { // below what delays clients, see waitForRoom
			keep = min(max(keep, r.entries.Size(after, payloadSize)), 2*r.logLimit)
		}
		limit := keep + r.logLimit/2
		if size <= limit {
			continue
		}
		conf := r.group.Raft().ReloadableConfig()
		conf.TrailingLogs = max(1, r.entries.Trailing(keep, payloadSize))
		err := r.group.Raft().ReloadConfig(conf)
		if err == nil {
			err = r.group.Raft().Snapshot().Error()
		}
		if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && r.ctx.Err() == nil {
			r.log.Warn().Err(err).Msg("cutting the log failed; it is tried again with the next entries")
		}
	}
}

// fence takes the replica out of service: its state can no longer be trusted.
func (r *replica) fence(err error) {
	r.mu.Lock()
	first := r.broken == nil
	if first {
		r.broken = err
	}
	r.mu.Unlock()
	if first {
		r.log.Error().Err(err).Msg("this replica is fenced: restart the node, and it is filled again from the others")
		r.group.Raft().Shutdown()
	}
}

func (r *replica) fenced() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broken
}
