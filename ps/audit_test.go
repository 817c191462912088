package ps

import (
	"sync"
	"testing"
	"time"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
)

// audits has a shard audited and returns what each node says of it.
func audits(t *testing.T, c *testCluster, shard id.ParamShard) map[id.Node]Audit {
	t.Helper()
	leader := c.leader(shard)
	if leader == "" {
		return nil
	}
	c.mu.Lock()
	n := c.nodes[leader]
	c.mu.Unlock()
	index, ok := n.server.Audit()[shard]
	if !ok {
		return nil
	}
	all := map[id.Node]Audit{}
	for _, n := range c.live() {
		if a := n.server.AwaitAudit(testContext(t, 5*time.Second), shard, index); a.Index == index {
			all[n.self.Node] = a
		}
	}
	return all
}

// While trainers push, an audit finds the same digest on every replica; when a bit of one
// is wrong, it finds that.
func TestAudit(t *testing.T) {
	l := Layout{Params: 4000, BlockSize: 256, Shards: 1}
	conf := optim.Config{Name: "adam", LR: 0.01}
	c := newTestCluster(t, 3, l, conf, nil)
	client := c.client(nil)
	ctx := testContext(t, 30*time.Second)
	blocks := id.Block(l.Blocks())
	o := newOracle(t, conf, l.Params)
	if err := client.Put(ctx, 0, 0, 0, blocks, o.state()); err != nil {
		t.Fatal(err)
	}
	w := make([]float32, l.Params)
	stop := make(chan struct{})
	var pushing sync.WaitGroup
	pushing.Go(func() {
		for step := id.Step(0); ; step++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := client.Push(ctx, step, 0, blocks, gradient(step, l.Params), w); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer pushing.Wait()
	defer sync.OnceFunc(func() { close(stop) })()
	equal := func() (all map[id.Node]Audit, same bool) {
		eventually(t, "three replicas are audited", func() bool {
			all = audits(t, c, 0)
			return len(all) == 3
		})
		a, b := all["node-a"], all["node-b"]
		return all, a == b && b == all["node-c"]
	}
	all, same := equal()
	if !same || !all["node-a"].Holds {
		t.Fatalf("the replicas differ: %+v", all)
	}
	c.mu.Lock()
	s := c.nodes["node-b"].server.replica(0).state
	c.mu.Unlock()
	s.mu.Lock()
	for _, v := range s.blocks[3] { // and what is made of it
		if v != nil {
			v.data[7] += 1
		}
	}
	s.mu.Unlock()
	eventually(t, "the next audit finds the difference", func() bool {
		all, same = equal()
		return !same
	})
	if all["node-a"] != all["node-c"] || all["node-b"].Sum == all["node-a"].Sum {
		t.Errorf("not node-b alone differs: %+v", all)
	}
}

// Behind counts what comes after an entry, and the state where the log is cut.
func TestBehind(t *testing.T) {
	l := Layout{Params: 1000, BlockSize: 256, Shards: 1}
	conf := optim.Config{Name: "sgd", LR: 0.01}
	c := newTestCluster(t, 1, l, conf, nil)
	client := c.client(nil)
	ctx := testContext(t, 10*time.Second)
	o := newOracle(t, conf, l.Params)
	if err := client.Put(ctx, 0, 0, 0, id.Block(l.Blocks()), o.state()); err != nil {
		t.Fatal(err)
	}
	server := c.live()[0].server
	var before uint64
	eventually(t, "the put is applied, as raft counts it", func() bool {
		now := server.Status()[0]
		before = now.Applied
		return now.Applied == now.Commit
	})
	w := make([]float32, l.Params)
	for step := range id.Step(2) {
		if err := client.Push(ctx, step, 0, id.Block(l.Blocks()), gradient(step, l.Params), w); err != nil {
			t.Fatal(err)
		}
	}
	if got := server.Behind(0, before); got != 2*4*1000 {
		t.Errorf("two gradients of 4000 bytes are %d", got)
	}
	if err := server.replica(0).entries.DeleteRange(0, before+1); err != nil {
		t.Fatal(err)
	}
	if got := server.Behind(0, before); got < 2*4*1000 {
		t.Errorf("of a log that was cut %d bytes are sent, less than the state", got)
	}
}
