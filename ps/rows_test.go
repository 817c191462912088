package ps

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/ps/table"
)

// testTables are two tables with everything that makes rows come and go.
func testTables(t testing.TB) []table.Config {
	return []table.Config{
		{Name: "deep", Dim: 7, Optimizer: testOptimizer(t, optim.Config{Name: "adagrad", LR: 0.1}), Seed: 1, Scale: 0.1, Admit: 2, Expire: 9, MaxRows: 300},
		{Name: "wide", Dim: 1, Optimizer: testOptimizer(t, optim.Config{Name: "ftrl", LR: 0.1}), Seed: 1},
	}
}

const testLogical = 3

func newRowsCluster(t testing.TB, shards int, tweak func(*ServerConfig)) *testCluster {
	l := Layout{Params: 100, BlockSize: 30, Shards: shards}
	return newTestCluster(t, 3, l, optim.Config{Name: "sgd", LR: 0.1}, func(c *ServerConfig) {
		c.Tables, c.LogicalShards = testTables(t), testLogical
		if tweak != nil {
			tweak(c)
		}
	})
}

func rowsClient(c *testCluster) *Client {
	return c.client(func(cfg *ClientConfig) { cfg.Tables = testTables(c.t) })
}

// rowParts is a pure function of the step, so that a repeated push is the same push.
func rowParts(step id.Step) []table.Part {
	r := rand.New(rand.NewPCG(uint64(step), 11))
	parts := make([]table.Part, testLogical)
	for l := range parts {
		parts[l] = table.Part{Shard: id.LogicalShard(l), Tables: make([]table.Rows, 2)}
		for i, dim := range []int{7, 1} {
			rows := &parts[l].Tables[i]
			for range 20 {
				rows.Keys = append(rows.Keys, r.Uint64N(1+r.Uint64N(400)))
			}
			slices.Sort(rows.Keys)
			rows.Keys = slices.Compact(rows.Keys)
			for range len(rows.Keys) * dim {
				rows.Values = append(rows.Values, float32(r.NormFloat64()))
			}
		}
	}
	return parts
}

// rowsOracle is the rows as one process would have them.
func rowsOracle(t testing.TB) *table.Store {
	s, err := table.New(testTables(t), 0, 1, testLogical)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testRows() []table.Rows {
	rows := make([]table.Rows, 2)
	for i, dim := range []int{7, 1} {
		for k := range uint64(450) {
			rows[i].Keys = append(rows[i].Keys, k)
		}
		rows[i].Values = make([]float32, len(rows[i].Keys)*dim)
	}
	return rows
}

// checkRows compares every row, pulled as it is and by what has changed, with the oracle's.
func checkRows(t *testing.T, c *Client, o *table.Store, before []table.Rows) []table.Rows {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	got := testRows()
	if err := c.PullRows(ctx, o.Step(), o.Step(), got); err != nil {
		t.Fatal(err)
	}
	_, want, err := o.Pull(o.Step(), o.Step(), [][]uint64{got[0].Keys, got[1].Keys}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	sameBits(t, "rows", append(slices.Clone(got[0].Values), got[1].Values...), want)
	if before != nil {
		if err := c.PullRows(ctx, o.Step(), o.Step()-1, before); err != nil {
			t.Fatal(err)
		}
		sameBits(t, "changed rows", append(slices.Clone(before[0].Values), before[1].Values...), want)
	}
	return got
}

// The servers have the rows that one process would have, over kills of leaders in the middle of steps and the return of the
// killed, although two clients push the same parts.
func TestRowsOverKills(t *testing.T) {
	const steps = 24
	c := newRowsCluster(t, 4, nil)
	clients := []*Client{rowsClient(c), rowsClient(c)}
	o := rowsOracle(t)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	before := checkRows(t, clients[0], o, nil)
	for step := id.Step(0); step < steps; step++ {
		var pushing sync.WaitGroup
		for _, client := range clients {
			pushing.Go(func() {
				for _, p := range rowParts(step) {
					if err := client.PushRows(ctx, step, step, []table.Part{p}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		killed := id.Node("")
		if step%8 == 3 {
			eventually(t, "three voters again", c.whole)
			killed = c.leader(id.ParamShard(step % 4))
			c.kill(killed)
		}
		pushing.Wait()
		if killed != "" {
			c.restart(killed)
		}
		if err := o.Push(step, step, rowParts(step)); err != nil {
			t.Fatal(err)
		}
		before = checkRows(t, clients[step%2], o, before)
	}
	want, _ := o.AppendSlots(nil, steps, 0, 0, table.Slots)
	got, err := clients[0].ScanRows(ctx, steps, 0, 0, table.Slots)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the tables are not those of one process: %v", err)
	}
	if err := clients[0].PullRows(ctx, steps-5, steps-5, testRows()); !errors.Is(err, ErrGone) {
		t.Errorf("a pull of a step long gone: %v", err)
	}
	eventually(t, "all replicas have the same rows", func() bool {
		for _, n := range c.live() {
			for _, r := range n.server.all() {
				var b []byte
				err := r.state.rows.read(steps, func(s *table.Store) (err error) {
					b, err = s.AppendSlots(nil, steps, 0, 0, table.Slots)
					return err
				})
				mine, _ := o.AppendShard(nil, steps, 0, table.Slots, int(r.shard), 4)
				if err != nil || !bytes.Equal(b, mine) {
					return false
				}
			}
		}
		return len(c.live()) == 3
	})
}

// A pull of a step that is not there waits for it.
func TestPullRowsWaits(t *testing.T) {
	c := newRowsCluster(t, 2, nil)
	client := rowsClient(c)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	pulled := make(chan error)
	go func() { pulled <- client.PullRows(ctx, 1, 1, testRows()) }()
	parts := rowParts(0)
	if err := client.PushRows(ctx, 0, 0, parts[1:]); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-pulled:
		t.Fatalf("rows of step 1 without all of step 0: %v", err)
	default:
	}
	if err := client.PushRows(ctx, 0, 0, parts[:1]); err != nil {
		t.Fatal(err)
	}
	if err := <-pulled; err != nil {
		t.Fatal(err)
	}
}

// What one cluster holds at a step goes on, loaded into one with another number of shards, to the same bits. Both are
// disturbed by a process that was killed and comes back, and by two who load the same.
func TestRowsMoveToOtherShards(t *testing.T) {
	c := newRowsCluster(t, 3, nil)
	from := rowsClient(c)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	o := rowsOracle(t)
	for step := range id.Step(12) {
		if err := errors.Join(from.PushRows(ctx, step, step, rowParts(step)), o.Push(step, step, rowParts(step))); err != nil {
			t.Fatal(err)
		}
	}
	all, _ := table.New(testTables(t), 0, 1, 1)
	for slot := 0; slot < table.Slots; slot += 256 {
		b, err := from.ScanRows(ctx, 12, 0, slot, slot+256)
		if err == nil {
			err = all.Overlay(b, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	all.Settle(12)
	other := newRowsCluster(t, 2, nil)
	var loading sync.WaitGroup
	to := []*Client{rowsClient(other), rowsClient(other)}
	for _, client := range to {
		loading.Go(func() {
			if err := client.LoadRows(ctx, all); err != nil {
				t.Error(err)
			}
		})
	}
	loading.Wait()
	for step := id.Step(12); step < 20; step++ {
		if err := errors.Join(to[0].PushRows(ctx, step, step, rowParts(step)), o.Push(step, step, rowParts(step))); err != nil {
			t.Fatal(err)
		}
		checkRows(t, to[1], o, nil)
	}
}

// With the log on the disk everything may be killed at once, also when snapshots have cut the log.
func TestRowsOnDisk(t *testing.T) {
	const steps = 30
	l := Layout{Params: 100, BlockSize: 30, Shards: 2}
	dirs := map[id.Node]string{}
	known := false
	c := newTestCluster(t, 1, l, optim.Config{Name: "sgd", LR: 0.1}, func(cfg *ServerConfig) {
		cfg.Tables, cfg.LogicalShards = testTables(t), testLogical
		if dirs[cfg.Self.Node] == "" {
			dirs[cfg.Self.Node] = t.TempDir()
		}
		again := known
		cfg.Dir, cfg.Durable, cfg.LogLimit = dirs[cfg.Self.Node], true, 4<<10
		cfg.Life = func(id.ParamShard) (id.Incarnation, bool) { return "life1", again }
	})
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	o := rowsOracle(t)
	c.stop() // it would make a new member of the new life
	var before []table.Rows
	layered := false
	for step := range id.Step(steps) {
		client := rowsClient(c)
		if err := errors.Join(client.PushRows(ctx, step, step, rowParts(step)), o.Push(step, step, rowParts(step))); err != nil {
			t.Fatal(err)
		}
		before = checkRows(t, client, o, before)
		if step%10 == 9 {
			known = true
			c.kill("node-a")
			deltas, _ := filepath.Glob(filepath.Join(dirs["node-a"], "*", "*", "*", "*", "snapshots", "*", "layer-002-of-*"))
			layered = layered || len(deltas) > 0
			c.restart("node-a")
		}
	}
	if !layered {
		t.Error("no snapshot that it came back from had a delta")
	}
}
