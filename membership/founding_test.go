package membership

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	pb "github.com/musterml/muster/proto"
)

// find runs Find on hosts that start in a random order, each through any that was there
// before, and returns what they found.
func find(t *testing.T, hosts []*host, servers int) []*pb.Founding {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	found := make([]*pb.Founding, len(hosts))
	var all sync.WaitGroup
	var there []*host
	for _, i := range rand.Perm(len(hosts)) {
		h := hosts[i]
		f := h.founder(servers)
		seeds := there[:len(there):len(there)]
		there = append(there, h)
		all.Go(func() {
			if len(seeds) > 0 {
				h.join(seeds...)
			}
			var err error
			if found[i], err = f.Find(ctx); err != nil {
				t.Errorf("%s: %v", h.name, err)
				return
			}
			h.meta.Run = found[i].Run
			if err := h.gossip.SetMeta(h.meta); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	return found
}

func TestServersFoundOneRun(t *testing.T) {
	for range 3 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			var hosts []*host
			for _, name := range []id.Node{"a", "b", "c", "d", "worker"} { // one server more than the job asks for
				hosts = append(hosts, newHost(t, name, name != "worker"))
			}
			found := find(t, hosts, 3)
			if t.Failed() {
				return
			}
			if len(found[0].Servers) != 3 || found[0].Samples.GetClasses() != 10 {
				t.Errorf("founded %v", found[0])
			}
			for i, f := range found {
				if !proto.Equal(f, found[0]) {
					t.Errorf("%s is in %v, %s in %v", hosts[i].name, f, hosts[0].name, found[0])
				}
			}
		})
	}
}

func founding(run string, hosts ...*host) *pb.Founding {
	f := &pb.Founding{Run: run, Time: 1, Job: []byte{1}}
	for _, h := range hosts {
		f.Servers = append(f.Servers, &pb.Replica{Node: string(h.name), Incarnation: h.meta.Incarnation, Addr: h.port.Addr()})
	}
	return f
}

// say sends a word about a pledge, as a founder does.
func say(t *testing.T, from, to *host, word *pb.Pledge) *pb.PledgeReply {
	t.Helper()
	var reply pb.PledgeReply
	if err := exchange(t.Context(), from.port, to.port.Addr(), pledgeTopic, word, &reply); err != nil {
		t.Fatal(err)
	}
	return &reply
}

func TestAPledgeBindsUntilReleased(t *testing.T) {
	t.Parallel()
	a, b, c := newHost(t, "a", true), newHost(t, "b", true), newHost(t, "c", true)
	c.founder(2)
	one, two := founding("one", a, c), founding("two", b, c)
	if r := say(t, a, c, &pb.Pledge{Founding: one}); !r.Yes {
		t.Fatalf("no pledge: %s", r.Why)
	}
	if r := say(t, b, c, &pb.Pledge{Founding: two}); r.Yes {
		t.Fatal("a server pledged itself twice")
	}
	if r := say(t, b, c, &pb.Pledge{Founding: two, Start: true}); r.Yes {
		t.Fatal("a server started a run that it is not pledged to")
	}
	older := founding("one", a, c)
	older.Time--
	say(t, a, c, &pb.Pledge{Founding: older, Release: true})
	if r := say(t, b, c, &pb.Pledge{Founding: two}); r.Yes {
		t.Fatal("the release of an older proposal of the founder, late, set the pledge to its newer one free")
	}
	say(t, a, c, &pb.Pledge{Founding: one, Release: true})
	if r := say(t, b, c, &pb.Pledge{Founding: two}); !r.Yes {
		t.Fatalf("a released server gives no pledge: %s", r.Why)
	}
	if r := say(t, b, c, &pb.Pledge{Founding: two, Start: true}); !r.Yes {
		t.Fatalf("a server does not start: %s", r.Why)
	}
	say(t, b, c, &pb.Pledge{Founding: two, Release: true})
	if r := say(t, a, c, &pb.Pledge{Founding: one}); r.Yes {
		t.Fatal("a server in a run pledged itself to another")
	}
	wrong := founding("two", b, c)
	wrong.Job = []byte{2}
	if r := say(t, b, c, &pb.Pledge{Founding: wrong}); r.Yes {
		t.Fatal("a server pledged itself to another job")
	}
	another := founding("three", a, b)
	if r := say(t, a, c, &pb.Pledge{Founding: another}); r.Yes {
		t.Fatal("a server pledged itself to a founding that does not name it")
	}
	if r := say(t, a, c, &pb.Pledge{}); r.Yes { // and is still there
		t.Fatal("a server pledged itself to nothing")
	}
}

// Two servers that do not see each other propose with a third one each.
func TestTwoFoundersCompete(t *testing.T) {
	t.Parallel()
	a, b, c := newHost(t, "a", true), newHost(t, "b", true), newHost(t, "c", true)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	fa, fb, fc := a.founder(2), b.founder(2), c.founder(2)
	ga, gb := founding("", a, c).Servers, founding("", b, c).Servers
	var both sync.WaitGroup
	for _, p := range []struct {
		f     *Founder
		group []*pb.Replica
	}{{fa, ga}, {fb, gb}} {
		both.Go(func() {
			for ctx.Err() == nil && fc.running() == "" {
				p.f.propose(ctx, p.group, &pb.Samples{Classes: 10})
			}
		})
	}
	both.Wait()
	run := fc.running()
	won := 0
	for _, f := range []*Founder{fa, fb} {
		switch f.running() {
		case run:
			won++
		case "":
		default:
			t.Errorf("c is in %s, a founder in %s", run, f.running())
		}
	}
	if won != 1 {
		t.Errorf("%d founders are in run %q", won, run)
	}
}

func (f *Founder) running() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.started.GetRun()
}

// A founder that dies with pledges in its hand does not hold those that gave them.
func TestFounderDiesBetweenPledgeAndStart(t *testing.T) {
	t.Parallel()
	a, b, c := newHost(t, "a", true), newHost(t, "b", true), newHost(t, "c", true)
	fb, fc := b.founder(2), c.founder(2)
	if r := say(t, a, c, &pb.Pledge{Founding: founding("dead", a, c)}); !r.Yes {
		t.Fatal(r.Why)
	}
	a.kill()
	b.join(c)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var found [2]*pb.Founding
	var both sync.WaitGroup
	for i, f := range []*Founder{fb, fc} {
		both.Go(func() { found[i], _ = f.Find(ctx) })
	}
	both.Wait()
	if found[0].GetRun() == "dead" || found[0] == nil || !proto.Equal(found[0], found[1]) {
		t.Errorf("b found %v, c %v", found[0], found[1])
	}
}

// A server that missed the word to start asks the founder before it takes its pledge back.
func TestTheWordToStartIsLost(t *testing.T) {
	t.Parallel()
	a, c := newHost(t, "a", true), newHost(t, "c", true)
	fa, fc := a.founder(2), c.founder(2)
	f := founding("run", a, c)
	say(t, a, c, &pb.Pledge{Founding: f})
	fa.start(f)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	found, err := fc.Find(ctx) // gossip knows of nobody
	if err != nil || found.Run != "run" {
		t.Errorf("found %v, %v", found, err)
	}
}

// What comes from the port is not always what a founder sends.
func TestFoundingHearsGarbage(t *testing.T) {
	t.Parallel()
	a, b := newHost(t, "a", true), newHost(t, "b", true)
	b.founder(2)
	for _, topic := range []string{pledgeTopic, foundingTopic} {
		conn, err := a.port.Dial(t.Context(), b.port.Addr(), port.Control, topic)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte{255, 255, 255, 255, 1, 2, 3})
		conn.Close()
	}
	if r := say(t, a, b, &pb.Pledge{Founding: founding("run", a, b)}); !r.Yes {
		t.Errorf("no pledge after garbage: %s", r.Why)
	}
}
