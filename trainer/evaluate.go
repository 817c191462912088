package trainer

import (
	"context"
	"errors"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/nn"
)

// Evaluate measures weights on the held-out data, on all cores, as a run does at its end. The training data are for the
// statistics of batch norms, if the model has any. tables are those of a model that has some.
func Evaluate(ctx context.Context, job Job, spec *nn.Spec, dev device.Device, weights []float32, tables *Tables, train, test data.Dataset) (sum Evaluation, err error) {
	w, err := newWork(job, spec, dev, train, test, nil)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	w.source = tables
	var all []id.LogicalShard
	for l := range w.units {
		all = append(all, id.LogicalShard(l))
	}
	if err := w.compute(ctx, 0, w.steps, weights, all); err != nil {
		return sum, err
	}
	for l := range w.units {
		u := &w.units[l]
		sum.Loss += u.test.Loss
		sum.Correct += u.test.Correct
	}
	if w.scores != nil {
		sum.AUC = w.scores.auc()
	}
	return sum, nil
}

// Evaluation is the sums over samples, and the area under the ROC curve of a model with one output for two classes, else 0.
type Evaluation struct {
	nn.Result
	AUC float64
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
