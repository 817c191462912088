package main

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// TestManyNodes has MUSTER_MANY nodes train on this one machine, five of them servers as well, kills the one that leads and two
// that only train, and demands the weights of an undisturbed run.
func TestManyNodes(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("MUSTER_MANY"))
	if err != nil || n < 8 {
		t.Skip("set MUSTER_MANY to a number of nodes, 8 or more: make soak-many")
	}
	job := jobText{mode: "ring", train: 1024, passes: 20, servers: 5, replicas: 3, paramShards: 4, commitEvery: 20, logicalShards: n}
	c := newCluster(t, job.String())
	nodes := make([]*process, n)
	for i := range nodes {
		spec := nodeSpec{name: fmt.Sprintf("n%02d", i)}
		if i >= 5 {
			spec.roles = "trainer"
		}
		nodes[i] = c.start(spec)
	}
	begin := time.Now()
	c.until("some steps", func() bool { return nodes[0].lastStep() >= 20 })
	took, at := time.Since(begin), nodes[0].lastStep()
	for _, p := range []*process{c.named(c.leaderOf("coordinator")), nodes[5], nodes[n-1]} {
		p.kill()
	}
	from := time.Now()
	c.until("steps without them", func() bool { return nodes[6].lastStep() > at+2 })
	t.Logf("%d nodes: 20 steps %v after the last was started; two more %v after three were killed", n, took.Round(time.Millisecond), time.Since(from).Round(time.Millisecond))
	c.finish()
	c.checkOutputs(job)
}
