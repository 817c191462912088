package main

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMoments does harm at moments that chance would rarely find: at the very beginning
// and at the very end of a run.
func TestMoments(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	job := jobText{train: 1024, passes: 4, servers: 3, replicas: 3, paramShards: 3, commitEvery: 5}
	last := job.steps(t) - 1
	for _, m := range []struct {
		when  string
		now   func(c *cluster, p *process) bool
		again bool
	}{
		{"when it listens", func(_ *cluster, p *process) bool { return p.listening() }, true},
		{"when all know each other", func(c *cluster, p *process) bool { return c.known("a") && c.known("b") && c.known("c") }, true},
		{"in the first view", func(_ *cluster, p *process) bool { return p.inRun() }, true},
		{"after the first step", func(_ *cluster, p *process) bool { return p.lastStep() >= 0 }, true},
		{"before the last step", func(_ *cluster, p *process) bool { return p.lastStep() >= last-1 }, false},
		{"after the last step", func(_ *cluster, p *process) bool { return p.lastStep() >= last }, false},
		{"when the final state is measured", func(_ *cluster, p *process) bool { return p.lastStep() > last }, false},
		{"while the outputs are written", func(c *cluster, _ *process) bool { st := c.status(""); return st != nil && st.Finish != nil }, false},
	} {
		for _, mode := range []string{"ring", "server"} {
			t.Run(m.when+", "+mode, func(t *testing.T) {
				t.Parallel()
				job := job
				job.mode = mode
				c := newCluster(t, job.String())
				a := c.start(nodeSpec{name: "a"})
				c.start(nodeSpec{name: "b"})
				c.start(nodeSpec{name: "c"})
				p := a // the first by name begins the founding
				if !m.again {
					c.until("a coordinator", func() bool {
						if st := c.status(""); st != nil && st.Coordinator != "" {
							p = c.named(st.Coordinator)
						}
						return p != nil && p.lastStep() > last/2
					})
				}
				c.until("the moment", func() bool { return p.ended() || m.now(c, p) })
				p.kill()
				if m.again {
					c.again(p)
				}
				c.finish()
				c.checkOutputs(job)
			})
		}
	}
}

func (c *cluster) named(name string) *process {
	for _, p := range c.nodes {
		if p.name == name {
			return p
		}
	}
	return nil
}

// TestFrozen stops a node without ending it: its connections stay open, but it answers
// nobody. The others must go on without it, and it must come back when it is let go.
func TestFrozen(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	for _, mode := range []string{"ring", "server"} {
		t.Run(mode, func(t *testing.T) {
			job := killJob
			job.mode = mode
			c := newCluster(t, job.String())
			a := c.start(nodeSpec{name: "a"})
			c.start(nodeSpec{name: "b"})
			c.start(nodeSpec{name: "c"})
			c.until("some steps", func() bool { return a.lastStep() >= 10 })
			p := a
			if st := c.status(""); st != nil {
				p = c.named(st.Coordinator)
			}
			other := c.nodes[0]
			if other == p {
				other = c.nodes[1]
			}
			begin, from := time.Now(), other.lastStep()
			if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			c.until("steps without it", func() bool { return other.lastStep() > from+2 })
			t.Logf("%s, the coordinator's leader, stopped at step %d: the next steps after %v", p.name, from, time.Since(begin).Round(time.Millisecond))
			c.until("many steps without it", func() bool { return other.lastStep() > from+60 })
			if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			c.until("it takes part again", func() bool { return p.lastStep() > from+60 })
			c.finish()
			c.checkOutputs(job)
		})
	}
}

// TestStopped ends a node with SIGTERM, as a person would: it says that it was stopped,
// and the others go on.
func TestStopped(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	job := killJob.ring()
	c := newCluster(t, job.String())
	a := c.start(nodeSpec{name: "a"})
	c.start(nodeSpec{name: "b"})
	c.start(nodeSpec{name: "c"})
	waiting := c.start(nodeSpec{name: "w", stranger: "it finds nobody", join: []string{freeAddr(t)}})
	d := c.start(nodeSpec{name: "d", roles: trainerOnly, stranger: "it is stopped"})
	c.until("some steps", func() bool { return a.lastStep() >= 10 && d.lastStep() >= 10 && waiting.listening() })
	for _, p := range []*process{d, waiting} {
		begin := time.Now()
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := p.wait(t, 10*time.Second); err == nil {
			t.Errorf("%s ended as if all were well", p.name)
		}
		t.Logf("%s ended after %v: %s", p.name, time.Since(begin).Round(time.Millisecond), p.complaint())
		if !strings.Contains(p.complaint(), "stopped") {
			t.Errorf("%s does not say that it was stopped but %q", p.name, p.complaint())
		}
	}
	c.finish()
	c.checkOutputs(job)
}
