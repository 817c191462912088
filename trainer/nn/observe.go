package nn

import (
	"fmt"

	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
)

// Observe runs the samples as training does, but without dropout, and writes the mean and the variance that each
// batch norm met to stats, which has room for Statistics numbers: layer after layer, means then variances.
func (r *Replica) Observe(w []float32, in data.Batch, stats []float32) error {
	if err := r.check(w, in); err != nil {
		return err
	}
	if err := r.checkStats(stats); err != nil || len(stats) == 0 {
		return err
	}
	r.begin(w, in, r.whole(in, device.DropoutKey{}), false)
	r.stream.Bind(r.stats, stats, device.Out)
	r.pass.observed = device.Whole(r.stats)
	r.pass.forwardChain(r.spec.layers, r.states, device.Whole(r.x))
	r.stream.Flush(device.Whole(r.stats))
	if err := r.sync(); err != nil {
		return err
	}
	r.spec.eachNorm(func(c, at int) {
		for i := at + c; i < at+2*c; i++ {
			rstd := float64(stats[i])
			stats[i] = float32(max(0, 1/float64(rstd*rstd)-normEps))
		}
	})
	return nil
}

func (r *Replica) checkStats(stats []float32) error {
	if len(stats) != r.spec.stats {
		return fmt.Errorf("model %s: %w: %d statistics given, the model has %d", r.spec.name, ErrArgument, len(stats), r.spec.stats)
	}
	return nil
}

// eachNorm calls f for every batch norm, with its channels and the place of its statistics.
func (s *Spec) eachNorm(f func(channels, at int)) {
	var walk func(layers []layer)
	walk = func(layers []layer) {
		for _, l := range layers {
			switch l := l.(type) {
			case *batchNorm:
				f(l.s.c, l.stats.offset)
			case *residual:
				walk(l.body)
				walk(l.shortcut)
			}
		}
	}
	walk(s.layers)
}

// Population makes of the statistics of several batches those of all their samples together: the mean of the means,
// and the mean of the variances plus the variance of the means, the batches weighted by their numbers of samples. With statistics that
// are observed anew for the weights at hand, and not averaged while these moved, it is the "precise batch norm" of Wu and
// Johnson, "Rethinking batch in BatchNorm", 2021, section 3.
func (s *Spec) Population(batches [][]float32, samples []int) []float32 {
	total := 0.0
	sums := make([]float64, s.stats)
	for b, stats := range batches {
		n := float64(samples[b])
		total += n
		s.eachNorm(func(c, at int) {
			for i := at; i < at+c; i++ {
				mean := float64(stats[i])
				sums[i] += float64(n * mean)
				sums[i+c] += float64(n * (float64(stats[i+c]) + float64(mean*mean)))
			}
		})
	}
	all := make([]float32, s.stats)
	s.eachNorm(func(c, at int) {
		for i := at; i < at+c; i++ {
			mean := sums[i] / total
			all[i], all[i+c] = float32(mean), float32(max(0, sums[i+c]/total-float64(mean*mean)))
		}
	})
	return all
}
