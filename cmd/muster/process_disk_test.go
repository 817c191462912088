package main

import (
	"strings"
	"sync"
	"testing"
)

var diskJob = jobText{train: 1024, passes: 6, servers: 3, replicas: 3, paramShards: 2, commitEvery: 3, disk: true}

// killAll kills every living node at once, as a power cut would.
func (c *cluster) killAll() []*process {
	living := c.living()
	for _, p := range living {
		p.signalKill()
	}
	for _, p := range living {
		<-p.exited
	}
	return living
}

// resume starts nodes again by the same command, with --resume.
func (c *cluster) resume(dead []*process) []*process {
	c.t.Helper()
	var mu sync.Mutex
	var again []*process
	for _, p := range dead {
		s := p.spec
		s.resume = true
		s.join = c.addrs()
		mu.Lock()
		again = append(again, c.start(s))
		mu.Unlock()
	}
	return again
}

// TestKillAll kills all processes of a run at once, twice. With durability disk the run
// goes on from its last commit, to the bytes of an undisturbed one.
func TestKillAll(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	for _, mode := range []string{"ring", "server"} {
		t.Run(mode, func(t *testing.T) {
			job := diskJob
			job.mode = mode
			steps := job.steps(t)
			c := newCluster(t, job.String())
			for _, name := range []string{"a", "b", "c"} {
				c.start(nodeSpec{name: name})
			}
			for _, until := range []int{steps / 3, 2 * steps / 3} {
				c.until("some steps", func() bool { return newestStep(c) >= until })
				dead := c.killAll()
				t.Logf("all killed after step %d", newestOf(dead))
				again := c.resume(dead)
				c.until("the next step", func() bool { return newestOf(again) >= 0 })
				first := firstStep(again)
				t.Logf("went on at step %d", first)
				if oldest := newestOf(dead) - 2*job.commitEvery; mode == "ring" && first < oldest || mode == "server" && first < newestOf(dead) {
					t.Errorf("it went on at step %d, after step %d", first, newestOf(dead))
				}
			}
			c.finish()
			c.checkOutputs(job)
		})
	}
}

func newestStep(c *cluster) int { return newestOf(c.living()) }

func newestOf(nodes []*process) int {
	newest := -1
	for _, p := range nodes {
		newest = max(newest, p.lastStep())
	}
	return newest
}

// firstStep is where the newest view of these lives began. (The first that they hear of
// may be that of their lives before.)
func firstStep(nodes []*process) int {
	first := -1
	for _, p := range nodes {
		p.mu.Lock()
		for _, v := range p.views {
			first = max(first, v.From)
		}
		p.mu.Unlock()
	}
	return first
}

// A run on disks must not be replaced by mistake.
func TestResumeIsAskedFor(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	job := diskJob
	job.mode, job.servers, job.replicas = "ring", 1, 1
	c := newCluster(t, job.String())
	a := c.start(nodeSpec{name: "a"})
	c.until("some steps", func() bool { return a.lastStep() >= 10 })
	a.kill()
	without := c.again(a)
	without.spec.stranger = "it does not say --resume"
	if err := without.wait(t, patience); err == nil || !strings.Contains(without.complaint(), "--resume") || strings.Contains(without.complaint(), "\n") {
		t.Errorf("without --resume it says %q", without.complaint())
	}
	t.Log(without.complaint())
	again := c.resume([]*process{a})
	c.finish()
	c.checkOutputs(job)
	late := again[0].spec
	late.stranger, late.out = "the run is over", c.dir+"/late-out"
	p := c.start(late)
	if err := p.wait(t, patience); err == nil || !strings.Contains(p.complaint(), "is finished") {
		t.Errorf("after the end it says %q", p.complaint())
	}
	t.Log(p.complaint())
}
