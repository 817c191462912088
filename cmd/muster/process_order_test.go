package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
)

// TestStartOrder starts the nodes of a cluster one by one, each when the one before
// listens or further on, in orders that users come up with.
func TestStartOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	for _, order := range []struct {
		name  string
		nodes []nodeSpec
	}{
		{"servers without a trainer first", []nodeSpec{
			{name: "a", roles: serverOnly}, {name: "b", roles: serverOnly}, {name: "c", roles: serverOnly}, {name: "d", roles: trainerOnly}}},
		{"a trainer first", []nodeSpec{
			{name: "d", roles: trainerOnly}, {name: "c", roles: serverOnly}, {name: "b", roles: serverOnly}, {name: "a", roles: serverOnly}}},
		{"trainers before and after the servers", []nodeSpec{
			{name: "a", roles: trainerOnly}, {name: "b"}, {name: "c", roles: serverOnly}, {name: "d"}, {name: "e", roles: trainerOnly}}},
		{"a server too many", []nodeSpec{{name: "a"}, {name: "b"}, {name: "c"}, {name: "d"}}},
	} {
		t.Run(order.name, func(t *testing.T) {
			t.Parallel()
			job := jobText{mode: "server", train: 512, passes: 4, servers: 3, replicas: 3, paramShards: 2}
			c := newCluster(t, job.String())
			seeds := make([]string, len(order.nodes)) // everybody is given the same list, before anybody is there
			for i := range seeds {
				seeds[i] = freeAddr(t)
			}
			for i, s := range order.nodes {
				s.addr, s.join = seeds[i], seeds
				p := c.start(s)
				c.until(s.name+" listens", func() bool { return p.listening() || p.ended() })
				c.until(s.name+" is known to all", func() bool { return p.ended() || c.known(p.name) })
			}
			c.finish()
			c.checkOutputs(job)
		})
	}
}

// known says whether every living node knows a node by gossip.
func (c *cluster) known(name string) bool {
	for _, p := range c.living() {
		st, err := c.ask(p.addr)
		if err != nil || !slices.ContainsFunc(st.Nodes, func(n *pb.NodeStatus) bool { return n.Node == name }) {
			return false
		}
	}
	return true
}

// TestJoin adds a trainer in the middle of a run: it takes part, and not a byte changes.
func TestJoin(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	for _, mode := range []string{"ring", "server"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			job := killJob
			job.mode = mode
			c := newCluster(t, job.String())
			a := c.start(nodeSpec{name: "a"})
			c.start(nodeSpec{name: "b"})
			c.start(nodeSpec{name: "c"})
			c.until("some steps", func() bool { return a.lastStep() >= 10 })
			c.start(nodeSpec{name: "d", roles: trainerOnly})
			c.until("the joiner computes logical shards", func() bool {
				st := c.status("")
				return st != nil && slices.ContainsFunc(st.Nodes, func(n *pb.NodeStatus) bool { return n.Node == "d" && len(n.Shards) > 0 && n.Step > 0 })
			})
			c.finish()
			c.checkOutputs(job)
		})
	}
}

// TestNewLife kills a server and starts it again: it has lost its logs, so it must come
// back under a new identity, catch up, and vote again, and the old identity be gone.
func TestNewLife(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	job := killJob
	job.mode = "server"
	c := newCluster(t, job.String())
	a := c.start(nodeSpec{name: "a"})
	b := c.start(nodeSpec{name: "b"})
	c.start(nodeSpec{name: "c"})
	groups := append([]string{membership.CoordinatorGroup}, "shard-0", "shard-1", "shard-2")
	lives := func(of func(*pb.Lead) []string) (old []string, complete bool) {
		st := c.status("")
		for _, g := range groups {
			for _, life := range of(leadOf(st, g)) {
				if strings.HasPrefix(life, "b/") {
					old = append(old, life)
				}
			}
		}
		return old, len(old) == len(groups)
	}
	var old []string
	c.until("b votes in every group", func() (ok bool) {
		if c.status("") != nil {
			old, ok = lives((*pb.Lead).GetVoters)
		}
		return ok && a.lastStep() >= 10
	})
	b.kill()
	c.until("the others go on", func() bool { return a.lastStep() >= 20 })
	c.again(b)
	var again []string
	c.until("b votes in every group again, in another life", func() (ok bool) {
		if c.status("") != nil {
			again, ok = lives((*pb.Lead).GetVoters)
		}
		return a.ended() || ok && !slices.ContainsFunc(again, func(life string) bool { return slices.Contains(old, life) })
	})
	if a.ended() {
		t.Error("the run was over before b voted again")
	}
	c.finish()
	c.checkOutputs(job)
}
