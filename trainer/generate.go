package trainer

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/nn"
)

// Generator goes on with a text as a model of text would: token by token, each drawn with the probability that the model gives it after those
// before, of which it sees as many as its samples are long. It is used by one goroutine.
type Generator struct {
	spec    *nn.Spec
	replica *nn.Replica
	weights []float32
	in      data.Batch
	weighed []float64 // by token, of the next one
}

// NewGenerator makes a generator of a model; train is what it was trained on. Close it.
func NewGenerator(spec *nn.Spec, dev device.Device, weights []float32, train data.Dataset) (*Generator, error) {
	if spec.Kind() != data.Tokens || spec.Statistics() > 0 {
		return nil, fmt.Errorf("model %s cannot write: it takes one whose data are text, without batch norm", spec.Name())
	}
	r, err := spec.NewReplica(dev, 1, 1)
	if err != nil {
		return nil, err
	}
	r.Scores = make([]float32, spec.Targets()*spec.Scored())
	r.Hold(weights)
	return &Generator{spec: spec, replica: r, weights: weights, in: data.NewBatch(train, 1), weighed: make([]float64, spec.Scored())}, nil
}

// Next draws the token after some, at least one. The temperature is what the scores are divided by before the softmax: below 1 likely tokens become more
// likely; at 0 the likeliest is taken.
func (g *Generator) Next(before []int32, temperature float64, rng *rand.Rand) (int32, error) {
	before = before[max(0, len(before)-len(g.in.Tokens)):]
	clear(g.in.Tokens[copy(g.in.Tokens, before):]) // what comes later is not seen
	if _, err := g.replica.Loss(g.weights, g.in); err != nil {
		return 0, err
	}
	k := g.spec.Scored()
	scores := g.replica.Scores[(len(before)-1)*k : len(before)*k]
	best := 0
	for i, s := range scores {
		if s > scores[best] {
			best = i
		}
	}
	if temperature == 0 {
		return int32(best), nil
	}
	sum := 0.0
	for i, s := range scores {
		g.weighed[i] = math.Exp((float64(s) - float64(scores[best])) / temperature)
		sum += g.weighed[i]
	}
	at := rng.Float64() * sum
	for i, p := range g.weighed {
		if at -= p; at < 0 {
			return int32(i), nil
		}
	}
	return int32(best), nil
}

// Close frees the memory of the model.
func (g *Generator) Close() error { return g.replica.Close() }
