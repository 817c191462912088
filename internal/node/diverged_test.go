package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/nn"
)

// A loss or a gradient that is no number ends the run at that step on every node, with the same words of the one that
// knows why; what an earlier run left in the output folder stays.
func TestDivergedRunEndsEverywhere(t *testing.T) {
	for _, c := range []struct {
		mode, sum string
		rate      float64
		want      string
	}{
		{trainer.ModeRing, trainer.SumExact, 1e30, "appeared in the forward pass, in linear layer"}, // the weights are finite, what comes of them is not
		{trainer.ModeServer, trainer.SumFast, 1e39, "parameters 0.weight hold"},
	} {
		t.Run(c.mode+" "+c.sum, func(t *testing.T) {
			job := smallJob()
			job.Sync.Mode, job.Sync.Sum = c.mode, c.sum
			job.Optimizer = trainer.Optimizer{Name: "sgd", LR: c.rate}
			all, errs := endCluster(t, job, 2)
			for i, err := range errs {
				if err == nil || !strings.Contains(err.Error(), "step 1 of logical shard") || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("node %d ends with %v", i, err)
				}
				if err.Error() != errs[0].Error() {
					t.Errorf("node %d ends with %v, node 0 with %v", i, err, errs[0])
				}
				for _, f := range []string{MetricsFile, EventsFile, JobFile} {
					if _, err := os.Stat(filepath.Join(all[i].cfg.Out, FailedDir, f)); err != nil {
						t.Error(err)
					}
				}
				if _, err := os.Stat(filepath.Join(all[i].cfg.Out, ModelFile)); !os.IsNotExist(err) {
					t.Errorf("a model was written, error %v", err)
				}
			}
		})
	}
}

// A gradient that is no number although the loss is one ends the run as well. Here the first update makes weights so large
// that their products with the outputs are beyond float32, which only the backward pass needs: tanh is at most 1.
func TestBackwardPassDiverges(t *testing.T) {
	rows := filepath.Join(t.TempDir(), "rows")
	var text strings.Builder
	for i := range 64 {
		fmt.Fprintf(&text, "%d %d:1\n", i, 1+i%3)
	}
	if err := os.WriteFile(rows, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, sum := range []string{trainer.SumExact, trainer.SumFast} {
		job := smallJob()
		job.Sync.Sum = sum
		job.Data = data.Source{Source: data.LIBSVM, Path: rows, Task: data.Regression}
		job.Model = trainer.Model{Layers: []nn.Layer{nn.Linear{Size: 4}, nn.Tanh{}, nn.Linear{}}}
		job.Optimizer = trainer.Optimizer{Name: "sgd", LR: 1e24}
		_, errs := endCluster(t, job, 2)
		for i, err := range errs {
			if err == nil || err.Error() != errs[0].Error() {
				t.Fatalf("sum %s: node %d ends with %v, node 0 with %v", sum, i, err, errs[0])
			}
			for _, want := range []string{"step 1 of logical shard", "appeared in the backward pass, first in the gradient of 0."} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("sum %s: %v: it does not say %q", sum, err, want)
				}
			}
		}
	}
}
