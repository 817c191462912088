package ps

import (
	"errors"
	"fmt"
	"math"

	"github.com/musterml/muster/internal/id"
)

// Layout says how the flat parameter vector is cut into blocks and where each lives.
// It is part of the job: every server and every client of a run has the same one.
type Layout struct {
	Params    int // float32 parameters of the model
	BlockSize int // parameters in a block; the last block may be shorter
	Shards    int // Raft groups; block b lives in shard b % Shards
	Parts     int // logical shards whose gradients are applied as they arrive, see parts.go; 0: steps are pushed whole
}

// ErrLayout is returned when a Layout makes no sense.
var ErrLayout = errors.New("ps: bad layout")

// Validate names every field that is wrong.
func (l Layout) Validate() error {
	var errs []error
	for _, f := range []struct {
		name  string
		value int
	}{{"Params", l.Params}, {"BlockSize", l.BlockSize}, {"Shards", l.Shards}} {
		if f.value < 1 {
			errs = append(errs, fmt.Errorf("%w: %s is %d, must be at least 1", ErrLayout, f.name, f.value))
		}
	}
	if l.Shards > math.MaxUint16 {
		errs = append(errs, fmt.Errorf("%w: Shards is %d, must be at most %d", ErrLayout, l.Shards, math.MaxUint16))
	}
	if l.Parts < 0 || l.Parts > maxParts {
		errs = append(errs, fmt.Errorf("%w: Parts is %d, must be 0 to %d", ErrLayout, l.Parts, maxParts))
	}
	// The wire counts the bytes of a block's state in 32 bits; 16 leaves room for slots.
	if l.BlockSize > math.MaxInt32/16 {
		errs = append(errs, fmt.Errorf("%w: BlockSize is %d, must be at most %d", ErrLayout, l.BlockSize, math.MaxInt32/16))
	}
	return errors.Join(errs...)
}

// Blocks is the number of blocks of the whole model.
func (l Layout) Blocks() int { return (l.Params-1)/l.BlockSize + 1 }

// Range is the half-open range of parameters in block b.
func (l Layout) Range(b id.Block) (lo, hi int) {
	lo = int(b) * l.BlockSize
	return lo, min(lo+l.BlockSize, l.Params)
}

// span is the half-open range of parameters in the blocks [first, last).
func (l Layout) span(first, last id.Block) (lo, hi int) {
	return int(first) * l.BlockSize, min(int(last)*l.BlockSize, l.Params)
}

// Shard is where block b lives.
func (l Layout) Shard(b id.Block) id.ParamShard { return id.ParamShard(int(b) % l.Shards) }

// check refuses a range of blocks that is empty, reversed or outside the model.
func (l Layout) check(first, last id.Block) error {
	if first < 0 || last > id.Block(l.Blocks()) || first >= last {
		return fmt.Errorf("blocks [%d, %d) are no range of the model's %d", first, last, l.Blocks())
	}
	return nil
}

// local is the half-open range of a shard's own block numbers that lie in the blocks
// [first, last) of the model. Own block i is block i*Shards+shard of the model.
func (l Layout) local(shard id.ParamShard, first, last id.Block) (i0, i1 int) {
	up := func(b id.Block) int { // own blocks before b
		return max(0, (int(b)-int(shard)+l.Shards-1)/l.Shards)
	}
	return up(first), up(last)
}

// block is the model's number of the shard's own block i.
func (l Layout) block(shard id.ParamShard, i int) id.Block {
	return id.Block(i*l.Shards + int(shard))
}

// own is the number of blocks in the shard.
func (l Layout) own(shard id.ParamShard) int {
	_, n := l.local(shard, 0, id.Block(l.Blocks()))
	return n
}

// floats is the number of parameters in the shard's own blocks [i0, i1).
func (l Layout) floats(shard id.ParamShard, i0, i1 int) int {
	if i0 >= i1 {
		return 0
	}
	_, hi := l.Range(l.block(shard, i1-1))
	lo, _ := l.Range(l.block(shard, i1-1))
	return (i1-1-i0)*l.BlockSize + hi - lo
}
