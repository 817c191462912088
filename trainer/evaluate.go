package trainer

import (
	"context"
	"errors"
	"runtime"
	"sync"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/nn"
)

// evaluateBatch is how many labels Evaluate runs at a time on one core.
const evaluateBatch = 64

// Evaluate measures weights on a data set, on all cores.
func Evaluate(ctx context.Context, spec *nn.Spec, dev device.Device, w []float32, d data.Dataset) (nn.Result, error) {
	n := min(runtime.GOMAXPROCS(0), d.Len())
	held := data.NewHeldOut(d, n)
	results, errs := make([]nn.Result, n), make([]error, n)
	var cores sync.WaitGroup
	for i := range n {
		cores.Go(func() {
			results[i], errs[i] = evaluatePart(ctx, spec, dev, w, held, id.LogicalShard(i), data.NewBatch(d, max(1, evaluateBatch/spec.Targets())))
		})
	}
	cores.Wait()
	var sum nn.Result
	for _, r := range results {
		sum.Loss += r.Loss
		sum.Correct += r.Correct
	}
	return sum, errors.Join(errs...)
}

// Means are the loss of a label and the share of them that is right, of the sums over samples.
// In regression the latter is R^2, the share of the targets' variance that the model explains: 1 - loss, as
// targets are standardised (by those that are trained on). It is negative for a model worse than their mean.
func Means(spec *nn.Spec, r nn.Result, samples int) (loss, accuracy float64) {
	n := float64(samples * spec.Targets())
	if spec.Classes() == 0 {
		return r.Loss / n, 1 - r.Loss/n
	}
	return r.Loss / n, float64(r.Correct) / n
}

func evaluatePart(ctx context.Context, spec *nn.Spec, dev device.Device, w []float32, held *data.HeldOut, part id.LogicalShard, batch data.Batch) (sum nn.Result, err error) {
	replica, err := spec.NewReplica(dev, batch.Len())
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, replica.Close()) }()
	for in := range held.Chunks(part, batch) {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		r, err := replica.Loss(w, in)
		if err != nil {
			return sum, err
		}
		sum.Loss += r.Loss
		sum.Correct += r.Correct
	}
	return sum, nil
}
