package main

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/musterml/muster/internal/node"
)

// TestSameBytes trains one job in every way there is and demands one model of them all.
func TestSameBytes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	job := jobText{train: 512, passes: 4, servers: 1, paramShards: 2, commitEvery: 3}
	want := digestOf(t, job)
	for _, mode := range []string{"ring", "server"} {
		for nodes := 1; nodes <= 3; nodes++ {
			job := job
			job.mode, job.servers, job.replicas = mode, nodes, nodes
			for _, procs := range []int{1, 2} {
				t.Run(fmt.Sprintf("one-process-%s-%d-nodes-GOMAXPROCS-%d", mode, nodes, procs), func(t *testing.T) {
					t.Parallel()
					sameEmbedded(t, job, nodes, procs, want)
				})
			}
			t.Run(fmt.Sprintf("processes-%s-%d", mode, nodes), func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, job.String())
				for i := range nodes {
					c.start(nodeSpec{name: fmt.Sprint("n", i), procs: 1 + i%2})
				}
				c.finish()
				c.checkOutputs(job)
			})
		}
	}
}

func sameEmbedded(t *testing.T, job jobText, nodes, procs int, want string) {
	c := newCluster(t, job.String())
	out := filepath.Join(c.dir, "out")
	_, stderr, err := runMuster(t, []string{fmt.Sprint("GOMAXPROCS=", procs)},
		"train", "-f", c.job, "--nodes", fmt.Sprint(nodes), "--out", out, "--json")
	if err != nil {
		t.Fatalf("muster train: %v\n%s", err, stderr)
	}
	if got := fileDigest(t, filepath.Join(out, node.ModelFile)); got != want {
		t.Errorf("the model is %.12s, with one node %.12s", got, want)
	}
	if n := len(stepTimes(t, out)); n != job.steps(t) {
		t.Errorf("the metrics hold %d steps of %d", n, job.steps(t))
	}
}
