package main

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/musterml/muster"
	"github.com/musterml/muster/trainer"
)

// small is the example's job with less to do.
func small(t *testing.T) trainer.Job {
	t.Chdir(t.TempDir())
	j := job()
	j.Data.Train, j.Data.Test, j.Batch.Size = 256, 64, 64
	return j
}

func TestTrain(t *testing.T) {
	j := small(t)
	var losses []float64
	r, err := muster.Train(t.Context(), j, func(s muster.Step) { losses = append(losses, s.Loss) })
	if err != nil {
		t.Fatal(err)
	}
	if r.Steps != 4 || len(losses) != 4 || !(losses[3] < losses[0]) || r.Out != "runs/custom" || len(r.Digest) != 64 {
		t.Errorf("%+v, losses %v", r, losses)
	}
	j.Passes = 0
	if _, err := muster.Train(t.Context(), j, nil); err == nil {
		t.Error("a job of no passes was taken")
	}
}

// Two programs are a cluster, and their weights those of one.
func TestJoin(t *testing.T) {
	j := small(t)
	want, err := muster.Train(t.Context(), j, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	j.Cluster.Servers, j.Cluster.Replicas = 2, 2
	addrs := []string{free(t), free(t)}
	var nodes sync.WaitGroup
	for i, name := range []string{"a", "b"} {
		j := j
		j.Out = filepath.Join("runs", name)
		nodes.Go(func() {
			r, err := muster.Join(ctx, j, muster.Node{Name: name, Listen: addrs[i], Seeds: addrs}, nil)
			if err != nil || r.Digest != want.Digest || r.Out != j.Out {
				t.Errorf("%s: %+v, error %v; want the weights %s", name, r, err, want.Digest)
			}
		})
	}
	nodes.Wait()
}

// free is an address of this machine that nobody listens at.
func free(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
