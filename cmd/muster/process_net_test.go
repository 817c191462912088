package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/musterml/muster/internal/flight"
	"github.com/musterml/muster/internal/id"
)

// TestBadNetwork: three trainers and a server, each on a host of its own, one of them behind a slow link. A trainer is
// stopped, a wire between two breaks in one direction, a cable is pulled. Each time the others name the right one and
// go on without it, and when the harm is mended it comes back.
func TestBadNetwork(t *testing.T) {
	lab := newNetlab(t, 4)
	const server, first, second, third = 0, 1, 2, 3
	names := []string{"server", "t1", "t2", "t3"}
	lab.rate(second, "100mbit")
	c := newCluster(t, `
name: net
model: {name: mlp, hidden: [64]}
data: {train: 4096, test: 100}
batch: {size: 48, logical_shards: 6}
passes: 100000
cluster: {servers: 1, replicas: 1, parameter_shards: 1}
`)
	nodes := make([]*process, len(names))
	for i, name := range names {
		roles := trainerOnly
		if i == server {
			roles = serverOnly
		}
		nodes[i] = c.start(nodeSpec{name: name, roles: roles, addr: lab.ip(i) + ":7400", join: []string{lab.ip(server) + ":7400"}, launch: lab.on(i), procs: 1})
	}
	members := func() []string {
		nodes[server].mu.Lock()
		defer nodes[server].mu.Unlock()
		if n := len(nodes[server].views); n > 0 {
			return slices.Sorted(slices.Values(nodes[server].views[n-1].Trainers))
		}
		return nil
	}
	goesOn := func(who ...int) {
		t.Helper()
		want := []string{}
		for _, i := range who {
			want = append(want, names[i])
		}
		begin := time.Now()
		c.until(fmt.Sprintf("the view is %v", want), func() bool { return slices.Equal(members(), want) })
		was := nodes[who[0]].lastStep()
		c.until("its steps go on", func() bool { return nodes[who[0]].lastStep() >= was+3 })
		t.Logf("%v go on after %v", want, time.Since(begin).Round(10*time.Millisecond))
	}
	goesOn(first, second, third)

	t.Log("t3 is stopped")
	if err := nodes[third].cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goesOn(first, second)
	for _, i := range []int{first, second} {
		blames(t, c, nodes[i], "t3")
	}
	record(t, lab, nodes[first])
	if err := nodes[third].cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	goesOn(first, second, third)

	t.Log("the cable of t3 is pulled")
	lab.link(third, "down")
	goesOn(first, second)
	lab.link(third, "up")
	goesOn(first, second, third)

	t.Log("nothing goes from t1 to t2 any more")
	lab.cut(first, second)
	begin := time.Now()
	c.until("one of the two is left out", func() bool { return len(members()) == 2 && slices.Contains(members(), "t3") })
	was := nodes[third].lastStep()
	c.until("its steps go on", func() bool { return nodes[third].lastStep() >= was+3 })
	t.Logf("%v go on after %v", members(), time.Since(begin).Round(10*time.Millisecond))
	lab.mend(first, second)
	goesOn(first, second, third)
}

// blames waits for a flight record in a node's output folder, and looks whether its last operation failed because of
// that peer.
func blames(t *testing.T, c *cluster, p *process, peer id.Node) {
	t.Helper()
	path := filepath.Join(p.out, fmt.Sprintf("flight-%s-1.json", p.name))
	var rec flight.Record
	c.until(path+" is written", func() bool {
		b, err := os.ReadFile(path)
		if err == nil {
			rec, err = flight.Parse(b)
		}
		return err == nil
	})
	if !strings.Contains(rec.Why, string(peer)) {
		t.Errorf("%s: the record is of %q, not of %s", p.name, rec.Why, peer)
	}
	for _, l := range slices.Backward(rec.Spans) {
		if l.Error != "" {
			if l.Peer != peer || l.View != 1 {
				t.Errorf("%s: the operation that failed waited for %q in view %d: %s", p.name, l.Peer, l.View, l.Error)
			}
			t.Logf("%s: %s, bucket %d of step %d: %s", p.name, l.What, *l.Bucket, l.Step, l.Error)
			return
		}
	}
	t.Errorf("%s: the record has no operation that failed", p.name)
}

// record asks for the flight records as a user would.
func record(t *testing.T, lab *netlab, p *process) {
	t.Helper()
	bin, err := musterBinary()
	if err != nil {
		t.Fatal(err)
	}
	args := append(lab.on(1), bin, "why", "--record", "--json", "--addr", p.addr)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), asMuster)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("muster why --record: %v", err)
	}
	var all recordsJSON
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("muster why --record --json: %v", err)
	}
	if len(all.Records) != 3 || len(all.Missing) != 1 || all.Missing[0].Node != "t3" {
		t.Errorf("%d nodes gave their records, and missing are %v; want three, and t3", len(all.Records), all.Missing)
	}
}
