package ps

import (
	"context"
	"fmt"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// The client's side of gradients that are applied as they arrive, see parts.go.

// Seen is what of the training is in values that were read: the newest ones of every block.
type Seen struct {
	Clock   id.Step // every logical shard has done the steps below it, in every block read
	Updates float64 // gradients of logical shards in them, a mean over blocks

	blocks float64 // that were read
}

// Both is what is in values that were read in two parts.
func (s Seen) Both(o Seen) Seen {
	switch {
	case s.blocks == 0:
		return o
	case o.blocks == 0:
		return s
	}
	n := s.blocks + o.blocks
	return Seen{Clock: min(s.Clock, o.Clock), Updates: (s.Updates*s.blocks + o.Updates*o.blocks) / n, blocks: n}
}

// see adds what one piece has read. Pieces are of different sizes, so each counts by its blocks.
func (op *operation) see(a *pb.ParamAnswer, blocks int) {
	op.mu.Lock()
	defer op.mu.Unlock()
	if s := &op.seen; s.blocks == 0 || id.Step(a.Clock) < s.Clock {
		s.Clock = id.Step(a.Clock)
	}
	op.seen.Updates += float64(a.Updates)
	op.seen.blocks += float64(blocks)
}

func (s Seen) mean() Seen {
	return Seen{Clock: s.Clock, Updates: s.Updates / s.blocks, blocks: s.blocks}
}

// PushPart applies the gradient of some logical shards at a step to the blocks [first, last), at once, and reads their newest
// parameters into w.
// Blocks that have it already stay as they are; ErrSplit says that one has it of some of the logical shards only.
// On an error some blocks may have it. w is as in Push.
func (c *Client) PushPart(ctx context.Context, step id.Step, of []id.LogicalShard, first, last id.Block, grad, w []float32) (Seen, error) {
	if err := c.checkRange(first, last, State{W: w}, 0); err != nil {
		return Seen{}, err
	}
	for _, l := range of {
		if l < 0 || int(l) >= c.cfg.Layout.Parts {
			return Seen{}, fmt.Errorf("%w: %v of %d", ErrRefused, l, c.cfg.Layout.Parts)
		}
	}
	if len(grad) != len(w) {
		return Seen{}, fmt.Errorf("%w: gradient of %d for %d parameters", ErrRefused, len(grad), len(w))
	}
	var seen Seen
	err := c.do(ctx, func(op *operation) {
		op.kind, op.step, op.first, op.last, op.grad, op.out = pb.ParamRequest_PUSH, step, first, last, grad, State{W: w}
		op.parts = newPartSet(c.cfg.Layout.Parts, of)
	}, func(op *operation) { seen = op.seen.mean() })
	return seen, err
}

// PullNewest reads the newest parameters of all blocks, once every logical shard has done all steps before least in each of them;
// until then it waits.
func (c *Client) PullNewest(ctx context.Context, least id.Step, w []float32) (Seen, error) {
	last := id.Block(c.cfg.Layout.Blocks())
	if err := c.checkRange(0, last, State{W: w}, 0); err != nil {
		return Seen{}, err
	}
	var seen Seen
	err := c.do(ctx, func(op *operation) {
		op.kind, op.step, op.first, op.last, op.out = pb.ParamRequest_PULL, least, 0, last, State{W: w}
	}, func(op *operation) { seen = op.seen.mean() })
	return seen, err
}

// Clocks are how many steps each logical shard has done in every block of the model; ok is false when a block holds no
// state yet. The shards are asked one by one through their leaders; clocks only go forward.
func (c *Client) Clocks(ctx context.Context) (clocks []id.Step, ok bool, err error) {
	ok = true
	err = c.do(ctx, func(op *operation) {
		op.kind, op.first, op.last = pb.ParamRequest_STEPS, 0, id.Block(c.cfg.Layout.Blocks())
	}, func(op *operation) {
		for shard, s := range op.steps {
			switch {
			case c.cfg.Layout.own(id.ParamShard(shard)) == 0:
			case len(s) != c.cfg.Layout.Parts:
				ok = false
			case clocks == nil:
				clocks = s
			default:
				for p := range s {
					clocks[p] = min(clocks[p], s[p])
				}
			}
		}
	})
	return clocks, ok && err == nil, err
}
