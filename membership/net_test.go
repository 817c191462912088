package membership

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/internal/raftgroup"
	pb "github.com/musterml/muster/proto"
)

// What the tests with real ports on loopback share. Every node of theirs is a struct
// host: a port, gossip and, for a server, its part in founding and coordinator.

// eventually polls until ok, because what other processes do can only be waited for.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited too long for %s", what)
		case <-tick.C:
		}
	}
}

// never polls for a while and fails when ok becomes true.
func never(t testing.TB, what string, within time.Duration, ok func() bool) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok() {
			t.Fatal(what)
		}
		select {
		case <-deadline:
			return
		case <-tick.C:
		}
	}
}

type host struct {
	t      testing.TB
	name   id.Node
	port   *port.Port
	dir    string
	meta   *pb.NodeMeta
	gossip *Gossip
	once   sync.Once

	coordinator *Coordinator
	life        *life
}

// life runs what lives as long as a host.
type life struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func openPort(name id.Node, key []byte, listen string) (*port.Port, error) {
	return port.Listen(port.Config{
		Listen: listen, Node: name, Cluster: "test", Version: "v1", Job: [32]byte{1}, Key: key, Log: zerolog.Nop(),
	})
}

// newHost starts a node that gossips; it is stopped at the end of the test.
func newHost(t testing.TB, name id.Node, server bool) *host {
	t.Helper()
	return newLife(t, name, id.Incarnation(name)+"-1", server, "127.0.0.1:0")
}

func newLife(t testing.TB, name id.Node, inc id.Incarnation, server bool, listen string) *host {
	t.Helper()
	p, err := openPort(name, nil, listen)
	if err != nil {
		t.Fatal(err)
	}
	// The folder is made before kill is registered, so that it outlives the replica in it.
	h := &host{t: t, name: name, port: p, dir: t.TempDir(), meta: &pb.NodeMeta{
		Incarnation: string(inc), Addr: p.Addr(), Server: server, Trainer: !server, Samples: &pb.Samples{Shape: []uint32{1, 2, 2}, Classes: 10},
	}}
	h.gossip, err = StartGossip(GossipConfig{Port: p, Node: name, Cluster: "test", Meta: h.meta, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.life = &life{ctx: ctx, cancel: cancel}
	t.Cleanup(h.kill)
	return h
}

// kill ends a host as a crash does: nobody is told.
func (h *host) kill() {
	h.once.Do(func() {
		h.life.cancel()
		h.life.wg.Wait()
		if h.coordinator != nil {
			if err := h.coordinator.Stop(); err != nil {
				h.t.Error(err)
			}
		}
		if err := h.gossip.list.Shutdown(); err != nil {
			h.t.Error(err)
		}
		if err := h.port.Close(); err != nil {
			h.t.Error(err)
		}
	})
}

func (h *host) join(seeds ...*host) {
	h.t.Helper()
	var addrs []string
	for _, s := range seeds {
		addrs = append(addrs, s.port.Addr())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.gossip.Join(ctx, addrs); err != nil {
		h.t.Error(err)
	}
}

// sees says whether gossip shows h so many living nodes.
func (h *host) sees(n int) bool {
	alive := 0
	for _, p := range h.gossip.Peers() {
		if p.Alive {
			alive++
		}
	}
	return alive == n
}

func (h *host) founder(servers int) *Founder {
	runs := 0
	return NewFounder(FoundingConfig{
		Port: h.port, Gossip: h.gossip, Self: h.meta, Node: h.name, Servers: servers, Job: []byte{1}, Log: zerolog.Nop(),
		NewRun: func() string { runs++; return fmt.Sprintf("run-of-%s-%d", h.name, runs) },
	})
}

func (h *host) replica() raftgroup.Replica {
	return raftgroup.Replica{Node: h.name, Incarnation: id.Incarnation(h.meta.Incarnation), Addr: h.port.Addr()}
}

// serve starts h's part in the coordinator of a founding.
func (h *host) serve(f *pb.Founding) {
	h.t.Helper()
	c, err := StartCoordinator(CoordinatorConfig{
		Founding: f, Self: h.replica(), Dir: h.dir, Port: h.port, Gossip: h.gossip, Shards: 4, Exact: true,
		Restore: func(context.Context) (id.Step, error) { return 0, nil }, Leave: func() {}, Log: zerolog.Nop(),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.coordinator = c
}

// cluster starts n servers that know each other and form a coordinator.
func cluster(t testing.TB, n int) []*host {
	t.Helper()
	var hosts []*host
	f := &pb.Founding{Run: "run"}
	for i := range n {
		h := newHost(t, id.Node(rune('a'+i)), true)
		if i > 0 {
			h.join(hosts[0])
		}
		hosts = append(hosts, h)
		f.Servers = append(f.Servers, &pb.Replica{Node: string(h.name), Incarnation: h.meta.Incarnation, Addr: h.port.Addr()})
	}
	for _, h := range hosts {
		h.serve(f)
	}
	return hosts
}

// leader waits for one of the hosts to lead, and to be ready for sessions.
func leader(t testing.TB, hosts []*host) *host {
	t.Helper()
	var found *host
	eventually(t, "a leader of the coordinator", func() bool {
		for _, h := range hosts {
			h.coordinator.mu.Lock()
			reigns := h.coordinator.reign != nil
			h.coordinator.mu.Unlock()
			if reigns {
				found = h
			}
		}
		return found != nil
	})
	return found
}
