package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
)

// killer kills the nodes of one cluster.
type killer struct {
	*cluster
	random *rand.Rand
	now    map[string]*process // the newest life of each node
	lives  map[string]string   // of each server: its life in the Raft groups when it was last killed
	last   int                 // no kill after this step
	fresh  int                 // nodes that took the place of others
}

// ready waits until the cluster is whole: every node has a session, every trainer is in
// the view, every server votes in every group. It is false when the run is too far on.
func (k *killer) ready() bool {
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
				return strings.HasPrefix(v, name+"/") && (killJob.disk || v != k.lives[name]) // on disk it is the same
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

// kill waits for a random moment of a step, not before the earliest, kills what the kind
// says and starts it again, at once or after the others have gone on.
func (k *killer) kill(kind victim, earliest int) (killing, bool) {
	k.t.Helper()
	from := k.step()
	to := max(from, earliest) + 1 + k.random.IntN(6)
	begin := time.Now()
	k.until(fmt.Sprintf("step %d", to), func() bool { return k.step() >= to })
	perStep := time.Since(begin) / time.Duration(max(k.step()-from, 1))
	<-time.After(time.Duration(k.random.Int64N(int64(perStep) + 1)))
	st := k.status("")
	kill := killing{victim: kind, step: k.step()}
	if st == nil || kill.step > k.last+100 {
		return kill, false
	}
	victims := k.choose(kind, st)
	kill.at = time.Now()
	for _, p := range victims {
		kill.nodes = append(kill.nodes, p.name)
		k.remember(st, p.name)
		p.signalKill()
	}
	for _, p := range victims {
		p.kill()
	}
	if kind != allTrainers && k.random.IntN(2) == 0 { // the others go on first
		k.until("a step without the victim", func() bool { return k.step() > kill.step+1 })
	}
	for _, p := range victims {
		if p.roles == trainerOnly && k.random.IntN(2) == 0 {
			k.replace(p)
		} else {
			k.now[p.name] = k.again(p)
		}
	}
	return kill, true
}

// remember notes a server's life in the Raft groups, to tell the next one from it.
func (k *killer) remember(st *pb.Status, name string) {
	for _, group := range k.groups() {
		for _, v := range leadOf(st, group).GetVoters() {
			if strings.HasPrefix(v, name+"/") {
				k.lives[name] = v
			}
		}
	}
}

// replace starts another node in the place of one that was killed.
func (k *killer) replace(p *process) {
	fresh := p.spec
	k.fresh++
	fresh.name, fresh.addr, fresh.join, fresh.dataDir, fresh.out = fmt.Sprint(p.name[:1], k.fresh), "", nil, "", ""
	delete(k.now, p.name)
	k.now[fresh.name] = k.start(fresh)
}

// choose picks the nodes to kill.
func (k *killer) choose(kind victim, st *pb.Status) []*process {
	leader := k.now[st.Coordinator]
	var shardLeaders, trainers []*process
	for _, name := range slices.Sorted(maps.Keys(k.now)) {
		p := k.now[name]
		if p.roles == trainerOnly {
			trainers = append(trainers, p)
		}
		if name != st.Coordinator && slices.ContainsFunc(st.Nodes, func(n *pb.NodeStatus) bool { return n.Node == name && len(n.Leads) > 0 }) {
			shardLeaders = append(shardLeaders, p)
		}
	}
	if len(shardLeaders) == 0 {
		shardLeaders = []*process{leader} // it leads every shard, too
	}
	one := func(of []*process) *process { return of[k.random.IntN(len(of))] }
	switch kind {
	case aTrainer:
		return []*process{one(trainers)}
	case aShardLeader:
		return []*process{one(shardLeaders)}
	case twoAtOnce:
		return []*process{one(trainers), leader}
	case allTrainers:
		return trainers
	default:
		return []*process{leader}
	}
}
