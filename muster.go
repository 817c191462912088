// Package muster trains models from Go programs. A job is a trainer.Job, in it a model is a list of layers of package
// trainer/nn, made by any Go code; examples/custom shows one. Its data are files, or data.Own of the
// program's own samples, as in examples/owndata.
//
// Train does a job in this process, as "muster train" does, and Join is a node of a cluster, as "muster node"
// is: nodes of one run are whatever program has the same job, be it this one or muster with
// the job file that Job.YAML prints; a job with samples of its own only the program can have.
package muster

import (
	"context"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/node"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/trainer"
)

// Step is how a step went.
type Step struct {
	Number   uint64  // from 0
	Loss     float64 // mean over the batch
	Accuracy float64 // share of the batch that was right; in regression R², the share of the variance that is explained
}

// Result is how a run ended.
type Result struct {
	Steps        uint64
	TestLoss     float64 // on the held-out data
	TestAccuracy float64
	TestAUC      float64 // the area under the ROC curve, of two classes with one output; else 0
	Digest       string  // SHA-256 of the file of weights, in hexadecimal
	Out          string  // the folder with the outputs
}

// Train trains a job in this process alone. onStep, if it is not nil, is called after every step. The error of a job
// that is not valid names every fault; ctx ends the run early, with an error.
func Train(ctx context.Context, job trainer.Job, onStep func(Step)) (Result, error) {
	if err := job.Validate(); err != nil {
		return Result{}, err
	}
	r, err := node.RunEmbedded(ctx, config(job, onStep), 1)
	return result(r), err
}

// Node says how this process is a node of a cluster.
type Node struct {
	Name   string   // unique in the cluster
	Listen string   // host:port of its one port, TCP and UDP
	Seeds  []string // host:port of nodes to find the cluster by; one that answers is enough
	Key    []byte   // the cluster's secret, at least 16 bytes; nil: nothing is encrypted
}

// Join takes part in a run, as a server and a trainer, until it is over. The run begins when the job's number of servers is
// there. The node's own files are in the folder runs/nodes/NAME.
func Join(ctx context.Context, job trainer.Job, n Node, onStep func(Step)) (Result, error) {
	if err := job.Validate(); err != nil {
		return Result{}, err
	}
	cfg := config(job, onStep)
	cfg.Name, cfg.Listen, cfg.Join, cfg.Key = id.Node(n.Name), n.Listen, slices.Clone(n.Seeds), n.Key
	cfg.Server, cfg.Trainer, cfg.Cluster = true, true, "muster"
	cfg.DataDir, cfg.Out = filepath.Join("runs/nodes", n.Name), job.Out
	r, err := node.Run(ctx, cfg)
	return result(r), err
}

func config(job trainer.Job, onStep func(Step)) node.Config {
	var steps atomic.Uint64 // behind the last there is one more call, for the held-out data
	return node.Config{
		Job: job, Version: "a Go program", Log: zerolog.Nop(), OnSteps: func(n id.Step) { steps.Store(uint64(n)) },
		OnStep: func(m *pb.StepMetrics) {
			if onStep != nil && m.Step < steps.Load() {
				onStep(Step{Number: m.Step, Loss: m.Loss, Accuracy: m.Accuracy})
			}
		},
	}
}

func result(r node.Result) Result {
	f := r.Finish
	return Result{Steps: f.GetStep(), TestLoss: f.GetTestLoss(), TestAccuracy: f.GetTestAccuracy(), TestAUC: f.GetTestAuc(), Digest: f.GetDigest(), Out: r.Out}
}
