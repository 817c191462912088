package trainer

import (
	"context"

	"github.com/musterml/muster/internal/id"
)

// observeSamples is on how many samples, or a few more, the statistics of batch norms are observed for an evaluation.
const observeSamples = 1024

// norms is the statistics of batch norms for the state at a step, a function of the job and that state: every
// trainer that evaluates finds the same.
type norms struct {
	stats []float32 // as nn.Replica.Evaluate takes them
	step  id.Step
	done  bool
}

// observe finds the statistics for the state at a step, on the first samples of the run, in slices of the size of those that are
// trained on.
func (w *work) observe(ctx context.Context, s id.Step, weights []float32) error {
	if w.spec.Statistics() == 0 || w.norms.done && w.norms.step == s {
		return nil
	}
	w.norms.done = false
	type slice struct {
		step  id.Step
		shard id.LogicalShard
	}
	var slices []slice
	for seen, at := 0, id.Step(0); seen < min(observeSamples, w.samples); at++ {
		for l := 0; l < w.job.Batch.LogicalShards && seen < observeSamples; l++ {
			slices = append(slices, slice{at, id.LogicalShard(l)})
			_, n := w.job.batches().Slice(at, id.LogicalShard(l))
			seen += n
		}
	}
	observed, samples := make([][]float32, len(slices)), make([]int, len(slices))
	err := w.each(ctx, len(slices), func(b *bench, i int) error {
		in := w.loader.Fill(slices[i].step, []id.LogicalShard{slices[i].shard}, b.batch)
		observed[i], samples[i] = make([]float32, w.spec.Statistics()), in.Len()
		return b.replica.Observe(weights, in, observed[i])
	})
	if err == nil {
		w.norms = norms{stats: w.spec.Population(observed, samples), step: s, done: true}
	}
	return err
}
