package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer"
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
