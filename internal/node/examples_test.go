package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/trainer"
)

// Every job of examples/ whose data is here runs: a short run of each, on fewer samples.
func TestExamplesTrain(t *testing.T) {
	if testing.Short() {
		t.Skip("several runs")
	}
	t.Chdir("../..")
	jobs, err := filepath.Glob("examples/*.yaml")
	if err != nil || len(jobs) < 5 {
		t.Fatalf("%d examples, error %v", len(jobs), err)
	}
	for _, path := range jobs {
		t.Run(filepath.Base(path), func(t *testing.T) {
			job, err := trainer.LoadJob(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{job.Data.Images, job.Data.Path} {
				if strings.HasPrefix(file, "../") {
					if _, err := os.Stat(file); os.IsNotExist(err) {
						t.Skipf("there is no %s", file)
					}
				}
			}
			job.Passes, job.Out = 1, t.TempDir()
			job.Batch.Size, job.Batch.LogicalShards = 16, 2
			if job.Data.Train > 0 {
				job.Data.Train = min(job.Data.Train, 48)
			}
			if job.Data.Test > 0 {
				job.Data.Test = min(job.Data.Test, 16)
			}
			steps := 0
			r, err := RunEmbedded(t.Context(), Config{
				Job: job, Version: "test", Log: zerolog.Nop(), OnStep: func(m *pb.StepMetrics) { steps++ },
			}, 1)
			if err != nil || steps != int(r.Finish.Step)+1 {
				t.Errorf("%d steps, error %v", steps, err)
			}
			if _, err := os.Stat(filepath.Join(job.Out, ModelFile)); err != nil {
				t.Error(err)
			}
		})
	}
}
