package ps

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/ps/table"
)

// State is the parameters of a range of blocks and, one behind the other, the optimizer
// slots of the same length. Slots is nil where only W is meant.
type State struct {
	W     []float32
	Slots [][]float32
}

// ClientConfig says how to reach the shards. Zero durations and sizes mean the defaults.
type ClientConfig struct {
	Layout         Layout
	OptimizerSlots int
	Half           Half           // nil: values travel as float32
	Tables         []table.Config // sparse tables, as the servers have them
	// Replicas are the addresses to try for a shard, in any order; asked again whenever
	// no leader is known, so that it may change.
	Replicas func(id.ParamShard) []string
	Dial     func(ctx context.Context, addr, topic string) (net.Conn, error)
	Log      zerolog.Logger

	Patience   time.Duration // 500 ms: without a byte from a server, before the next is tried
	MaxRequest int           // 4 MiB: larger ranges are sent in pieces of whole blocks
	Lanes      int           // 2: connections to each shard, one request in flight on each
}

// Client reads and writes the parameters. All its calls may be used concurrently, go to
// the shards in parallel, repeat themselves over failures of servers until ctx ends, and
// may be repeated by the caller: no request has an effect twice. What a call has done
// when it returns an error is unknown.
type Client struct {
	cfg    ClientConfig
	shards []*shardLink
	wg     sync.WaitGroup
	stop   context.CancelFunc
	ctx    context.Context

	mu   sync.Mutex
	free []*operation // reused
}

// NewClient starts the client's lanes; nothing is dialed before it is needed.
func NewClient(cfg ClientConfig) (*Client, error) {
	errs := []error{cfg.Layout.Validate()}
	if cfg.Replicas == nil {
		errs = append(errs, errors.New("ps: Replicas is missing"))
	}
	if cfg.Dial == nil {
		errs = append(errs, errors.New("ps: Dial is missing"))
	}
	if cfg.OptimizerSlots < 0 {
		errs = append(errs, fmt.Errorf("ps: OptimizerSlots is %d, must be at least 0", cfg.OptimizerSlots))
	}
	if !floats.LittleEndian {
		errs = append(errs, errors.New("ps: this machine is big-endian; only little-endian ones can take part"))
	}
	if cfg.Patience < 0 || cfg.MaxRequest < 0 || cfg.Lanes < 0 {
		errs = append(errs, fmt.Errorf("ps: Patience %v, MaxRequest %d and Lanes %d must be at least 0", cfg.Patience, cfg.MaxRequest, cfg.Lanes))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	cfg.Patience = cmp.Or(cfg.Patience, 500*time.Millisecond)
	cfg.MaxRequest = cmp.Or(cfg.MaxRequest, 4<<20)
	cfg.Lanes = cmp.Or(cfg.Lanes, 2)
	c := &Client{cfg: cfg}
	c.ctx, c.stop = context.WithCancel(context.Background())
	for i := range cfg.Layout.Shards {
		s := &shardLink{shard: id.ParamShard(i), pieces: make(chan piece)}
		c.shards = append(c.shards, s)
		for range cfg.Lanes {
			l := newLane(c, s)
			s.lanes = append(s.lanes, l)
			c.wg.Go(l.run)
		}
	}
	return c, nil
}

// Close ends every call under way and waits for it.
func (c *Client) Close() error {
	c.stop()
	c.wg.Wait()
	return nil
}

// operation is one call, shared by the pieces it is cut into.
type operation struct {
	kind        pb.ParamRequest_Kind
	step, keep  id.Step
	pin         bool
	first, last id.Block
	base        int     // first parameter of the range
	parts       partSet // of a push, where the layout has parts
	grad        []float32
	out         State      // read by a put, written by push (W) and pull
	rows        []rowsCall // by shard, of a call on sparse tables

	deal  *table.Dealer // memory for rows, kept for the next call
	calls []rowsCall

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	err   error
	weak  bool // err says less than another piece's may
	seen  Seen
	steps [][]id.Step // by shard
}

// piece is the part of an operation that one request to one shard carries: the shard's
// blocks in [first, last).
type piece struct {
	op          *operation
	first, last id.Block
}

// Put stores the state of the blocks [first, last) at step, beside the version at keep.
// Blocks that hold step or a later one already stay as they are.
func (c *Client) Put(ctx context.Context, step, keep id.Step, first, last id.Block, state State) error {
	if err := c.checkRange(first, last, state, c.cfg.OptimizerSlots); err != nil {
		return err
	}
	return c.do(ctx, func(op *operation) {
		op.kind, op.step, op.keep, op.first, op.last, op.out = pb.ParamRequest_PUT, step, keep, first, last, state
	})
}

// Push applies the gradient of step to the blocks [first, last) and reads the
// parameters at step+1 into w. On an error what w holds is unspecified.
func (c *Client) Push(ctx context.Context, step id.Step, first, last id.Block, grad, w []float32) error {
	if err := c.checkRange(first, last, State{W: w}, 0); err != nil {
		return err
	}
	if len(grad) != len(w) {
		return fmt.Errorf("%w: gradient of %d for %d parameters", ErrRefused, len(grad), len(w))
	}
	return c.do(ctx, func(op *operation) {
		op.kind, op.step, op.first, op.last, op.grad, op.out = pb.ParamRequest_PUSH, step, first, last, grad, State{W: w}
	})
}

// Pull reads the blocks [first, last) exactly at step; without Slots, W only. It waits
// for a step that has not been reached yet.
func (c *Client) Pull(ctx context.Context, step id.Step, first, last id.Block, state State) error {
	slots := 0
	if state.Slots != nil {
		slots = c.cfg.OptimizerSlots
	}
	if err := c.checkRange(first, last, state, slots); err != nil {
		return err
	}
	return c.do(ctx, func(op *operation) {
		op.kind, op.step, op.first, op.last, op.out = pb.ParamRequest_PULL, step, first, last, state
	})
}

// Pin asks the shards' leaders to keep the state at a step, when they come to it and after
// the blocks have gone on, so that Pull can still read it: until another step is pinned.
// With keep false nothing is pinned any more. A shard that gets another leader has
// forgotten it: Pull may then return ErrGone.
func (c *Client) Pin(ctx context.Context, step id.Step, keep bool) error {
	return c.do(ctx, func(op *operation) {
		op.kind, op.step, op.pin, op.first, op.last = pb.ParamRequest_PIN, step, keep, 0, id.Block(c.cfg.Layout.Blocks())
	})
}

// Complete is the newest step that every block of the model holds; ok is false when
// there is none. The shards are asked one by one through their leaders, so while pushes
// go on the answer may be old by the time it is given, but the step was held by all.
func (c *Client) Complete(ctx context.Context) (step id.Step, ok bool, err error) {
	if c.cfg.Layout.Parts > 0 {
		clocks, ok, err := c.Clocks(ctx)
		if !ok || err != nil {
			return 0, false, err
		}
		return slices.Min(clocks), true, nil
	}
	// Two shards asked at different moments of a run under way may have no step in
	// common; a few repetitions tell that from a model with holes.
	for range 4 {
		var common []id.Step
		empty := false
		err := c.do(ctx, func(op *operation) {
			op.kind, op.first, op.last = pb.ParamRequest_STEPS, 0, id.Block(c.cfg.Layout.Blocks())
		}, func(op *operation) {
			common = op.steps[0]
			for i, s := range op.steps {
				if c.cfg.Layout.own(id.ParamShard(i)) == 0 {
					continue
				}
				empty = empty || len(s) == 0
				common = slices.DeleteFunc(slices.Clone(common), func(x id.Step) bool { return !slices.Contains(s, x) })
			}
		})
		if err != nil {
			return 0, false, err
		}
		if len(common) > 0 {
			return slices.Max(common), true, nil
		}
		if empty {
			break
		}
	}
	return 0, false, nil
}

// Waiting names what the call under way waits for longest; ok is false when there is
// none. peer is "" until a server has answered.
func (c *Client) Waiting() (what string, peer id.Node, since time.Time, ok bool) {
	for _, s := range c.shards {
		for _, l := range s.lanes {
			if w, p, t, busy := l.waiting(); busy && (!ok || t.Before(since)) {
				what, peer, since, ok = w, p, t, true
			}
		}
	}
	return what, peer, since, ok
}

func (c *Client) checkRange(first, last id.Block, state State, slots int) error {
	if err := c.cfg.Layout.check(first, last); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	lo, hi := c.cfg.Layout.span(first, last)
	if len(state.W) != hi-lo || len(state.Slots) != slots {
		return fmt.Errorf("%w: %d parameters and %d slots given for blocks [%d, %d), which have %d and %d",
			ErrRefused, len(state.W), len(state.Slots), first, last, hi-lo, slots)
	}
	for i, s := range state.Slots {
		if len(s) != hi-lo {
			return fmt.Errorf("%w: slot %d has %d values for %d parameters", ErrRefused, i, len(s), hi-lo)
		}
	}
	return nil
}

// do runs one operation in pieces on the lanes; the first error cancels the rest.
// after, if given, sees the operation before its memory is reused.
func (c *Client) do(ctx context.Context, fill func(*operation), after ...func(*operation)) error {
	op := c.take()
	fill(op)
	op.base = int(op.first) * c.cfg.Layout.BlockSize
	op.ctx, op.cancel = context.WithCancel(ctx)
	defer op.cancel()
	var feeders sync.WaitGroup
	for _, s := range c.shards {
		i0, i1 := c.cfg.Layout.local(s.shard, op.first, op.last)
		if op.rows != nil || op.kind == pb.ParamRequest_PIN { // shards without blocks may have rows
			feeders.Go(func() { c.hand(op, s, piece{op, op.first, op.last}) })
		} else if i0 < i1 {
			feeders.Go(func() { c.feed(op, s, i0, i1) })
		}
	}
	feeders.Wait()
	op.wg.Wait()
	err := op.err
	if err == nil {
		for _, f := range after {
			f(op)
		}
	}
	c.give(op)
	return err
}

// feed hands the shard's own blocks [i0, i1) to its lanes, in pieces of whole blocks.
func (c *Client) feed(op *operation, s *shardLink, i0, i1 int) {
	l := c.cfg.Layout
	per := max(1, c.cfg.MaxRequest/(4*l.BlockSize*(1+op.slots())))
	if op.kind == pb.ParamRequest_STEPS || op.kind == pb.ParamRequest_PIN {
		per = i1 - i0
	}
	for i := i0; i < i1; i += per {
		j := min(i+per, i1)
		c.hand(op, s, piece{op, l.block(s.shard, i), l.block(s.shard, j-1) + 1})
	}
}

// hand gives a piece to the first lane of its shard that is free.
func (c *Client) hand(op *operation, s *shardLink, p piece) {
	op.wg.Add(1)
	select {
	case s.pieces <- p:
	case <-op.ctx.Done():
		op.finish(fmt.Errorf("ps: waited for a free connection to %v: %w", s.shard, context.Cause(op.ctx)), true)
	case <-c.ctx.Done():
		op.finish(ErrClosed, true)
	}
}

// slots is how many travel beside W.
func (op *operation) slots() int { return len(op.out.Slots) }

// finish ends one piece. The first error stands, unless it is weak: of a piece that was
// never sent, or only cancelled because another one failed.
func (op *operation) finish(err error, weak bool) {
	if err != nil {
		op.mu.Lock()
		if op.err == nil || op.weak {
			op.err, op.weak = err, weak
		}
		op.mu.Unlock()
		op.cancel()
	}
	op.wg.Done()
}

func (c *Client) take() *operation {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.free); n > 0 {
		op := c.free[n-1]
		c.free = c.free[:n-1]
		return op
	}
	return &operation{steps: make([][]id.Step, c.cfg.Layout.Shards)}
}

// give forgets the caller's buffers and keeps the operation for the next call.
func (c *Client) give(op *operation) {
	op.grad, op.out, op.rows, op.ctx, op.cancel, op.err, op.weak, op.pin, op.parts, op.seen = nil, State{}, nil, nil, nil, nil, false, false, nil, Seen{}
	for i := range op.calls {
		clear(op.calls[i].to)
	}
	clear(op.steps)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free = append(c.free, op)
}
