package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestKill kills nodes of running clusters at random moments, of every kind of victim
// and in both modes, and starts them again. Each run must end by itself with every step
// done once and with the bytes of the undisturbed run. How long a kill held the run up
// is printed; it never fails the test.
//
// MUSTER_SOAK=n makes it n kills in all, MUSTER_SEED=n repeats the choices of a run,
// MUSTER_DISK=1 has the servers keep their logs on disk.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes for minutes")
	}
	kills := 12
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
		most := min(kills-len(all), max(kills/len(scenarios), 3), 6)
		t.Run(fmt.Sprintf("%02d-%s-%s", run, s.mode, s.layout), func(t *testing.T) {
			all = append(all, killRun(t, s, rand.New(rand.NewPCG(seed, run)), most)...)
		})
		if t.Failed() {
			break
		}
	}
	report(t, all)
}

// TestKillInModes does the same in the modes where trainers go by themselves, and with sums that hang on who adds them: all trainers
// end with the same bytes. In ssp and async the bytes are not those of an undisturbed
// run either; that every logical shard's gradient of every step is in the weights once is told by the servers' own clocks, without which
// no trainer ends such a run (trainer/arrive.go).
func TestKillInModes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes for a minute")
	}
	seed := uint64(time.Now().UnixNano())
	for i, s := range []scenario{
		{mode: "ssp", layout: "apart", nodes: apart, victims: []victim{aTrainer, aShardLeader, allTrainers}, sync: ", staleness: 3"},
		{mode: "async", layout: "mixed", nodes: mixed, victims: []victim{allThree, aTrainer}},
		{mode: "local", layout: "apart", nodes: apart, victims: []victim{aTrainer, aShardLeader}, sync: ", steps: 4"},
		{mode: "ring", layout: "mixed", nodes: mixed, victims: []victim{allThree, aTrainer}, fast: true, sync: ", wire: int8"},
	} {
		name := s.mode
		if s.fast {
			name += " fast"
		}
		t.Run(name, func(t *testing.T) {
			report(t, killRun(t, s, rand.New(rand.NewPCG(seed, uint64(i))), len(s.victims)))
		})
	}
}

// TestKillWithTables does it with a model whose sparse tables are on the servers: their rows, too, must be those of the
// undisturbed run.
func TestKillWithTables(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes for a minute")
	}
	seed := uint64(time.Now().UnixNano())
	for i, s := range []scenario{
		{mode: "server", layout: "apart", nodes: apart, victims: []victim{aShardLeader, aTrainer, allTrainers}, tables: true},
		{mode: "ring", layout: "mixed", nodes: mixed, victims: []victim{allThree, aTrainer}, tables: true},
	} {
		t.Run(s.mode+" "+s.layout, func(t *testing.T) {
			report(t, killRun(t, s, rand.New(rand.NewPCG(seed, uint64(i))), len(s.victims)))
		})
	}
}

// scenario is a kind of cluster and who is killed in it, in turn.
type scenario struct {
	mode, layout string
	nodes        []nodeSpec
	victims      []victim
	sync         string // what the mode needs in the section sync
	fast         bool   // sums in float32
	tables       bool   // the model has sparse tables
}

type victim string

const (
	aTrainer     victim = "trainer only"
	aShardLeader victim = "leader of a shard"
	aCoordinator victim = "leader of the coordinator"
	allThree     victim = "trainer and leader of both"
	twoAtOnce    victim = "trainer, and leader of the coordinator"
	allTrainers  victim = "every trainer, started again"
)

var (
	mixed = []nodeSpec{{name: "a"}, {name: "b"}, {name: "c"}, {name: "d", roles: trainerOnly}}
	apart = []nodeSpec{
		{name: "a", roles: serverOnly}, {name: "b", roles: serverOnly}, {name: "c", roles: serverOnly},
		{name: "d", roles: trainerOnly}, {name: "e", roles: trainerOnly},
	}
	scenarios = []scenario{
		{mode: "ring", layout: "mixed", nodes: mixed, victims: []victim{allThree, aTrainer, twoAtOnce}},
		{mode: "server", layout: "mixed", nodes: mixed, victims: []victim{allThree, aTrainer, twoAtOnce}},
		{mode: "ring", layout: "apart", nodes: apart, victims: []victim{aCoordinator, aShardLeader, aTrainer, twoAtOnce, allTrainers}},
		{mode: "server", layout: "apart", nodes: apart, victims: []victim{aShardLeader, aCoordinator, aTrainer, twoAtOnce, allTrainers}},
	}
	killJob = jobText{train: 2048, passes: 9, servers: 3, replicas: 3, paramShards: 3, commitEvery: 5, disk: os.Getenv("MUSTER_DISK") != ""}
)

// killRun runs one cluster and kills in it up to most times, while enough steps are
// left to see each node come back.
func killRun(t *testing.T, s scenario, random *rand.Rand, most int) []killing {
	job := killJob
	job.mode, job.sync, job.fast, job.tables = s.mode, s.sync, s.fast, s.tables
	if job.steady() {
		digestOf(t, job)
	}
	c := newCluster(t, job.String())
	now := map[string]*process{}
	for _, n := range s.nodes {
		now[n.name] = c.start(n)
	}
	k := &killer{cluster: c, random: random, now: now, lives: map[string]string{}, last: job.steps(t) * 3 / 4}
	var kills []killing
	for len(kills) < most && k.ready() {
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
