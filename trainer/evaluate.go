package trainer

import (
	"context"
	"errors"
	"fmt"

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
	if err := w.measure(ctx, weights, tables); err != nil {
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

// Predict is what the model's last layer puts out for each of some rows, Spec.Scored values each. What their answers are is of no account;
// else it is as Evaluate. Models of tokens are refused.
func Predict(ctx context.Context, job Job, spec *nn.Spec, dev device.Device, weights []float32, tables *Tables, train, rows data.Dataset) ([]float32, error) {
	if spec.Kind() == data.Tokens {
		return nil, fmt.Errorf("model %s goes over text, of which it predicts each next character: there is nothing to predict of rows", spec.Name())
	}
	w, err := newWork(job, spec, dev, train, rows, nil)
	if err != nil {
		return nil, err
	}
	w.scores = &scores{width: spec.Scored(), values: make([]float32, rows.Len()*spec.Scored())}
	for _, b := range w.benches {
		b.scores = make([]float32, w.slice*w.scores.width)
	}
	return w.scores.values, w.measure(ctx, weights, tables)
}

// measure goes over all held-out samples, and closes w.
func (w *work) measure(ctx context.Context, weights []float32, tables *Tables) error {
	w.source = tables
	var all []id.LogicalShard
	for l := range w.units {
		all = append(all, id.LogicalShard(l))
	}
	return errors.Join(w.compute(ctx, 0, w.steps, weights, all), w.close())
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
