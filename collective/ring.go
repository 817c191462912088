package collective

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/flight"
	"github.com/musterml/muster/internal/id"
)

// Peer is one rank of a ring.
type Peer struct {
	Node id.Node
	Addr string // HOST:PORT where Config.Dial finds it; the ring itself only asks who has the same HOST
}

// Op names an operation in errors and to whoever watches. Every rank makes the same calls in the same order.
type Op struct {
	Step   id.Step
	Bucket uint32
}

func (o Op) String() string { return fmt.Sprintf("%v bucket %d", o.Step, o.Bucket) }

// Config describes one rank's place in a ring.
type Config struct {
	Run   string  // name of the run; frames of another are refused
	View  id.View // frames of another view are refused
	Rank  int     // of this process in Peers
	Peers []Peer  // in ring order, the same on every rank; names are distinct

	// Dial connects to the next peer, Accept returns a connection from the previous one, meant for this run and view
	// (see Inbox). Join calls them again after an error until its context ends, or until no host has answered Dial for
	// AnswerWithin: the connection timed out, or there is no route. Not called in a world of one.
	Dial   func(ctx context.Context, to Peer) (net.Conn, error)
	Accept func(ctx context.Context) (net.Conn, error)

	Heartbeat  time.Duration // between signs of life; default 50 ms
	DeadAfter  time.Duration // of silence a peer is dead, over long ways perhaps later (watch.go); default 400 ms, at least three heartbeats
	ChunkBytes int           // of a segment that a round takes (schedule.go), a multiple of 4, the same on every rank

	// SmallBytes: operations on vectors of up to so many bytes are done in fewer hops (whole.go); a multiple of 4, the
	// same on every rank. The default depends on the world; negative: none are.
	SmallBytes int

	// Stripes is how many connections there are to each neighbour, the same on every rank; at most MaxStripes, default 1. More help
	// only where each is limited (stripe.go).
	Stripes int

	// Locals is what the rings of one process share, if there are several.
	Locals *Locals
	// NoLanes keeps everything on the connections, also between processes of one host.
	NoLanes bool

	laneBytes  int // of each direction; tests have small ones
	drivePolls int // without progress, then a caller sleeps

	Flight *flight.Recorder // is told of every operation; may be nil
	Log    zerolog.Logger
}

// Defaults of Config.
const (
	DefaultHeartbeat = 50 * time.Millisecond
	// DefaultDeadAfter and the heartbeat for which the watch may have to wait are together less than half a second: a dead
	// peer is named within that.
	DefaultDeadAfter = 400 * time.Millisecond
	// AnswerWithin is how long a host may take to answer when it is dialled, which its kernel does whatever its processes do.
	// It is more than any round trip on earth takes, as a rule.
	AnswerWithin = 300 * time.Millisecond

	// DefaultChunkBytes, just under 512 KiB, is for ranks that are all on one host. Measured on loopback, two ranks and
	// 64 MiB: with 256 KiB to 1 MiB all take the same time, with whole segments a third more.
	DefaultChunkBytes = 4 * socketPiece
	// FarChunkBytes is for ranks on several hosts. A rank sends no further ahead of what it receives, so a way with
	// latency L carries at most ChunkBytes/L bytes per second.
	FarChunkBytes = maxChunkBytes
)

// defaultChunkBytes is the same on every rank: a function of the list of peers.
func defaultChunkBytes(peers []Peer) int {
	for _, p := range peers {
		if host(p.Addr) != host(peers[0].Addr) {
			return FarChunkBytes
		}
	}
	return DefaultChunkBytes
}

// host is addr without its port.
func host(addr string) string {
	if h, _, err := net.SplitHostPort(addr); err == nil {
		return h
	}
	return addr
}

// scratchBytes is what is read at most before it is reduced.
const scratchBytes = 256 << 10

// withDefaults fills what is unset and reports everything that is wrong, at once.
func (c Config) withDefaults() (Config, error) {
	if c.Heartbeat == 0 {
		c.Heartbeat = DefaultHeartbeat
	}
	if c.DeadAfter == 0 {
		c.DeadAfter = max(DefaultDeadAfter, 3*c.Heartbeat)
	}
	if c.ChunkBytes == 0 {
		c.ChunkBytes = defaultChunkBytes(c.Peers)
	}
	if c.SmallBytes == 0 {
		c.SmallBytes = defaultSmallBytes(len(c.Peers))
	}
	if c.Stripes == 0 {
		c.Stripes = 1
	}
	if c.laneBytes == 0 {
		c.laneBytes = laneBytes
	}
	if c.drivePolls == 0 {
		c.drivePolls = drivePolls
	}
	if c.SmallBytes < 0 {
		c.SmallBytes = -elemSize
	}
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrArgument}, args...)...))
	}
	if len(c.Peers) == 0 || len(c.Peers) > maxWorld {
		bad("Peers: %d ranks, need 1 to %d", len(c.Peers), maxWorld)
	} else if c.Rank < 0 || c.Rank >= len(c.Peers) {
		bad("Rank: %d is none of the %d peers", c.Rank, len(c.Peers))
	}
	seen := make(map[id.Node]bool, len(c.Peers))
	for i, p := range c.Peers {
		if p.Node == "" || seen[p.Node] {
			bad("Peers[%d].Node: %q is empty or there twice", i, p.Node)
		}
		seen[p.Node] = true
	}
	if len(c.Peers) > 1 && (c.Dial == nil || c.Accept == nil) {
		bad("Dial, Accept: needed for more than one rank")
	}
	if c.Heartbeat < 0 || c.DeadAfter < 3*c.Heartbeat {
		bad("DeadAfter: %v is less than three heartbeats of %v", c.DeadAfter, c.Heartbeat)
	}
	if c.ChunkBytes < elemSize || c.ChunkBytes > maxChunkBytes || c.ChunkBytes%elemSize != 0 {
		bad("ChunkBytes: %d is no multiple of %d between %d and %d", c.ChunkBytes, elemSize, elemSize, maxChunkBytes)
	}
	if c.Stripes < 1 || c.Stripes > MaxStripes {
		bad("Stripes: %d is not between 1 and %d", c.Stripes, MaxStripes)
	}
	if c.SmallBytes > maxWholeBytes || c.SmallBytes%elemSize != 0 {
		bad("SmallBytes: %d is no multiple of %d up to %d", c.SmallBytes, elemSize, maxWholeBytes)
	}
	if !littleEndian() {
		errs = append(errs, errors.New("a big-endian host cannot take part: vectors travel as they lie in memory"))
	}
	return c, errors.Join(errs...)
}

// Ring is one rank's end of a ring. Its operations are called by one goroutine at a time; Abort, Close, Err, Done,
// Sent and Waiting by any.
type Ring struct {
	cfg     Config
	world   int
	run     uint64
	digest  uint32
	started time.Time
	prev    link // data comes in, calls go out
	next    link // data goes out, calls come in

	mu       sync.Mutex // never held while waiting
	err      error      // set once; what every later call returns
	last     header     // set with err: the last frame on both links
	lastText []byte     // and its payload
	call     call       // written by begin under mu; send and receive read it while their seq says it is theirs
	nextCall header     // the latest call of the next rank

	failed   chan struct{} // closed with err
	kicked   chan struct{} // closed when every blocked read and write has been interrupted
	released chan struct{} // closed when send and receive no longer touch the caller's memory
	holders  atomic.Int32  // of the caller's memory: send and receive
	wg       sync.WaitGroup

	busy    atomic.Bool
	calling bool          // the call frame is begun and not ended; the caller's
	done    chan struct{} // the current operation is complete on this rank
	open    atomic.Int32  // sides (send, receive) that are not done with the current operation

	// Owned by whoever sends.
	sending  role
	sendSeq  atomic.Uint64
	sendDone uint64        // the operation whose part is done: its cursor is no longer ours
	credited atomic.Uint64 // latest operation that the next rank has begun
	outgoing cursor
	frame    int           // elements of the frame that is begun and not ended
	sent     atomic.Int64  // bytes of this operation whose memory has been read
	hopOut   atomic.Int64  // where outgoing is, for those who watch
	sendKick chan struct{} // something to do for send
	sentKick chan struct{} // sent has grown, or will
	sendWork work

	// Owned by whoever reads from the previous rank.
	recvSeq  atomic.Uint64
	incoming cursor
	taken    atomic.Int64 // bytes of this operation that are reduced or stored
	hopIn    atomic.Int64
	moved    atomic.Int64 // when the last of them came, by the ring's clock
	recvDone uint64       // latest operation that is complete on this side
	scratch  []byte       // what was just read and is being reduced
	recvWork work

	seat    seat          // who reads (drive.go)
	driving bool          // the caller; owned by the holder of both links' roles
	crowded bool          // there may be more ranks here than cores
	stirred chan struct{} // for a caller that waits: something has moved

	called    [2]atomic.Int64                   // when the next rank's call came, by the ring's clock; operations by turns
	tally     tally                             // of the current operation, for the recorder
	transport string                            // how the neighbours are reached
	waits     func() (id.Node, time.Time, bool) // waitsFor, made once

	whole      wholes        // the short way
	parts      [][]int32     // of all ranks, while a form merges them
	answerKick chan struct{} // the previous rank has left
	tokens     Vector        // what a barrier gathers
	ownBounds  []int         // of a broadcast
	sentBytes  atomic.Uint64
}

// verb is which operation.
type verb uint8

const (
	verbAllReduce verb = iota + 1
	verbReduceScatter
	verbAllGather
	verbBarrier
	verbBroadcast
)

func (v verb) String() string {
	names := [...]string{"no operation", "AllReduce", "ReduceScatter", "AllGather", "Barrier", "Broadcast"}
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("verb %d", uint8(v))
}

// call is the current operation.
type call struct {
	timetable
	live   bool // false between operations
	small  bool // it goes the short way, with nothing for send and receive to do
	seq    uint64
	op     Op
	verb   verb
	reduce Reduce
	x      Vector
	digest uint32 // of the bounds
	began  int64  // by the ring's clock
	piece  int    // bytes that are worth a frame
	unit   int    // elements of a form's unit, at most
	own    []byte // with a form, on the short way: this rank's contribution
}

func newRing(cfg Config) *Ring {
	r := &Ring{
		cfg: cfg, world: len(cfg.Peers), run: hashRun(cfg.Run), digest: hashPeers(cfg.Peers), started: time.Now(),
		failed: make(chan struct{}), kicked: make(chan struct{}), released: make(chan struct{}),
		done: make(chan struct{}, 1), sendKick: make(chan struct{}, 1), sentKick: make(chan struct{}, 1),
		answerKick: make(chan struct{}, 1), stirred: make(chan struct{}, 1), sending: newRole(), seat: seat{role: newRole()},
	}
	r.seat.idle = time.AfterFunc(time.Hour, r.stand)
	r.seat.idle.Stop()
	r.waits = r.waitsFor
	r.ownBounds = make([]int, r.world+1)
	if r.world == 1 {
		close(r.released)
		return r
	}
	r.crowded = r.world > runtime.NumCPU()
	r.tokens = Int32s(make([]int32, r.world))
	r.whole = newWholes(cfg.SmallBytes, r.world)
	scratch := min(cfg.ChunkBytes, scratchBytes)
	r.scratch = make([]byte, scratch+scratch/restShare)
	r.parts = make([][]int32, r.world)
	r.holders.Store(2)
	r.prev.rank = (cfg.Rank + r.world - 1) % r.world
	r.next.rank = (cfg.Rank + 1) % r.world
	r.prev.peer, r.next.peer = cfg.Peers[r.prev.rank], cfg.Peers[r.next.rank]
	return r
}

// now is nanoseconds since the ring was made.
func (r *Ring) now() int64 { return int64(time.Since(r.started)) }

func (r *Ring) header(k kind) header {
	return header{kind: k, run: r.run, view: r.cfg.View, rank: uint16(r.cfg.Rank)}
}

// kick wakes a goroutine that waits on a channel of capacity one.
func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// World is the number of ranks.
func (r *Ring) World() int { return r.world }

// Rank is this process' place in the ring.
func (r *Ring) Rank() int { return r.cfg.Rank }

// Transport names the way to the neighbours: "tcp", "tls", "shared memory", "memory" (of the same process), or two of
// them, previous rank first, where they differ.
func (r *Ring) Transport() string { return r.transport }

// Done is closed when the ring has failed or is closed; Err then says why. A trainer that is busy computing learns
// from it that its result will not be wanted.
func (r *Ring) Done() <-chan struct{} { return r.failed }

// Err is what every call returns from now on; nil while the ring is whole.
func (r *Ring) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Sent is the number of payload bytes this rank has sent.
func (r *Ring) Sent() uint64 { return r.sentBytes.Load() }

// AllReduce reduces x over all ranks; every rank gets the whole result in x. A context that ends aborts the ring: the
// others wait for this rank and must learn that it will not come.
func (r *Ring) AllReduce(ctx context.Context, op Op, x Vector, f Reduce) error {
	if err := f.check(x); err != nil {
		return err
	}
	return r.do(ctx, verbAllReduce, op, x, nil, f, 0)
}

// ReduceScatter reduces x over all ranks; rank i gets [bounds[i], bounds[i+1]) of the result in its place in x. The
// rest of x holds partial sums afterwards. bounds has World+1 offsets, from 0 to the length of x, never falling; it
// must be the same on all ranks. Like AllReduce it aborts the ring when ctx ends.
func (r *Ring) ReduceScatter(ctx context.Context, op Op, x Vector, bounds []int, f Reduce) error {
	if err := f.check(x); err != nil {
		return err
	}
	return r.do(ctx, verbReduceScatter, op, x, bounds, f, 0)
}

// AllGather gives every rank the part [bounds[i], bounds[i+1]) of x of every rank i. Bounds and ctx as in ReduceScatter.
func (r *Ring) AllGather(ctx context.Context, op Op, x Vector, bounds []int) error {
	return r.do(ctx, verbAllGather, op, x, bounds, 0, 0)
}

// Broadcast gives every rank the x of rank root. It goes round the ring once, in chunks. Like AllReduce it aborts the ring
// when ctx ends.
func (r *Ring) Broadcast(ctx context.Context, op Op, x Vector, root int) error {
	if root < 0 || root >= r.world {
		return fmt.Errorf("%w: broadcast from rank %d of %d", ErrArgument, root, r.world)
	}
	return r.do(ctx, verbBroadcast, op, x, nil, 0, root)
}

// boundsOf gives everything to one rank. The slice is the ring's: calls come one after another.
func (r *Ring) boundsOf(root, n int) []int {
	for i := range r.ownBounds {
		r.ownBounds[i] = 0
		if i > root {
			r.ownBounds[i] = n
		}
	}
	return r.ownBounds
}

// Barrier returns when every rank has called it.
func (r *Ring) Barrier(ctx context.Context, op Op) error {
	return r.do(ctx, verbBarrier, op, Vector{}, nil, 0, 0)
}

func (r *Ring) checkBounds(x Vector, bounds []int) error {
	if len(bounds) != r.world+1 {
		return fmt.Errorf("%w: %d bounds, need %d", ErrArgument, len(bounds), r.world+1)
	}
	if bounds[0] != 0 || bounds[r.world] != x.Len() {
		return fmt.Errorf("%w: bounds from %d to %d, need 0 to %d", ErrArgument, bounds[0], bounds[r.world], x.Len())
	}
	for i := range r.world {
		if bounds[i] > bounds[i+1] {
			return fmt.Errorf("%w: bounds[%d] = %d is more than bounds[%d] = %d", ErrArgument, i, bounds[i], i+1, bounds[i+1])
		}
	}
	return nil
}

func hashBounds(bounds []int) uint32 {
	h := uint32(2166136261) // FNV-1a over the words
	for _, b := range bounds {
		h = (h ^ uint32(b)) * 16777619
		h = (h ^ uint32(uint64(b)>>32)) * 16777619
	}
	return h
}
