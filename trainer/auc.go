package trainer

import (
	"context"
	"math"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/nn"
)

// The area under the ROC curve of the held-out data needs the scores of all samples in one place. Each trainer has those of
// its logical shards; they go round the ring once after every evaluation, four bytes for each sample.

// bucketScores is the number of that operation, which is of no bucket of the gradient.
const bucketScores = math.MaxUint32 - 100

// scores are what the last layer puts out for the held-out samples, for AUC of models with one output for two classes, and for Predict.
type scores struct {
	width  int       // values of a sample
	values []float32 // (n, width)
	words  []int32   // the same as they travel
	labels []int32
}

func newScores(spec *nn.Spec, test data.Dataset) *scores {
	if spec.Loss() != nn.BinaryCrossEntropy {
		return nil
	}
	s := &scores{width: 1, values: make([]float32, test.Len()), words: make([]int32, test.Len()), labels: make([]int32, test.Len())}
	one := data.NewBatch(test, 1)
	for i := range s.labels {
		test.Sample(i, one)
		s.labels[i] = one.Labels[0]
	}
	return s
}

// put notes the scores of samples of a logical shard, from its from-th on.
func (s *scores) put(l id.LogicalShard, shards, from int, values []float32) {
	for i, v := range values {
		sample := int(l) + (from+i/s.width)*shards
		s.values[sample*s.width+i%s.width] = v + 0 // of two zeros the positive: the other is what none looks like
	}
}

// agree gives every trainer the scores of all.
func (s *scores) agree(ctx context.Context, ring *collective.Ring, at id.Step, mine []id.LogicalShard, shards int) error {
	for i := range s.words {
		s.words[i] = none
	}
	for _, l := range mine {
		for i := int(l); i < len(s.words); i += shards {
			s.words[i] = int32(math.Float32bits(s.values[i]))
		}
	}
	if err := ring.AllReduce(ctx, collective.Op{Step: at, Bucket: bucketScores}, collective.Int32s(s.words), collective.MaxInt32); err != nil {
		return err
	}
	for i, w := range s.words {
		s.values[i] = math.Float32frombits(uint32(w))
	}
	return nil
}

func (s *scores) auc() float64 { return data.AUC(s.values, s.labels) }

// measureAUC is the area under the ROC curve of the state at a step, 0 where none is measured.
func (s *shift) measureAUC(ctx context.Context, at id.Step) (float64, error) {
	if s.work.scores == nil || !s.work.evaluates(at) {
		return 0, nil
	}
	end := s.awaitRing("the exchange of scores", at)
	defer end()
	if err := s.work.scores.agree(ctx, s.ring, at, s.shards, len(s.work.units)); err != nil {
		return 0, err
	}
	return s.work.scores.auc(), nil
}
