package trainer

import (
	"context"
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
)

// What is done with the sum of gradients: it is clipped, and the optimizer makes the new weights of it.
//
// Clipping multiplies the gradient by one factor that hangs on the norm of all of it. The squares are added by block, each
// block in one fixed order (optim.SumSquares), and then the blocks in their order, in float64. So the factor is a
// function of the gradient alone: not of who added which block, and the same in mode ring, where every trainer has the
// whole gradient and adds all blocks itself, as in mode server, where each trainer has its share of the blocks and the sums
// of squares, a few bytes for each block of 64 KiB, are exchanged as they are. In mode server the trainers send
// gradients that are clipped already; the servers know nothing of it.

// clipping is what the norm of a gradient needs; nothing is done where limit is 0.
type clipping struct {
	limit   float64
	squares []float64 // of the gradient's blocks
	words   []int32   // the same as they travel
}

func newClipping(limit float64, blocks int) clipping {
	if limit == 0 {
		return clipping{}
	}
	return clipping{limit: limit, squares: make([]float64, blocks), words: make([]int32, 2*blocks)}
}

// sum is that of the squares of all blocks.
func (c *clipping) sum() (sum float64) {
	for _, v := range c.squares {
		sum += v
	}
	return sum
}

// norm is that of the gradient before it was clipped; 0 where it is not.
func (c *clipping) norm() float64 { return math.Sqrt(c.sum()) }

// factor is what all of it is multiplied by.
func (c *clipping) factor() float32 {
	if c.limit == 0 {
		return 1
	}
	return optim.ClipFactor(c.sum(), c.limit)
}

// measure adds the squares of some blocks of the summed gradient.
func (x *exchange) measure(of bucket) {
	if x.clip.limit == 0 {
		return
	}
	x.spread(of.first, of.last, func(first, last id.Block) {
		for b := first; b < last; b++ {
			lo, hi := x.span(b, b+1)
			x.clip.squares[b] = optim.SumSquares(x.grad[lo:hi])
		}
	})
}

// agreeNorm gives every trainer the squares of all blocks, of which each has measured its own. As in the header, a word is the largest of all trainers', and only one has something to say.
func (x *exchange) agreeNorm(ctx context.Context, ring *collective.Ring, at id.Step, own []bucket) error {
	c := &x.clip
	for i := range c.words {
		c.words[i] = none
	}
	for _, share := range own {
		for b := share.first; b < share.last; b++ {
			putFloat64(c.words[2*b:], c.squares[b])
		}
	}
	op := collective.Op{Step: at, Bucket: bucketSquares}
	if err := ring.AllReduce(ctx, op, collective.Int32s(c.words), collective.MaxInt32); err != nil {
		return err
	}
	for b := range c.squares {
		c.squares[b] = float64FromWords(c.words[2*b:])
	}
	return nil
}

// shorten clips some blocks of the gradient, once the squares of all are known.
func (x *exchange) shorten(of bucket) {
	factor := x.clip.factor()
	if factor == 1 {
		return
	}
	x.spread(of.first, of.last, func(first, last id.Block) {
		lo, hi := x.span(first, last)
		optim.Scale(x.grad[lo:hi], factor)
	})
}

// ready has the gradient's sum, which is complete, ready for update.
func (x *exchange) ready(c *cards) error {
	if x.sumStays() {
		return x.addUp(c)
	}
	x.measure(x.all())
	if c == nil { // cards clip by themselves
		x.shorten(x.all())
	}
	return nil
}

// advance makes the state at the next step, on the cards or here. After an error it is that of no step.
func (x *exchange) advance(o optimizer, at id.Step, s *state, c *cards) error {
	switch {
	case c == nil:
		x.update(o, at, s, x.grad)
	case x.sumStays():
		return c.update(at, nil, x.clip.factor())
	default:
		return c.update(at, x.grad, x.clip.factor())
	}
	return nil
}

// update makes the state at the next step, on all processors.
func (x *exchange) update(o optimizer, at id.Step, s *state, grad []float32) {
	if o.WholeTensors() {
		x.updateTensors(o, at, s, grad)
		return
	}
	x.spread(0, id.Block(x.layout.Blocks()), func(first, last id.Block) {
		lo, hi := x.span(first, last)
		part := s.part(lo, hi)
		o.Update(at, part.W, grad[lo:hi], part.Slots)
	})
}

// updateTensors does one tensor after the other, on each processor the next that is left.
func (x *exchange) updateTensors(o optimizer, at id.Step, s *state, grad []float32) {
	tensors := x.spec.Tensors()
	var next atomic.Int64
	var processors sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(tensors)) {
		processors.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(tensors)); i = next.Add(1) - 1 {
				lo := tensors[i].Offset
				hi := lo + tensors[i].Len()
				part := s.part(lo, hi)
				o.Update(at, part.W, grad[lo:hi], part.Slots)
			}
		})
	}
	processors.Wait()
}
