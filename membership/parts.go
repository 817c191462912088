package membership

import (
	pb "github.com/musterml/muster/proto"
)

// Where trainers are at different steps (modes ssp and async), each reports of a step what its own logical shards showed. The
// director puts the parts together and records a step when it has all of them. It keeps them in memory only: trainers
// report what is not recorded again and again, so a new leader hears all of it anew.

// gathering is the parts of a step.
type gathering struct {
	parts []*pb.PartMetrics // by logical shard; nil where none has come
	of    *pb.StepMetrics   // what is not in parts, of the last report of the step
}

// gather takes the parts that a trainer reports of a step. What is known stands against what is lost, otherwise the first word.
func (d *director) gather(m *pb.StepMetrics) {
	if m.Step < d.recording {
		return
	}
	g := d.parts[m.Step]
	if g == nil {
		g = &gathering{parts: make([]*pb.PartMetrics, d.shards)}
		d.parts[m.Step] = g
	}
	for _, p := range m.Parts {
		if int(p.Shard) >= d.shards {
			continue
		}
		if old := g.parts[p.Shard]; old == nil || old.Lost {
			g.parts[p.Shard] = p
		}
	}
	if g.of == nil || m.Time > g.of.Time {
		g.of = m
	}
}

// gathered is the figures of the step to be recorded next, nil while parts are missing. Parts are added in the order of logical
// shards, so the sum does not hang on who reported first.
func (d *director) gathered() *pb.StepMetrics {
	g := d.parts[d.recording]
	if g == nil {
		return nil
	}
	m := &pb.StepMetrics{Step: d.recording, Time: g.of.Time, Regression: g.of.Regression, Staleness: &pb.Staleness{}}
	s := m.Staleness
	for i, p := range g.parts {
		switch {
		case p == nil:
			return nil
		case p.Lost:
			m.Unknown = true
			continue
		}
		m.Loss += p.Loss
		m.Accuracy += p.Accuracy
		m.TestLoss += p.TestLoss
		m.TestAccuracy += p.TestAccuracy
		s.Mean += p.Staleness / float64(d.shards)
		s.Max = max(s.Max, p.Staleness)
		if i == 0 || p.Staleness < s.Min {
			s.Min = p.Staleness
		}
	}
	delete(d.parts, d.recording)
	if m.Unknown {
		return &pb.StepMetrics{Step: m.Step, Time: m.Time, Regression: m.Regression, Unknown: true}
	}
	m.Evaluated = g.of.Evaluated
	if m.Regression {
		m.Accuracy, m.TestAccuracy = 1-m.Loss, 1-m.TestLoss // R^2 does not add up
	}
	return m
}
