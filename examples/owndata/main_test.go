package main

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/musterml/muster"
	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/data"
)

// The program learns its spirals; what it says of its data is not enough for another program.
func TestTrain(t *testing.T) {
	t.Chdir(t.TempDir())
	j, err := job()
	if err != nil {
		t.Fatal(err)
	}
	r, err := muster.Train(t.Context(), j, nil)
	if err != nil || r.TestAccuracy < 0.95 || r.Steps != 1250 {
		t.Errorf("%+v, error %v", r, err)
	}
	if _, err := trainer.LoadJob("runs/spirals/job.yaml"); err == nil || !strings.Contains(err.Error(), "data.source is program: such samples are in the memory of the Go program") {
		t.Errorf("the job file without the program: %v", err)
	}
}

// Two programs with the same samples are a cluster, and their weights those of one; a program with others is refused.
func TestJoin(t *testing.T) {
	t.Chdir(t.TempDir())
	j, err := job()
	if err != nil {
		t.Fatal(err)
	}
	j.Passes = 1
	want, err := muster.Train(t.Context(), j, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seed := l.Addr().String()
	l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	j.Cluster.Servers, j.Cluster.Replicas = 2, 2
	join := func(j trainer.Job, n muster.Node) (muster.Result, error) {
		j.Out = "runs/" + n.Name
		return muster.Join(ctx, j, n, nil)
	}
	var nodes sync.WaitGroup
	defer nodes.Wait()
	takePart := func(n muster.Node) {
		if r, err := join(j, n); err != nil || r.Digest != want.Digest {
			t.Errorf("%s: %+v, error %v; want the weights %s", n.Name, r, err, want.Digest)
		}
	}
	nodes.Go(func() { takePart(muster.Node{Name: "a", Listen: seed}) })
	other := j
	if other.Data, err = data.Own(draw(2000, 3), draw(500, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := join(other, muster.Node{Name: "other", Listen: "127.0.0.1:0", Seeds: []string{seed}}); err == nil || !strings.Contains(err.Error(), "in Go programs the same data") {
		t.Errorf("other data: %v", err)
	}
	nodes.Go(func() { takePart(muster.Node{Name: "b", Listen: "127.0.0.1:0", Seeds: []string{seed}}) })
}
