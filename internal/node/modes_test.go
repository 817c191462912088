package node

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/musterml/muster/trainer"
)

func TestModes(t *testing.T) {
	for _, sync := range []trainer.Sync{
		{Mode: trainer.ModeRing, Sum: trainer.SumExact},
		{Mode: trainer.ModeSSP, Sum: trainer.SumFast, Staleness: 2},
		{Mode: trainer.ModeAsync, Sum: trainer.SumFast},
	} {
		job := smallJob()
		job.Sync, job.Sync.CommitEvery, job.Sync.Wire = sync, 5, trainer.WireFloat32
		job.Data.Train, job.Passes = 2048, 2
		if err := job.Validate(); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		all := runCluster(t, job, 3)
		t.Log(time.Since(begin), string(lines(t, all[0])[:1200]))
		for _, n := range all {
			t.Log(sync.Mode, n.cfg.Name, n.finish.TestAccuracy, n.finish.TestLoss, n.finish.Step)
			if !bytes.Equal(model(t, n), model(t, all[0])) {
				t.Error("other weights")
			}
		}
	}
}

func lines(t *testing.T, n *Node) []byte {
	b, err := os.ReadFile(filepath.Join(n.cfg.Out, MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
