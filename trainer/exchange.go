package trainer

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/collective/vec"
	"github.com/musterml/muster/internal/flight"
	"github.com/musterml/muster/internal/huge"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/ps"
	"github.com/musterml/muster/trainer/nn"
)

// bucketSquares is the number of an operation on the ring that is of no bucket of the gradient: on the squares of the sum's
// blocks, where gradients are clipped in mode server.
const bucketSquares = flight.NoBucket

// exchange holds the buffers for adding up gradients over the ring.
type exchange struct {
	spec   *nn.Spec
	layout ps.Layout
	exact  bool
	alone  bool    // there is no other trainer: what is agreed is what this one says
	stays  bool    // this trainer's gradients stay on its cards, see stay.go;
	found  []int32 // their exponents, and,
	words  []int32 // with other trainers, their multiples
	shards int
	sums   collective.Exact
	header []int32            // the results of the logical shards, then block exponents
	parts  [][]float32        // this trainer's own gradients of a bucket, sum exact
	room   []float32          // (params), for the sum of gradients
	grad   []float32          // the sum, in that room or in place
	int8s  []*collective.Int8 // of each bucket, with sync.wire int8
	bf16   bool
	clip   clipping

	buckets []bucket // of the gradient, in the order in which they are summed
}

// none is what a trainer puts into the header where it has nothing to say. A word of
// the header is the largest of all trainers', so of one that speaks and others that do
// not, the one is heard.
const none = math.MinInt32

// Words of a logical shard's results in the header.
const (
	wordLoss        = 0 // float64 in two words
	wordCorrect     = 2
	wordTestLoss    = 3 // float64 in two words
	wordTestCorrect = 5
	resultWords     = 6
)

func newExchange(job Job, spec *nn.Spec) *exchange {
	layout := job.Layout(spec.Params())
	x := &exchange{
		spec: spec, layout: layout, exact: job.Sync.Sum == SumExact, shards: job.Batch.LogicalShards,
		sums: collective.Exact{BlockSize: layout.BlockSize, Shards: job.Batch.LogicalShards},
		room: huge.Float32s(layout.Params), bf16: job.Sync.Wire == WireBF16 && job.Sync.Mode == ModeRing,
	}
	x.grad = x.room
	blocks := 0
	if x.exact {
		blocks = layout.Blocks()
	}
	x.header = make([]int32, blocks+resultWords*x.shards)
	if job.Sync.Mode != ModeLocal { // there each logical shard clips its own
		x.clip = newClipping(job.Optimizer.ClipNorm, layout.Blocks())
	}
	size := bucketBlocks
	if job.Sync.Mode == ModeLocal || job.Sync.arrives() && x.clip.limit > 0 {
		// A round's outer gradient is complete at its end, all of it; and one that is clipped before it is pushed is wanted whole.
		size = layout.Blocks()
	}
	x.buckets = buckets(layout.Blocks(), size)
	if job.Sync.Wire == WireInt8 {
		for _, b := range x.buckets {
			lo, hi := x.span(b.first, b.last)
			x.int8s = append(x.int8s, collective.NewInt8(hi-lo))
		}
	}
	return x
}

func (x *exchange) exponents() []int32 { return x.header[resultWords*x.shards:] }

func (x *exchange) result(l id.LogicalShard) []int32 {
	return x.header[resultWords*int(l) : resultWords*int(l+1)]
}

// prepare makes this trainer's header of a bucket: which exponent each of its blocks needs and, with the bucket at the
// beginning of the vector, what the units showed. One small operation instead of several. At the step after the last there
// are no gradients.
func (x *exchange) prepare(b bucket, units []unit, mine []id.LogicalShard, last bool) []int32 {
	var header []int32
	if x.exact {
		header = x.exponents()[b.first:b.last]
	}
	if b.first == 0 {
		header = x.header[:resultWords*x.shards+len(header)]
	}
	for i := range header {
		header[i] = none
	}
	if int(b.last) == x.layout.Blocks() && !last { // a step's first bucket: when a later one is summed, earlier ones may be on their way to the servers
		x.grad = x.room
		if x.inPlace() {
			x.grad = units[mine[0]].grad
		}
	}
	switch {
	case last || !x.exact:
	case x.stays:
		copy(x.exponents()[b.first:b.last], x.found[b.first:b.last])
	default:
		x.spread(b.first, b.last, func(first, last id.Block) {
			for b := first; b < last; b++ {
				x.find(b, units, mine)
			}
		})
	}
	if b.first > 0 {
		return header
	}
	for _, l := range mine {
		u := &units[l]
		r := x.result(l)
		putFloat64(r[wordLoss:], u.Loss)
		r[wordCorrect] = int32(u.Correct)
		putFloat64(r[wordTestLoss:], u.test.Loss)
		r[wordTestCorrect] = int32(u.test.Correct)
	}
	return header
}

// find finds the exponent of a block for this trainer's gradients. One that is alone makes the sum at once, while they are in the
// cache: all of them together are far more than that holds.
func (x *exchange) find(b id.Block, units []unit, mine []id.LogicalShard) {
	lo, hi := x.span(b, b+1)
	for _, l := range mine {
		x.sums.Exponents(x.exponents()[b:b+1], units[l].grad[lo:hi])
	}
	if x.alone && !(x.inPlace() && x.exponents()[b] == collective.NonFinite) { // what is no number stays, for explain to find
		parts := make([][]float32, 0, len(mine))
		for _, l := range mine {
			parts = append(parts, units[l].grad[lo:hi])
		}
		form := collective.ExactSum{Exact: x.sums, Exps: x.exponents()[b : b+1], Parts: parts}
		form.Alone(x.grad[lo:hi])
	}
}

// inPlace tells that there is one gradient in all, which is its own sum where it lies, rounded if need be: if the step is done again,
// rounding it again changes nothing. Clipping would change it, and so would int8, which adds what it remembers.
func (x *exchange) inPlace() bool {
	return x.alone && x.shards == 1 && x.clip.limit == 0 && x.int8s == nil
}

// results adds up what all units showed, when all headers are agreed, and finds a step that is no good.
func (x *exchange) results(s id.Step) (train, test nn.Result, err error) {
	for l := range id.LogicalShard(x.shards) { // in this order on every trainer
		r := x.result(l)
		train.Loss += float64FromWords(r[wordLoss:])
		train.Correct += int(r[wordCorrect])
		test.Loss += float64FromWords(r[wordTestLoss:])
		test.Correct += int(r[wordTestCorrect])
	}
	return train, test, x.check(s, train)
}

// check finds a step after which no training is possible.
func (x *exchange) check(s id.Step, train nn.Result) error {
	if err := x.allFinite(x.exponents(), s); err != nil {
		return err
	}
	if math.IsNaN(train.Loss) || math.IsInf(train.Loss, 0) {
		return fmt.Errorf("%w: the loss is %v at %v; lower optimizer.lr or look at the data", ErrDiverged, train.Loss, s)
	}
	return nil
}

// allFinite says whose gradient is no number, by the exponents of all blocks.
func (x *exchange) allFinite(exponents []int32, s id.Step) error {
	if b := slices.Index(exponents, collective.NonFinite); b >= 0 {
		return fmt.Errorf("%w: the gradient of %s is not a finite number at %v; lower optimizer.lr or look at the data", ErrDiverged, x.tensor(id.Block(b)), s)
	}
	return nil
}

// tensor names the first tensor of a block.
func (x *exchange) tensor(b id.Block) string {
	lo, _ := x.layout.Range(b)
	name := ""
	for _, t := range x.spec.Tensors() {
		if t.Offset <= lo {
			name = t.Name
		}
	}
	return name
}

// own makes ready what this trainer has to add to bucket i: where its sum will be and what it comes from, and the form in which it
// travels; nil: as float32. Exact sums take the gradients of the units as they are, others their sum. Those gradients are only read: should
// the exchange fail, the units are still done.
func (x *exchange) own(i int, units []unit, mine []id.LogicalShard) (collective.Vector, collective.Form) {
	b := x.buckets[i]
	lo, hi := x.span(b.first, b.last)
	sum := collective.Float32s(x.grad[lo:hi])
	if x.stays {
		return sum, &collective.ExactSum{Exact: x.sums, Exps: x.exponents()[b.first:b.last], Words: x.words[lo:hi]}
	}
	if x.exact {
		x.parts = x.parts[:0]
		for _, l := range mine {
			x.parts = append(x.parts, units[l].grad[lo:hi])
		}
		return sum, &collective.ExactSum{Exact: x.sums, Exps: x.exponents()[b.first:b.last], Parts: x.parts}
	}
	switch {
	case x.inPlace(): // it is there
	case len(mine) == 1:
		sum = sum.From(units[mine[0]].grad[lo:hi])
	default:
		x.gather(b, units, mine)
	}
	switch {
	case x.bf16:
		return sum, collective.BF16{}
	case x.int8s != nil:
		return sum, x.int8s[i]
	}
	return sum, nil
}

// gather adds some units' gradients of a bucket, in float32.
func (x *exchange) gather(b bucket, units []unit, of []id.LogicalShard) {
	x.spread(b.first, b.last, func(first, last id.Block) {
		for b := first; b < last; b++ { // block by block: the sum stays in the cache
			lo, hi := x.span(b, b+1)
			clear(x.grad[lo:hi])
			for _, l := range of {
				vec.Best().AddFloat32(x.grad[lo:hi], units[l].grad[lo:hi])
			}
		}
	})
}

// allReduce sums a bucket over the ring; of exact sums its header is agreed.
func (x *exchange) allReduce(ctx context.Context, ring *collective.Ring, op collective.Op, sum collective.Vector, form collective.Form) error {
	if x.exact && x.alone {
		return nil // find has made it
	}
	if form != nil {
		return ring.Sum(ctx, op, sum, form)
	}
	return ring.AllReduce(ctx, op, sum, collective.SumFloat32)
}

// scatter sums a bucket over the ring so that each rank has its share, within bounds.
func (x *exchange) scatter(ctx context.Context, ring *collective.Ring, op collective.Op, bounds []int, sum collective.Vector, form collective.Form) error {
	if x.exact && x.alone {
		return nil
	}
	if form != nil {
		return ring.SumScatter(ctx, op, sum, bounds, form)
	}
	return ring.ReduceScatter(ctx, op, sum, bounds, collective.SumFloat32)
}

// settle makes what int8 has rounded away part of the next step, when this one is complete.
func (x *exchange) settle() {
	for _, b := range x.int8s {
		b.Commit()
	}
}

// forget drops what is still to be sent of earlier gradients, when the state they led to is given up.
func (x *exchange) forget() {
	for _, b := range x.int8s {
		b.Reset()
	}
}

// span is the range of parameters in the blocks [first, last).
func (x *exchange) span(first, last id.Block) (lo, hi int) {
	return int(first) * x.layout.BlockSize, min(int(last)*x.layout.BlockSize, x.layout.Params)
}

// all is every block of the model.
func (x *exchange) all() bucket { return bucket{0, id.Block(x.layout.Blocks())} }

// share is the blocks of b that belong to a rank; shares cover it in order.
func (b bucket) share(rank, world int) bucket {
	n := int(b.last - b.first)
	return bucket{b.first + id.Block(rank*n/world), b.first + id.Block((rank+1)*n/world)}
}

// spread runs f for ranges that cover the blocks [first, last), one on each processor.
func (x *exchange) spread(first, last id.Block, f func(first, last id.Block)) {
	blocks := int(last - first)
	n := min(runtime.GOMAXPROCS(0), blocks)
	part := func(i int) (from, to id.Block) {
		return first + id.Block(i*blocks/n), first + id.Block((i+1)*blocks/n)
	}
	var others sync.WaitGroup
	for i := 1; i < n; i++ {
		others.Go(func() { f(part(i)) })
	}
	if n > 0 {
		f(part(0))
	}
	others.Wait()
}

// bounds are the shares of a bucket as offsets in it, for the ring.
func (x *exchange) bounds(b bucket, world int) []int {
	from, _ := x.span(b.first, b.last)
	bounds := make([]int, world+1)
	for rank := range world {
		share := b.share(rank, world)
		_, hi := x.span(share.first, share.last)
		bounds[rank+1] = hi - from
	}
	return bounds
}

func putFloat64(words []int32, v float64) {
	b := math.Float64bits(v)
	words[0], words[1] = int32(uint32(b)), int32(uint32(b>>32))
}

func float64FromWords(words []int32) float64 {
	return math.Float64frombits(uint64(uint32(words[0])) | uint64(uint32(words[1]))<<32)
}
