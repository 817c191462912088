package node

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/device"
)

// smallJob takes a second: a perceptron on a few drawn digits, with state in several
// blocks and shards.
func smallJob() trainer.Job {
	j := trainer.DefaultJob()
	j.Name = "small"
	j.Model = trainer.Model{Name: "mlp", Options: map[string]any{"hidden": []int{64}}}
	j.Data.Train, j.Data.Test = 512, 100
	j.Batch = trainer.Batch{Size: 32, LogicalShards: 8}
	j.Passes = 1
	j.Sync.CommitEvery = 5
	return j
}

// runCluster runs a job on nodes of this process, each server and trainer, and returns
// them when all have ended.
func runCluster(t *testing.T, job trainer.Job, nodes int) []*Node {
	t.Helper()
	all, errs := endCluster(t, job, nodes)
	for i, err := range errs {
		if err != nil {
			t.Fatalf("node %d: %v", i, err)
		}
	}
	return all
}

// endCluster is runCluster for runs that may fail, with each node's error.
func endCluster(t *testing.T, job trainer.Job, nodes int) ([]*Node, []error) {
	t.Helper()
	return endClusterOn(t, job, nodes, func(int) device.Device { return nil })
}

// endClusterOn is endCluster with a device for each node; nil is this machine's processor.
func endClusterOn(t *testing.T, job trainer.Job, nodes int, on func(node int) device.Device) ([]*Node, []error) {
	t.Helper()
	job.Cluster.Servers = min(nodes, 3)
	job.Cluster.Replicas = job.Cluster.Servers
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := t.TempDir()
	seed := make(chan string, 1)
	all, errs := make([]*Node, nodes), make([]error, nodes)
	var running sync.WaitGroup
	for i := range nodes {
		cfg := Config{
			Job: job, Name: id.Node(fmt.Sprintf("node-%d", i)), Listen: "127.0.0.1:0", Server: true, Trainer: true, Device: on(i),
			DataDir: filepath.Join(dir, fmt.Sprint(i)), Out: filepath.Join(dir, fmt.Sprint(i), "out"),
			Cluster: "test", Version: "test", Log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel),
		}
		if i == 0 {
			cfg.OnListen = func(addr string) { seed <- addr }
		} else {
			addr := <-seed
			seed <- addr
			cfg.Join = []string{addr}
		}
		all[i] = newNode(cfg)
		running.Go(func() { _, errs[i] = all[i].run(ctx) })
	}
	running.Wait()
	return all, errs
}

func model(t *testing.T, n *Node) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.cfg.Out, ModelFile))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The promise that all else stands on: the number of trainers and the way they keep
// their weights one do not change a bit of the outcome.
func TestSameBytesOnAnyClusterInBothModes(t *testing.T) {
	both := []string{trainer.ModeRing, trainer.ModeServer}
	for _, c := range []struct {
		optimizer trainer.Optimizer
		modes     []string
		nodes     []int
	}{
		{trainer.Optimizer{Name: "adam", LR: 0.001}, both, []int{1, 2, 3}},
		{trainer.Optimizer{Name: "sgd", LR: 0.05, Momentum: 0.9}, both, []int{1, 3}},
		{trainer.Optimizer{Name: "adamw", LR: 0.003, WeightDecay: 0.1, ClipNorm: 0.1,
			Schedule: trainer.Schedule{Name: "cosine", Warmup: 5, Floor: 0.0001}}, both, []int{1, 3}},
		{trainer.Optimizer{Name: "ftrl", LR: 0.05, L1: 0.001, ClipNorm: 0.1}, both, []int{2}},
		{trainer.Optimizer{Name: "lamb", LR: 0.01, WeightDecay: 0.01}, both[:1], []int{1, 2}},
	} {
		t.Run(c.optimizer.Name, func(t *testing.T) {
			var want []byte
			var norms []string // of the steps' gradients, where they are clipped
			for _, mode := range c.modes {
				for _, nodes := range c.nodes {
					job := smallJob()
					job.Optimizer, job.Sync.Mode = c.optimizer, mode
					for _, n := range runCluster(t, job, nodes) {
						got := model(t, n)
						if want == nil {
							want = got
						}
						if !bytes.Equal(got, want) {
							t.Errorf("mode %s on %d trainers: %s has other weights", mode, nodes, n.cfg.Name)
						}
						found := gradNorms(t, n)
						if norms == nil {
							norms = found
						}
						if steps := int(job.Steps()); !slices.Equal(found, norms) || (len(found) == steps) != (c.optimizer.ClipNorm > 0) {
							t.Errorf("mode %s on %d trainers: %s tells of %d norms in %d steps, or of others", mode, nodes, n.cfg.Name, len(found), steps)
						}
					}
				}
			}
		})
	}
}

// gradNorms is what the outputs tell of the gradients' norms.
func gradNorms(t *testing.T, n *Node) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.cfg.Out, "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`"grad_norm":[^,]+`).FindAllString(string(b), -1)
}

// In mode server a parameter's gradient enters the servers once a step, however many
// trainers there are.
func TestBytesIntoServersDoNotGrowWithTrainers(t *testing.T) {
	var want uint64
	for _, nodes := range []int{1, 2, 4} {
		job := smallJob()
		job.Sync.Mode = trainer.ModeServer
		var got, params uint64
		for _, n := range runCluster(t, job, nodes) {
			params = uint64(n.spec.Params())
			if n.shards != nil {
				got += n.shards.BytesIn()
			}
		}
		initial := 3 * 4 * params // weights and adam's two slots, once
		if least := initial + 4*params*uint64(job.Steps()); got < least {
			t.Errorf("%d trainers: %d bytes entered, fewer than the %d of the gradients", nodes, got, least)
		}
		if want == 0 {
			want = got
		}
		if got != want {
			t.Errorf("%d trainers: %d bytes entered the servers, with one trainer it were %d", nodes, got, want)
		}
	}
}

// Fast sums promise less: the same weights on all trainers of one run.
func TestFastSumsAgreeAmongTrainers(t *testing.T) {
	for _, way := range [][2]string{
		{trainer.ModeRing, trainer.WireFloat32}, {trainer.ModeServer, trainer.WireFloat32}, {trainer.ModeRing, trainer.WireBF16},
		{trainer.ModeRing, trainer.WireInt8},
	} {
		job := smallJob()
		job.Sync.Mode, job.Sync.Sum, job.Sync.Wire = way[0], trainer.SumFast, way[1]
		all := runCluster(t, job, 3)
		for _, n := range all[1:] {
			if !bytes.Equal(model(t, n), model(t, all[0])) {
				t.Errorf("%v: %s and %s end with other weights", way, n.cfg.Name, all[0].cfg.Name)
			}
		}
	}
}

// A job that cannot go on ends everywhere, with the reason.
func TestDivergingJobEndsWithItsReason(t *testing.T) {
	job := smallJob()
	job.Cluster.Servers, job.Cluster.Replicas = 1, 1
	job.Optimizer = trainer.Optimizer{Name: "sgd", LR: 1e30}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	_, err := Run(ctx, Config{
		Job: job, Name: "a", Listen: "127.0.0.1:0", Server: true, Trainer: true, DataDir: dir, Out: filepath.Join(dir, "out"),
		Cluster: "test", Log: zerolog.Nop(),
	})
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("training diverged")) {
		t.Errorf("got %v", err)
	}
}

// A gradient of several buckets, summed (and in mode server pushed) while it is computed, gives the same bits on any number of
// trainers and in both modes, with units in several waves.
func TestSameBytesInBuckets(t *testing.T) {
	var want []byte
	for _, c := range []struct {
		mode  string
		nodes int
	}{{trainer.ModeServer, 1}, {trainer.ModeRing, 1}, {trainer.ModeRing, 3}, {trainer.ModeServer, 3}} {
		job := smallJob()
		job.Model = trainer.Model{Name: "mlp", Options: map[string]any{"hidden": []int{1200, 1000}}} // 2.2 million: three buckets
		job.Optimizer = trainer.Optimizer{Name: "adam", LR: 0.001}
		job.Data.Train, job.Batch.LogicalShards, job.Sync.Mode = 160, 7, c.mode
		for _, n := range runCluster(t, job, c.nodes) {
			got := model(t, n)
			if want == nil {
				want = got
			}
			if !bytes.Equal(got, want) {
				t.Errorf("mode %s on %d trainers: %s has other weights", c.mode, c.nodes, n.cfg.Name)
			}
		}
	}
}
