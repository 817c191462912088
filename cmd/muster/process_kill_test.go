package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
)

// TestKill kills nodes of running clusters at random moments, of every kind of victim
// and in both modes, and starts them again. Each run must end by itself with every step
// done once and with the bytes of the undisturbed run. How long a kill held the run up
// is printed; it never fails the test.
//
// MUSTER_SOAK=n makes it n kills in all, MUSTER_SEED=n repeats the choices of a run.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes for minutes")
	}
	kills := 24
	if s := os.Getenv("MUSTER_SOAK"); s != "" {
		n, err := strconv.Atoi(strings.TrimSuffix(s, " kills"))
		if err != nil {
			t.Fatalf("MUSTER_SOAK is %q: give the number of kills", s)
		}
		kills = n
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("MUSTER_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("MUSTER_SEED is %q: give a number", s)
		}
		seed = n
	}
	t.Logf("seed: MUSTER_SEED=%d", seed)
	var all []killing
	for run := uint64(0); len(all) < kills && run < uint64(kills); run++ {
		s := scenarios[run%uint64(len(scenarios))]
		most := min(kills-len(all), 6)
		t.Run(fmt.Sprintf("%02d-%s-%s", run, s.mode, s.layout), func(t *testing.T) {
			all = append(all, killRun(t, s, rand.New(rand.NewPCG(seed, run)), most)...)
		})
		if t.Failed() {
			break
		}
	}
	report(t, all)
}

// scenario is a kind of cluster and who is killed in it, in turn.
type scenario struct {
	mode, layout string
	nodes        []nodeSpec
	victims      []victim
}

type victim string

const (
	aTrainer     victim = "trainer only"
	aShardLeader victim = "leader of a shard"
	aCoordinator victim = "leader of the coordinator"
	allThree     victim = "trainer and leader of both"
)

var (
	mixed = []nodeSpec{{name: "a"}, {name: "b"}, {name: "c"}, {name: "d", roles: trainerOnly}}
	apart = []nodeSpec{
		{name: "a", roles: serverOnly}, {name: "b", roles: serverOnly}, {name: "c", roles: serverOnly},
		{name: "d", roles: trainerOnly}, {name: "e", roles: trainerOnly},
	}
	scenarios = []scenario{
		{"ring", "mixed", mixed, []victim{allThree, aTrainer}},
		{"server", "mixed", mixed, []victim{allThree, aTrainer}},
		{"ring", "apart", apart, []victim{aCoordinator, aShardLeader, aTrainer}},
		{"server", "apart", apart, []victim{aShardLeader, aCoordinator, aTrainer}},
	}
	killJob = jobText{train: 2048, passes: 15, servers: 3, replicas: 3, paramShards: 3, commitEvery: 5}
)

// killing is one kill and what it cost.
type killing struct {
	mode   string
	victim victim
	node   string
	step   int // the newest step known when it was killed
	at     time.Time
	next   time.Duration // from the kill to the next step that was done without the victim
	pause  time.Duration // the longest time without a step in the two seconds from the kill
}

// killRun runs one cluster and kills in it up to most times, while enough steps are
// left to see each node come back.
func killRun(t *testing.T, s scenario, random *rand.Rand, most int) []killing {
	job := killJob
	job.mode = s.mode
	digestOf(t, job)
	c := newCluster(t, job.String())
	now := map[string]*process{}
	for _, n := range s.nodes {
		now[n.name] = c.start(n)
	}
	k := &killer{cluster: c, random: random, now: now, lives: map[string]string{}, last: job.steps(t) * 3 / 4}
	var kills []killing
	for len(kills) < most && k.ready(kills) {
		victim := s.victims[len(kills)%len(s.victims)]
		kill, ok := k.kill(victim, k.last*len(kills)/most)
		if !ok {
			break
		}
		kill.mode = s.mode
		kills = append(kills, kill)
	}
	c.finish()
	c.checkOutputs(job)
	for _, p := range c.nodes {
		if !p.killed() && p.err == nil && p.finished != nil && p.finished.Out != "" {
			measureKills(t, kills, stepTimes(t, p.out), readEvents(t, p.out))
			break
		}
	}
	return kills
}

// killer kills the nodes of one cluster.
type killer struct {
	*cluster
	random *rand.Rand
	now    map[string]*process // the newest life of each node
	lives  map[string]string   // of each server: its life in the Raft groups when it was last killed
	last   int                 // no kill after this step
}

// ready waits until the cluster is whole: every node has a session, every trainer is in
// the view, every server votes in every group. It is false when the run is too far on.
func (k *killer) ready(kills []killing) bool {
	k.t.Helper()
	k.until("the cluster is whole or its run nearly over", func() bool {
		return k.step() > k.last || k.whole()
	})
	return k.step() <= k.last
}

func (k *killer) step() int {
	newest := -1
	for _, p := range k.now {
		if p.ended() && !p.killed() {
			return 1 << 30 // the run is over
		}
		newest = max(newest, p.lastStep())
	}
	return newest
}

func (k *killer) whole() bool {
	st := k.status("")
	if st == nil || st.Step == 0 {
		return false
	}
	for name, p := range k.now {
		i := slices.IndexFunc(st.Nodes, func(n *pb.NodeStatus) bool { return n.Node == name && n.Connected })
		if i < 0 || strings.Contains(p.roles, "trainer") && (len(st.Nodes[i].Shards) == 0 || st.Nodes[i].View != st.View.GetNumber()) {
			return false
		}
	}
	for _, group := range k.groups() {
		l := leadOf(st, group)
		for name, p := range k.now {
			if strings.Contains(p.roles, "server") && !slices.ContainsFunc(l.GetVoters(), func(v string) bool {
				return strings.HasPrefix(v, name+"/") && v != k.lives[name]
			}) {
				return false
			}
		}
	}
	return true
}

func (k *killer) groups() []string {
	groups := []string{membership.CoordinatorGroup}
	for i := range killJob.paramShards {
		groups = append(groups, fmt.Sprintf("shard-%d", i))
	}
	return groups
}

// leadOf is the newest word on who leads a group; nil when nobody says so.
func leadOf(st *pb.Status, group string) (newest *pb.Lead) {
	for _, n := range st.Nodes {
		for _, l := range n.Leads {
			if l.Group == group && l.Term > newest.GetTerm() {
				newest = l
			}
		}
	}
	return newest
}

// kill waits for a random moment of a step, not before the earliest, kills a node of the
// kind and starts it again, at once or after the others have gone on.
func (k *killer) kill(kind victim, earliest int) (killing, bool) {
	k.t.Helper()
	from := k.step()
	to := max(from, earliest) + 1 + k.random.IntN(6)
	begin := time.Now()
	k.until(fmt.Sprintf("step %d", to), func() bool { return k.step() >= to })
	perStep := time.Since(begin) / time.Duration(max(k.step()-from, 1))
	<-time.After(time.Duration(k.random.Int64N(int64(perStep) + 1)))
	st := k.status("")
	if st == nil {
		return killing{}, false
	}
	p := k.choose(kind, st)
	kill := killing{victim: kind, node: p.name, step: k.step()}
	if kill.step > k.last+100 {
		return kill, false
	}
	for _, group := range k.groups() {
		for _, v := range leadOf(st, group).GetVoters() {
			if strings.HasPrefix(v, p.name+"/") {
				k.lives[p.name] = v
			}
		}
	}
	kill.at = p.kill()
	if k.random.IntN(2) == 0 { // the others go on first
		k.until("a step without the victim", func() bool { return k.step() > kill.step+1 })
	}
	if kind == aTrainer && k.random.IntN(2) == 0 { // another node takes its place
		fresh := p.spec
		fresh.name, fresh.addr, fresh.join, fresh.dataDir, fresh.out = fmt.Sprintf("%s%d", p.name[:1], kill.step), "", nil, "", ""
		delete(k.now, p.name)
		k.now[fresh.name] = k.start(fresh)
		return kill, true
	}
	k.now[p.name] = k.again(p)
	return kill, true
}

// choose picks a node of the kind.
func (k *killer) choose(kind victim, st *pb.Status) *process {
	var names []string
	switch kind {
	case aCoordinator, allThree:
		names = []string{st.Coordinator}
	case aShardLeader:
		for _, n := range st.Nodes {
			if n.Node != st.Coordinator && len(n.Leads) > 0 {
				names = append(names, n.Node)
			}
		}
	case aTrainer:
		for name, p := range k.now {
			if p.roles == trainerOnly {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		names = []string{st.Coordinator} // it leads every shard, too
	}
	slices.Sort(names)
	return k.now[names[k.random.IntN(len(names))]]
}

// measureKills finds, in the run's own history, when it went on after each kill: the
// first step of the view without the victim, if that was a trainer, and else the next step.
func measureKills(t *testing.T, kills []killing, steps []time.Time, events []event) {
	for i := range kills {
		k := &kills[i]
		before, limit := k.at, k.at.Add(2*time.Second)
		for _, at := range steps {
			if at.After(k.at) {
				if k.next == 0 {
					k.next = at.Sub(k.at)
				}
				if before.Before(limit) {
					k.pause = max(k.pause, at.Sub(before))
				}
				before = at
			}
		}
		for _, e := range events {
			if e.Kind == "lost" && e.Node == k.node && e.Time.After(k.at) && strings.HasPrefix(e.Text, "trainer ") {
				if from := viewAfter(events, e); from < len(steps) {
					k.next = steps[from].Sub(k.at)
				}
				break
			}
		}
		t.Logf("%s: killed %s (%s) after step %d: next step after %v, longest pause %v",
			k.mode, k.node, k.victim, k.step, k.next.Round(time.Millisecond), k.pause.Round(time.Millisecond))
	}
}

// viewAfter is the first step of the view that a loss led to.
func viewAfter(events []event, lost event) int {
	for _, e := range events {
		if e.Kind == "view" && !e.Time.Before(lost.Time) {
			return e.Step
		}
	}
	return 1 << 30
}

// report prints the least, the median and the most for each kind of victim.
func report(t *testing.T, all []killing) {
	t.Helper()
	print := func(what string, of func(killing) bool) {
		var next, pause []time.Duration
		for _, k := range all {
			if of(k) {
				next, pause = append(next, k.next.Round(time.Millisecond)), append(pause, k.pause.Round(time.Millisecond))
			}
		}
		if n := len(next); n > 0 {
			slices.Sort(next)
			slices.Sort(pause)
			t.Logf("%-36s %3d kills; to the next step: min %v, median %v, max %v; longest pause: median %v, max %v",
				what, n, next[0], next[n/2], next[n-1], pause[n/2], pause[n-1])
		}
	}
	for _, v := range []victim{aTrainer, aShardLeader, aCoordinator, allThree} {
		for _, mode := range []string{"ring", "server"} {
			print(string(v)+", "+mode, func(k killing) bool { return k.victim == v && k.mode == mode })
		}
	}
	print("all", func(killing) bool { return true })
}
