package trainer

import (
	"context"
	"sync"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/internal/flight"
	"github.com/musterml/muster/internal/id"
)

// How what is done with gradients overlaps computing them.
//
// The gradient is cut into buckets of consecutive blocks, from its end to its beginning: the order in which a backward pass
// completes it. The device hands it over bucket by bucket (nn.Replica.Marks), whether it is the host's processor or a GPU that goes on
// meanwhile. A bucket is ready when every unit of this trainer has gone back over it, so all but the last wave of
// units (as many as there are cores) are whole by then, and it is the backward passes of that last wave that hide the
// network. In modes ring and server one goroutine sums bucket after bucket, each by itself: its blocks' exponents, their agreement over the ring,
// and the sum over the ring, which makes integers of the units' gradients piece by piece as they are sent. All that hangs on single blocks, so buckets change no bit of an exact
// sum, and every trainer has the same buckets, as they depend on the model alone.
//
// The last bucket, the beginning of the vector, is summed after computing, when also the units' results are known and
// this step's commit is complete; its header carries the results. So a step is complete on any trainer only when
// all have come that far, as without buckets.
//
// In mode server each trainer has a share of every bucket. It pushes it to the servers when the bucket is summed; while they update
// it, the ring sums the next bucket; and then their new weights go round (serverSync.sum). All of that writes to what becomes the state
// at the next step when it is complete. A step that is given up leaves some blocks on the servers a step ahead, with the one
// before beside it, and whoever does the step again pushes them again to no effect: as it was when a push of the whole was interrupted.
//
// In modes ssp and async a bucket is given to the servers as soon as it is ready, and its newest weights become part of the next ones
// that this trainer computes on. Mode local has nothing to give before a round is over.
//
// Rejected: to sum every unit's gradient by itself, so that there is something to send from the first wave on. It
// multiplies the bytes by the units of a trainer.

// bucketBlocks is the size of a bucket: 4 MiB. Smaller ones are sent sooner and leave less for the end, but each costs the
// ring two more operations and their latency; measured with resnet18 (45 MB) and gpt at 1 Gb/s (docs/architecture.md).
const bucketBlocks = 4 << 20 / 4 / BlockSize

// bucket is the blocks [first, last).
type bucket struct{ first, last id.Block }

// buckets cuts so many blocks, from the end; the last bucket begins at block 0.
func buckets(blocks, size int) []bucket {
	var all []bucket
	for last := blocks; last > 0; last -= size {
		all = append(all, bucket{id.Block(max(0, last-size)), id.Block(last)})
	}
	return all
}

// starts are the offsets in the gradient at which buckets begin.
func (x *exchange) starts() []int {
	var all []int
	for _, b := range x.buckets {
		lo, _ := x.span(b.first, b.last)
		all = append(all, lo)
	}
	return all
}

// overlap does something with buckets of a step while it is being computed.
type overlap struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	err    error
}

// overlap begins to do something with the first n buckets of x, one after the other, each when the gradients of the shards are complete in it.
// What it begins with its context may go on after it, and ends with ctx, the step's, unless end gives it up.
func (w *work) overlap(ctx context.Context, x *exchange, shards []id.LogicalShard, n int, do func(ctx context.Context, bucket int) error) *overlap {
	ctx, cancel := context.WithCancel(ctx)
	o := &overlap{cancel: cancel}
	o.done.Go(func() {
		for i := 0; i < n && o.err == nil; i++ {
			lo, _ := x.span(x.buckets[i].first, x.buckets[i].last)
			if !w.await(ctx, shards, lo) {
				return
			}
			o.err = do(ctx, i)
		}
	})
	return o
}

// beginSums begins to sum all buckets but the last. At the step after the last there are none.
func (s *shift) beginSums(ctx context.Context, at id.Step, last bool) *overlap {
	n := s.sums.beside()
	if last {
		n = 0
	}
	return s.work.overlap(ctx, s.sums, s.shards, n, func(ctx context.Context, i int) error { return s.addUp(ctx, at, i) })
}

// end waits for it, or, when computing has failed, gives it up.
func (o *overlap) end(computed error) error {
	if computed != nil {
		o.cancel()
		o.done.Wait()
		return nil // what became of them is only a consequence
	}
	o.done.Wait()
	return o.err
}

// addUp sums a bucket over all trainers; of exact sums its header is agreed first.
func (s *shift) addUp(ctx context.Context, at id.Step, i int) error {
	if s.sums.exact {
		if err := s.agree(ctx, at, i, false); err != nil {
			return err
		}
	}
	return s.sync.sum(ctx, at, i)
}

// agree exchanges the header of a bucket.
func (s *shift) agree(ctx context.Context, at id.Step, i int, last bool) error {
	mark := s.recordSum("exponents", at, i)
	header := s.sums.prepare(s.sums.buckets[i], s.work.units, s.shards, last)
	s.cfg.Flight.End(mark, flight.Outcome{})
	end := s.awaitRing("the exchange of exponents and results", at)
	defer end()
	return s.ring.AllReduce(ctx, collective.Op{Step: at, Bucket: uint32(i)}, collective.Int32s(header), collective.MaxInt32)
}

// own makes ready what this trainer adds to a bucket, see exchange.own.
func (s *shift) own(at id.Step, i int) (collective.Vector, collective.Form) {
	if !s.sums.exact { // those are added up as they are sent
		defer s.cfg.Flight.End(s.recordSum("add up", at, i), flight.Outcome{})
	}
	return s.sums.own(i, s.work.units, s.shards)
}

func (s *shift) recordSum(what string, at id.Step, i int) flight.Mark {
	return s.cfg.Flight.Begin(flight.Span{What: what, Track: flight.Sum, View: s.view.Number, Step: at, Bucket: uint32(i)})
}
