package main

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
)

// TestElections has a cluster train while other processes take all cores, for as long as
// MUSTER_ELECTIONS says, and demands that no group elects a leader meanwhile.
func TestElections(t *testing.T) {
	load, err := time.ParseDuration(os.Getenv("MUSTER_ELECTIONS"))
	if err != nil {
		t.Skip("set MUSTER_ELECTIONS to a duration: make soak-elections")
	}
	job := jobText{mode: "server", train: 1024, passes: 100_000, servers: 3, replicas: 3, paramShards: 3}
	c := newCluster(t, job.String())
	now := map[string]*process{}
	for _, name := range []string{"a", "b", "c"} {
		now[name] = c.start(nodeSpec{name: name, logLevel: "info"})
	}
	c.until("some steps", func() bool { return now["a"].lastStep() >= 20 })
	c.untilServers("all is healthy", func(v *serversJSON) bool { return v.mostLed() == 1 })

	before, first, begin := c.servers().terms(), now["a"].lastStep(), time.Now()
	stop := burn(t, 2*runtime.NumCPU())
	<-time.After(load)
	stop()
	c.untilServers("all is healthy again", func(v *serversJSON) bool { return true })
	after := c.servers().terms()
	steps, took := now["a"].lastStep()-first, time.Since(begin).Round(time.Second)
	t.Logf("%d processes that only burn beside 3 that train, on %d cores: %d steps in %v; terms before %s, after %s",
		2*runtime.NumCPU(), runtime.NumCPU(), steps, took, before, after)
	if before != after {
		t.Errorf("there were elections that nobody needed")
	}
}

// burn runs processes that do nothing but take time from others, until it is told to stop.
func burn(t *testing.T, n int) (stop func()) {
	t.Helper()
	var all []*exec.Cmd
	for range n {
		cmd := exec.Command("sh", "-c", "while :; do :; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, cmd)
	}
	stop = func() {
		for _, cmd := range all {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // says that it was killed
		}
		all = nil
	}
	t.Cleanup(stop)
	return stop
}
