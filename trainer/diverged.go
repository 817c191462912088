package trainer

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/musterml/muster/collective/vec"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/nn"
)

// When a loss or a gradient is no number any more, the run ends at that step, on all nodes. The trainer whose unit it
// was can say most: it looks for the layer where it began, and reports that; the coordinator passes it on. The others
// only see that the sum is no number, or that the one who knows has left the ring; they keep still and wait to be told.

// ErrDiverged is returned when a loss or a gradient is no number any more; training
// cannot go on, on any node.
var ErrDiverged = errors.New("training diverged")

// errElsewhere ends a shift that cannot go on because of another trainer's unit.
var errElsewhere = errors.New("another trainer has a loss or a gradient that is no number")

// blame says where a loss or a gradient became no number.
func blame(r *nn.Replica, w []float32, in data.Batch, key device.DropoutKey, grad []float32) error {
	switch err := r.Blame(w, in, key, grad); {
	case errors.Is(err, nn.ErrNotFinite):
		return fmt.Errorf("%w: %w", ErrDiverged, err)
	case err != nil:
		return err
	default: // the same samples give numbers when they are looked at alone
		return fmt.Errorf("%w: the loss is not a finite number", ErrDiverged)
	}
}

// blame says what is wrong with the unit of a shard, which a bench looks at alone.
func (w *work) blame(b *bench, s id.Step, l id.LogicalShard, weights []float32) error {
	grad, err := w.gradient(l)
	if err != nil {
		return err
	}
	return blame(b.replica, weights, w.samplesOfGroup(b, s, []id.LogicalShard{l}), w.key(s, l), grad)
}

// key tells the dropouts of a unit from all others.
func (w *work) key(s id.Step, l id.LogicalShard) device.DropoutKey {
	return device.DropoutKey{Seed: w.job.Seed, Step: uint64(s), Shard: uint16(l)}
}

// explain finds out which of this trainer's own units made the sum of a step no number, and where in the model.
func (w *work) explain(s id.Step, weights []float32, mine []id.LogicalShard, err error) error {
	if !errors.Is(err, ErrDiverged) {
		return err
	}
	b := w.benches[0]
	for _, l := range mine {
		grad, unread := w.gradient(l)
		if unread != nil {
			return unread
		}
		if finite(w.units[l].Loss) && allFinite(grad) {
			continue
		}
		return fmt.Errorf("%v of %v: %w", s, l, w.blame(b, s, l, weights))
	}
	return errElsewhere
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// allFinite goes by bits: infinities and NaNs are those that come last.
func allFinite(x []float32) bool {
	return vec.Best().Largest(x) < math.Float32bits(float32(math.Inf(1)))
}

// allFiniteOn is allFinite on so many processors.
func allFiniteOn(n int, x []float32) bool {
	if n < 2 {
		return allFinite(x)
	}
	var bad atomic.Bool
	var parts sync.WaitGroup
	for i := range n {
		parts.Go(func() {
			if !allFinite(x[i*len(x)/n : (i+1)*len(x)/n]) {
				bad.Store(true)
			}
		})
	}
	parts.Wait()
	return !bad.Load()
}
