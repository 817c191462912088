package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/musterml/muster/internal/atomicfile"
	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/ps"
	"github.com/musterml/muster/trainer"
)

// The files of an output folder.
const (
	ModelFile   = "model.safetensors"
	MetricsFile = "metrics.jsonl"
	EventsFile  = "events.jsonl"
	JobFile     = "job.yaml"
	DataFile    = "data.sha256" // the digest of what was trained on; not of a node that has no data
	FailedDir   = "failed"      // of a run that has failed
)

// save writes the outputs, on trainers and on the coordinator's leader; it returns
// their folder, "" on a node that has none. Of a run that has failed there is no model, and the rest goes to a folder of
// its own within, so that what an earlier run left there stays whole.
func (n *Node) save(ctx context.Context, f *pb.Finish) (string, error) {
	if n.trainer == nil && !n.leads() {
		return "", nil
	}
	history, err := n.history(ctx)
	if err != nil {
		return "", err
	}
	out := n.cfg.Out
	if f.Failed != "" {
		out = filepath.Join(out, FailedDir)
		if err := os.MkdirAll(out, 0o755); err != nil {
			return "", fmt.Errorf("output folder: %w", err)
		}
	} else {
		w, err := n.weights(ctx, f)
		if err != nil {
			return "", err
		}
		if err := trainer.WriteModel(filepath.Join(out, ModelFile), n.spec, w); err != nil {
			return "", err
		}
		if err := n.writeTables(ctx, id.Step(f.Step), filepath.Join(out, TablesFile)); err != nil {
			return "", err
		}
	}
	if n.train != nil {
		if err := atomicfile.WriteBytes(filepath.Join(out, DataFile), []byte(n.train.Digest().String()+"\n")); err != nil {
			return "", err
		}
	}
	job, err := n.cfg.Job.YAML()
	if err != nil {
		return "", err
	}
	return out, errors.Join(
		atomicfile.WriteBytes(filepath.Join(out, MetricsFile), metricsLines(history.Metrics, f.Step, func(at id.Step) float64 {
			return n.cfg.Job.Optimizer.Rate(at, id.Step(f.Step))
		})),
		atomicfile.WriteBytes(filepath.Join(out, EventsFile), eventLines(history.Events)),
		atomicfile.WriteBytes(filepath.Join(out, JobFile), job),
	)
}

// history asks for the run's whole history until the leader gives it.
func (n *Node) history(ctx context.Context) (*pb.Status, error) {
	end := n.waits.Begin("the run's history", "", "coordinator")
	defer end()
	ctx, cancel := context.WithTimeout(ctx, historyTimeout)
	defer cancel()
	for {
		st, err := n.clusterStatus(ctx, &pb.StatusRequest{History: true})
		if err == nil {
			return st, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the run's history cannot be had: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// weights are the final ones, from this node's trainer or, where it has left the view,
// from the parameter servers.
func (n *Node) weights(ctx context.Context, f *pb.Finish) ([]float32, error) {
	if n.trainer != nil {
		if w, ok := n.trainer.Weights(); ok {
			return w, nil
		}
	}
	end := n.waits.Begin("the final weights", "", "servers")
	defer end()
	ctx, cancel := context.WithTimeout(ctx, historyTimeout)
	defer cancel()
	w := make([]float32, n.spec.Params())
	blocks := n.cfg.Job.Layout(len(w)).Blocks()
	if err := n.client.Pull(ctx, id.Step(f.Step), 0, id.Block(blocks), ps.State{W: w}); err != nil {
		return nil, fmt.Errorf("the final weights cannot be had: %w", err)
	}
	digest, err := trainer.Digest(n.spec, w)
	if err == nil && digest != f.Digest {
		err = fmt.Errorf("the weights on the parameter servers have digest %s, the trainers' %s", digest, f.Digest)
	}
	return w, err
}

type stepLine struct {
	Step     uint64    `json:"step"`
	Loss     float64   `json:"loss"`
	Accuracy *float64  `json:"accuracy,omitempty"`  // of classes
	RSquared *float64  `json:"r_squared,omitempty"` // of numbers to be found
	LR       float64   `json:"lr"`                  // the learning rate of the step
	GradNorm float64   `json:"grad_norm,omitempty"` // of the gradient before it was clipped, where it is
	Time     time.Time `json:"time"`
	Unknown  bool      `json:"unknown,omitempty"` // the figures are lost, not the step

	Staleness *staleness `json:"staleness,omitempty"` // in modes ssp and async
}

// staleness is how old the weights were that a step's gradients were computed on, in steps; see pb.Staleness.
type staleness struct {
	Min  float64 `json:"min"`
	Mean float64 `json:"mean"`
	Max  float64 `json:"max"`
}

func newStaleness(s *pb.Staleness) *staleness {
	if s == nil {
		return nil
	}
	return &staleness{s.Min, s.Mean, s.Max}
}

type evaluationLine struct {
	StateAt      uint64    `json:"state_at"` // steps done when the held-out data was evaluated
	TestLoss     float64   `json:"test_loss"`
	TestAccuracy *float64  `json:"test_accuracy,omitempty"`
	TestRSquared *float64  `json:"test_r_squared,omitempty"`
	TestAUC      float64   `json:"test_auc,omitempty"`
	Time         time.Time `json:"time"`
}

// Score is what tells how well a model does, as one of the two that it may be; the other is nil.
func Score(regression bool, v *float64) (accuracy, rSquared *float64) {
	if regression {
		return nil, v
	}
	return v, nil
}

// metricsLines is a line for every step and one for every evaluation.
func metricsLines(metrics []*pb.StepMetrics, steps uint64, rate func(at id.Step) float64) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	for _, m := range metrics {
		at := time.Unix(0, m.Time).UTC()
		if m.Evaluated {
			l := evaluationLine{StateAt: m.Step, TestLoss: m.TestLoss, TestAUC: m.TestAuc, Time: at}
			l.TestAccuracy, l.TestRSquared = Score(m.Regression, &m.TestAccuracy)
			_ = enc.Encode(l)
		}
		if m.Step < steps {
			l := stepLine{Step: m.Step, Loss: m.Loss, LR: rate(id.Step(m.Step)), GradNorm: m.GradNorm, Time: at, Unknown: m.Unknown, Staleness: newStaleness(m.Staleness)}
			l.Accuracy, l.RSquared = Score(m.Regression, &m.Accuracy)
			_ = enc.Encode(l)
		}
	}
	return out.Bytes()
}

type eventLine struct {
	Time time.Time `json:"time"`
	Kind string    `json:"kind"`
	Node string    `json:"node,omitempty"`
	View uint64    `json:"view"`
	Step uint64    `json:"step"`
	Text string    `json:"text"`
}

func eventLines(events []*pb.Event) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for _, e := range events {
		_ = enc.Encode(eventLine{time.Unix(0, e.Time).UTC(), e.Kind, e.Node, e.View, e.Step, e.Text})
	}
	return out.Bytes()
}
