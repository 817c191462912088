package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestServersMove has servers replaced, come back, drained and stopped while a run goes on,
// and demands the weights of an undisturbed one.
func TestServersMove(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	for name, disk := range map[string]bool{"memory": false, "disk": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job := jobText{mode: "server", train: 1024, passes: 14, servers: 3, replicas: 3, paramShards: 2, disk: disk}
			for !moveServers(t, job) { // the run was over before all was done: a fast machine
				job.passes *= 2
			}
		})
	}
}

// moveServers is false when the run was too short for all of it.
func moveServers(t *testing.T, job jobText) bool {
	c := newCluster(t, strings.Replace(job.String(), "durability:", "replace_after: 1s, durability:", 1))
	a := c.start(nodeSpec{name: "a"})
	c.start(nodeSpec{name: "b"})
	n := c.start(nodeSpec{name: "c", roles: "server"})
	c.until("a run of three servers", func() bool { return a.lastStep() >= 0 })
	d := c.start(nodeSpec{name: "d", roles: "server"})
	c.untilServers("leaders are spread, d is spare", func(v *serversJSON) bool { return v.server("d").State == "spare" && v.mostLed() == 1 })

	n.kill()
	c.untilServers("d has the places of c", func(v *serversJSON) bool { return v.server("d").Groups == 3 && v.server("c").Groups == 0 })
	n = c.again(n)
	c.untilServers("c is spare", func(v *serversJSON) bool { return v.server("c").State == "spare" })
	if c.over() {
		return false
	}
	_, said, err := runMuster(t, nil, "servers", "drain", "x", "--addr", a.addr)
	if err == nil || !strings.Contains(said, "x is no server of this run") && !c.overBy(said) {
		t.Errorf("drain of a stranger: %v: %s", err, said)
	}
	worstSync := func() time.Duration { return 0 }
	limit := os.Getenv("MUSTER_DRAIN_PAUSE")
	if limit != "" && job.disk {
		worstSync = syncAllTheTime(t, c.dir)
	}
	from := time.Now()
	c.drain("d", a.addr)
	to := time.Now()
	sync := worstSync()
	c.untilServers("c has the places of d", func(v *serversJSON) bool { return v.server("d").State == "drained" && v.server("c").Groups == 3 })
	_, said, err = runMuster(t, nil, "servers", "drain", "b", "--addr", n.addr)
	if c.overBy(said) {
		return false
	}
	if err == nil || !strings.Contains(said, "b cannot be drained: without it there are 2 servers for 3 replicas") || strings.Count(said, "\n") != 1 {
		t.Errorf("drain without a spare: %v: %s", err, said)
	}
	before := c.servers()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !c.over() {
		t.Fatal(err)
	}
	<-d.exited
	d.mu.Lock()
	d.dead = true // it was told to end
	d.mu.Unlock()
	at := a.lastStep()
	c.until("steps without d", func() bool { return c.over() || a.lastStep() > at+3 })
	after := c.servers()
	if c.over() || before == nil || after == nil {
		return false
	}
	if before.terms() != after.terms() {
		t.Logf("elections when a drained server was stopped: terms %s, then %s", before.terms(), after.terms())
	}
	c.finish()
	c.checkOutputs(job)
	pause := longestPause(stepTimes(t, a.out), from, to)
	t.Logf("drained in %v; longest pause between steps meanwhile %v, longest sync of 64 KiB by somebody else %v",
		to.Sub(from).Round(time.Millisecond), pause.Round(time.Millisecond), sync.Round(time.Millisecond))
	if limit != "" { // a commit is two syncs, the leader's and then a follower's: what the disk takes for them is not the drain's
		if most, err := time.ParseDuration(limit); err != nil || pause > most+2*sync {
			t.Errorf("the pause is longer than %s (%v) and two syncs", limit, err)
		}
	}
	return true
}

// overBy is also true when a living node did not listen any more to a command that has said so: nodes let go of each other
// before their processes end.
func (c *cluster) overBy(said string) bool {
	return c.over() || strings.Contains(said, "nothing listens at")
}

// drain drains a server by two commands, the first of which is killed as soon as it says something.
func (c *cluster) drain(name, addr string) {
	c.t.Helper()
	if err := c.startDrain(name, addr); err != nil {
		c.t.Fatal(err)
	}
	out, said, err := runMuster(c.t, nil, "servers", "drain", name, "--addr", addr)
	if !c.overBy(said) && (err != nil || !strings.Contains(out, name+" keeps nothing any more")) {
		c.t.Fatalf("drain: %v: %s%s", err, out, said)
	}
	c.t.Logf("%s", out)
}

func (c *cluster) startDrain(name, addr string) error {
	p := &process{name: "drain", changed: make(chan struct{}, 1), exited: make(chan struct{}), log: fmt.Sprintf("%s/drain-%s.log", c.dir, name)}
	bin, err := musterBinary()
	if err != nil {
		return err
	}
	if err := p.run(bin, []string{"servers", "drain", name, "--addr", addr, "--json"}, nil, c.dir); err != nil {
		return err
	}
	c.untilServers("the order is known", func(v *serversJSON) bool {
		return slices.Contains([]string{"draining", "drained"}, v.server(name).State)
	})
	_ = p.cmd.Process.Kill()
	<-p.exited
	return nil
}

// servers asks any node what all servers keep; nil when none answers for all.
func (c *cluster) servers() *serversJSON {
	for _, p := range c.living() {
		out, _, err := runMusterOn(c.t, c.tools, nil, "servers", "--json", "--addr", p.addr)
		v := &serversJSON{}
		if err == nil && json.Unmarshal([]byte(out), v) == nil && v.Error == "" {
			return v
		}
	}
	return nil
}

// untilServers waits until all groups are healthy and holds is true, or the run is over.
func (c *cluster) untilServers(what string, holds func(*serversJSON) bool) {
	c.t.Helper()
	last := &serversJSON{}
	defer func() {
		if c.t.Failed() {
			_ = printServers(os.Stderr, last)
		}
	}()
	c.until(what, func() bool {
		if c.over() {
			return true
		}
		v := c.servers()
		if v == nil {
			return false
		}
		last = v
		draining := slices.ContainsFunc(v.Servers, func(s serverJSON) bool { return s.State == "draining" })
		return holds(v) && (draining || !slices.ContainsFunc(v.Groups, func(g groupJSON) bool { return !g.Healthy || g.Term == 0 }))
	})
	for _, g := range last.Groups {
		for _, r := range g.Replicas {
			if r.State == "differs from the leader" {
				c.t.Errorf("%s on %s: %s", g.Group, r.Server, r.State)
			}
		}
	}
}

func (v *serversJSON) server(name string) serverJSON {
	i := slices.IndexFunc(v.Servers, func(s serverJSON) bool { return s.Server == name })
	if i < 0 {
		return serverJSON{}
	}
	return v.Servers[i]
}

// leader is who leads a group, "" when nobody is known to.
func (v *serversJSON) leader(group string) string {
	i := slices.IndexFunc(v.Groups, func(g groupJSON) bool { return g.Group == group })
	if i < 0 {
		return ""
	}
	return v.Groups[i].Leader
}

// mostLed is the number of shards that the busiest server leads.
func (v *serversJSON) mostLed() int {
	load := map[string]int{}
	for _, g := range v.Groups {
		if strings.HasPrefix(g.Group, "shard-") {
			load[g.Leader]++
		}
	}
	most := 0
	for _, n := range load {
		most = max(most, n)
	}
	return most
}

func (v *serversJSON) terms() string {
	var terms []string
	for _, g := range v.Groups {
		terms = append(terms, fmt.Sprintf("%s %d", g.Group, g.Term))
	}
	return strings.Join(terms, ", ")
}

// longestPause is the longest time between two steps of which one is in the interval.
func longestPause(steps []time.Time, from, to time.Time) (pause time.Duration) {
	for i := 1; i < len(steps); i++ {
		if steps[i].After(from) && steps[i-1].Before(to) {
			pause = max(pause, steps[i].Sub(steps[i-1]))
		}
	}
	return pause
}
