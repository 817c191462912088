package node

import (
	"bytes"
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/musterml/muster/trainer"
)

// modesJob is enough drawn digits for a perceptron to learn something in a second.
func modesJob(sync trainer.Sync) trainer.Job {
	job := smallJob()
	job.Data.Train, job.Data.Test, job.Passes = 4096, 400, 2
	job.Optimizer = trainer.Optimizer{Name: "sgd", LR: 0.1}
	sync.CommitEvery, sync.Wire = 5, cmp.Or(sync.Wire, trainer.WireFloat32)
	job.Sync = sync
	return job
}

func local(steps int, lr, momentum float64) trainer.Sync {
	return trainer.Sync{Mode: trainer.ModeLocal, Sum: trainer.SumExact, Steps: steps, Outer: trainer.Outer{LR: lr, Momentum: momentum}}
}

// Every mode learns drawn digits about as well as ring does from as many samples, and all nodes end with the same weights.
func TestModesLearnAsRingDoes(t *testing.T) {
	accuracy := map[string]float64{}
	var mu sync.Mutex
	t.Run("modes", func(t *testing.T) {
		for name, s := range map[string]trainer.Sync{
			"ring":         {Mode: trainer.ModeRing, Sum: trainer.SumExact},
			"ssp":          {Mode: trainer.ModeSSP, Sum: trainer.SumFast, Staleness: 2},
			"async":        {Mode: trainer.ModeAsync, Sum: trainer.SumFast},
			"server, bf16": {Mode: trainer.ModeServer, Sum: trainer.SumFast, Wire: trainer.WireBF16},
			"ssp, bf16":    {Mode: trainer.ModeSSP, Sum: trainer.SumFast, Staleness: 2, Wire: trainer.WireBF16},
			"diloco":       local(4, 0.5, 0.5),
			"sparknet":     local(8, 1, 0),
		} {
			if raced && (name == "server, bf16" || name == "sparknet" || name == "async" || name == "ssp") {
				continue // the plain build has them all (make test)
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel() // they wait more than they compute
				job := modesJob(s)
				if err := job.Validate(); err != nil {
					t.Fatal(err)
				}
				all := runCluster(t, job, 3)
				for _, n := range all[1:] {
					if !bytes.Equal(model(t, n), model(t, all[0])) {
						t.Errorf("%s and %s end with other weights", n.cfg.Name, all[0].cfg.Name)
					}
				}
				f, stale := all[0].finish, seenStaleness(t, all[0])
				t.Logf("held-out accuracy %.1f %%, loss %.3f, staleness seen %.2f steps, at most %.2f", 100*f.TestAccuracy, f.TestLoss, stale.Mean, stale.Max)
				mu.Lock()
				defer mu.Unlock()
				accuracy[name] = f.TestAccuracy
			})
		}
	})
	for name, got := range accuracy {
		if ring := accuracy["ring"]; ring < 0.8 || got < ring-0.1 {
			t.Errorf("%s: accuracy %.3f, ring has %.3f", name, got, ring)
		}
	}
}

// In mode local a logical shard is a worker, so the bits do not hang on the number of trainers; and ssp without staleness is mode
// server.
func TestSameBytesInModes(t *testing.T) {
	server, ssp := trainer.Sync{Mode: trainer.ModeServer, Sum: trainer.SumExact}, trainer.Sync{Mode: trainer.ModeSSP, Sum: trainer.SumExact}
	schedule := trainer.Schedule{Name: "cosine", Warmup: 5}
	for _, c := range []struct {
		optimizer trainer.Optimizer
		of        []trainer.Sync
		nodes     []int
	}{
		{trainer.Optimizer{Name: "adamw", LR: 0.003, WeightDecay: 0.1, ClipNorm: 0.5, Schedule: schedule}, []trainer.Sync{local(3, 0.7, 0.9)}, []int{1, 3}},
		{trainer.Optimizer{Name: "lamb", LR: 0.01}, []trainer.Sync{local(3, 1, 0)}, []int{1, 2}},
		{trainer.Optimizer{Name: "adam", LR: 0.001}, []trainer.Sync{server, ssp}, []int{2}},
	} {
		t.Run(c.optimizer.Name, func(t *testing.T) {
			t.Parallel()
			var want []byte
			for _, s := range c.of {
				for _, nodes := range c.nodes {
					job := modesJob(s)
					job.Data.Train, job.Optimizer = 512+32, c.optimizer // 34 steps: the last round is shorter
					for _, n := range runCluster(t, job, nodes) {
						got := model(t, n)
						if want == nil {
							want = got
						}
						if !bytes.Equal(got, want) {
							t.Errorf("mode %s on %d trainers: %s has other weights", s.Mode, nodes, n.cfg.Name)
						}
					}
				}
			}
		})
	}
}

// seenStaleness is the mean and largest staleness that a run's metrics tell of.
func seenStaleness(t *testing.T, n *Node) (seen staleness) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.cfg.Out, MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range bytes.Lines(b) {
		var l stepLine
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatal(err)
		}
		if l.Staleness != nil {
			lines++
			seen.Mean += l.Staleness.Mean
			seen.Max = max(seen.Max, l.Staleness.Max)
		}
	}
	seen.Mean /= float64(max(1, lines))
	return seen
}
