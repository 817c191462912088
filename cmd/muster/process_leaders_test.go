package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestLeadersLost takes the leader of a shard away again and again, MUSTER_LEADERS times in each of three ways: its process is
// killed, is stopped, or has its cable pulled. It tells after what time another server leads, by that one's own
// log, and after what time the trainer has done two more steps.
func TestLeadersLost(t *testing.T) {
	rounds := 0
	if _, err := fmt.Sscan(os.Getenv("MUSTER_LEADERS"), &rounds); err != nil {
		t.Skip("set MUSTER_LEADERS to a number: make soak-elections")
	}
	lab := newNetlab(t, 4)
	c := newCluster(t, jobText{mode: "server", train: 1024, passes: 100_000, servers: 3, replicas: 3, paramShards: 3}.String())
	c.tools = lab.on(3)
	servers := map[string]*process{}
	host := map[string]int{}
	start := func(i int, name, roles string) *process {
		host[name] = i
		return c.start(nodeSpec{name: name, roles: roles, addr: lab.ip(i) + ":7400", join: []string{lab.ip(0) + ":7400"}, launch: lab.on(i)})
	}
	for i, name := range []string{"a", "b", "c"} {
		servers[name] = start(i, name, serverOnly)
	}
	trainer := start(3, "t", trainerOnly)
	c.until("some steps", func() bool { return trainer.lastStep() >= 20 })

	for _, way := range []struct {
		name         string
		harm, repair func(p *process)
	}{
		{"killed", func(p *process) { p.kill() }, func(p *process) { servers[p.name] = c.again(p) }},
		{"stopped", func(p *process) { _ = p.cmd.Process.Signal(syscall.SIGSTOP) }, func(p *process) { _ = p.cmd.Process.Signal(syscall.SIGCONT) }},
		{"cut off", func(p *process) { lab.link(host[p.name], "down") }, func(p *process) { lab.link(host[p.name], "up") }},
	} {
		var led, stood []time.Duration
		for i := range rounds {
			victim := c.leaderOf(fmt.Sprintf("shard-%d", i%3))
			step, at := trainer.lastStep(), time.Now()
			way.harm(servers[victim])
			c.until("steps go on", func() bool { return trainer.lastStep() >= step+2 })
			stood = append(stood, time.Since(at))
			led = append(led, c.nextLeader(servers, victim, fmt.Sprintf("shard-%d", i%3), at).Sub(at))
			way.repair(servers[victim])
		}
		slices.Sort(led)
		slices.Sort(stood)
		ms := func(of []time.Duration, part float64) int64 { return of[int(part*float64(len(of)-1))].Milliseconds() }
		t.Logf("%d leaders %s: another led after median %d ms, 90%% %d ms, at most %d ms; two steps were done after median %d ms, at most %d ms",
			rounds, way.name, ms(led, 0.5), ms(led, 0.9), ms(led, 1), ms(stood, 0.5), ms(stood, 1))
	}
}

// leaderOf waits until all is healthy, and says who leads a group.
func (c *cluster) leaderOf(group string) (leader string) {
	c.t.Helper()
	c.untilServers("all is healthy", func(v *serversJSON) bool {
		leader = v.leader(group)
		return leader != "" && !slices.ContainsFunc(v.Servers, func(s serverJSON) bool { return s.State != "serving" })
	})
	return leader
}

// nextLeader is when another server than the victim began to lead a group after a moment.
func (c *cluster) nextLeader(servers map[string]*process, victim, group string, after time.Time) (when time.Time) {
	c.t.Helper()
	c.until(group+" has another leader", func() bool {
		for name, p := range servers {
			if name == victim {
				continue
			}
			if at, ok := p.beganToLead(group, after); ok {
				when = at
				return true
			}
		}
		return false
	})
	return when
}

// beganToLead looks in a server's log for the moment from which it led a group.
func (p *process) beganToLead(group string, after time.Time) (when time.Time, ok bool) {
	file, err := os.Open(p.log)
	if err != nil {
		return when, false
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var l struct {
			Time                   time.Time
			Group, Message, Leader string
		}
		if json.Unmarshal(lines.Bytes(), &l) == nil && l.Message == "leader" && l.Group == group && l.Leader == p.name && l.Time.After(after) {
			return l.Time, true
		}
	}
	return when, false
}
