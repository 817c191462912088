package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"
)

// TestElections has a cluster train while other processes take all cores, for as long as
// MUSTER_ELECTIONS says, and demands that no group elects a leader meanwhile. Then it kills
// leaders, 20 of them or MUSTER_ELECTIONS_KILLS, and tells how long the groups had none.
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
	kills := 20
	if text := os.Getenv("MUSTER_ELECTIONS_KILLS"); text != "" {
		if _, err := fmt.Sscan(text, &kills); err != nil {
			t.Fatal(err)
		}
	}
	c.killLeaders(now, kills)
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

// killLeaders kills the leader of a shard again and again; when the next one leads is in the run's events.
func (c *cluster) killLeaders(now map[string]*process, kills int) {
	c.t.Helper()
	var took []time.Duration
	for i := range kills {
		group := fmt.Sprintf("shard-%d", i%3)
		victim, at := "", time.Time{}
		c.untilServers("all is healthy before a kill", func(v *serversJSON) bool {
			if i := slices.IndexFunc(v.Groups, func(g groupJSON) bool { return g.Group == group }); i >= 0 {
				victim = v.Groups[i].Leader
			}
			return victim != "" && !slices.ContainsFunc(v.Servers, func(s serverJSON) bool { return s.State != "serving" })
		})
		at = time.Now()
		now[victim].kill()
		c.until(group+" has another leader", func() bool {
			st := c.status("")
			if st == nil {
				return false
			}
			for _, e := range st.Events {
				if when := time.Unix(0, e.Time); e.Kind == "leader" && e.Node != victim && when.After(at) && leads(e.Text, group) {
					took = append(took, when.Sub(at))
					return true
				}
			}
			return false
		})
		now[victim] = c.again(now[victim])
	}
	if len(took) > 0 {
		slices.Sort(took)
		c.t.Logf("%d leaders of shards killed: the coordinator heard of the next one after median %v, max %v",
			len(took), took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	}
}

// leads says whether an event tells that somebody leads the group.
func leads(text, group string) bool {
	var who, name string
	_, err := fmt.Sscanf(text, "%s leads %s in", &who, &name)
	return err == nil && name == group
}
