package main

import (
	"path/filepath"
	"strings"
	"sync"
	"syscall"
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

// stopped runs a cluster on disks for some steps and kills all of it.
func stopped(t *testing.T, job jobText) (c *cluster, dead []*process) {
	t.Helper()
	c = newCluster(t, job.String())
	for _, name := range []string{"a", "b", "c"} {
		c.start(nodeSpec{name: name})
	}
	c.until("some steps", func() bool { return newestStep(c) >= job.steps(t)/3 })
	return c, c.killAll()
}

// logOf is the first file of a node's log of a group.
func (c *cluster) logOf(node, group string) string {
	c.t.Helper()
	var files []string
	for _, pattern := range []string{"*/*.seg", "*/log/*.seg"} {
		found, _ := filepath.Glob(filepath.Join(c.dir, "data", node, "raft", group, pattern))
		files = append(files, found...)
	}
	if len(files) == 0 {
		c.t.Fatalf("%s has no log of %s", node, group)
	}
	return files[0]
}

// TestDamagedLogs damages one server's logs so that it cannot know any more what it has
// stored. It says so, and is filled anew by the others; the run goes on to the same bytes.
func TestDamagedLogs(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	job := diskJob
	job.mode = "server"
	c, dead := stopped(t, job)
	flipBit(t, c.logOf("a", "shard-0"), 3)
	flipBit(t, c.logOf("b", "shard-1"), 30)
	flipBit(t, c.logOf("c", "coordinator"), 30)
	c.resume(dead)
	c.finish()
	c.checkOutputs(job)
	for _, node := range []string{"a", "b", "c"} {
		if !strings.Contains(c.newest(node).text(), "is damaged at byte") || !strings.Contains(c.newest(node).text(), "is given up") {
			t.Errorf("%s does not say what is damaged", node)
		}
	}
}

// newest is the last life of a node.
func (c *cluster) newest(name string) (newest *process) {
	for _, p := range c.nodes {
		if p.name == name {
			newest = p
		}
	}
	return newest
}

// TestLogsLost takes away so many logs that nobody may go on: every node says so and ends.
func TestLogsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	job := diskJob
	job.mode = "ring"
	c, dead := stopped(t, job)
	flipBit(t, c.logOf("a", "shard-0"), 3)
	flipBit(t, c.logOf("b", "shard-0"), 3)
	for _, p := range c.resume(dead) {
		p.spec.stranger = "its run is lost"
		if err := p.wait(t, patience); err == nil || !strings.Contains(p.complaint(), "the run is lost: a and b of the 3 servers of shard-0 have lost their logs") {
			t.Errorf("%s says %q", p.name, p.complaint())
		}
		t.Log(p.complaint())
	}
}

// TestFullDiskOfLogs fills the disk that the logs are on. Training stops, the server says
// why, and when there is room it goes on.
func TestFullDiskOfLogs(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	job := diskJob
	job.mode, job.servers, job.replicas = "server", 1, 1
	c := newCluster(t, job.String())
	disk := c.tmpfs("size=24m")
	a := c.start(nodeSpec{name: "a", roles: serverOnly, dataDir: disk})
	b := c.start(nodeSpec{name: "b", roles: trainerOnly})
	const sentence = "the disk or quota is full; make room in the folder of --data-dir"
	c.until("the disk is full", func() bool { return strings.Contains(a.text(), sentence) })
	stopped := b.lastStep()
	t.Logf("the disk is full after step %d", stopped)
	if stopped >= job.steps(t)-1 {
		t.Fatal("the run is over")
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=256m"); err != nil {
		t.Fatal(err)
	}
	c.until("steps with room", func() bool { return b.lastStep() > stopped+3 })
	c.finish()
	c.checkOutputs(job)
}
