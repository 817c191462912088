package membership

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	pb "github.com/musterml/muster/proto"
)

func (h *host) peer(name id.Node) *Peer {
	for _, p := range h.gossip.Peers() {
		if p.Node == name {
			return &p
		}
	}
	return nil
}

func TestGossipTellsWhoIsHereAndWhatTheyAre(t *testing.T) {
	t.Parallel()
	a, b, c := newHost(t, "a", true), newHost(t, "b", true), newHost(t, "c", false)
	b.join(a)
	c.join(b)
	for _, h := range []*host{a, b, c} {
		eventually(t, "all to know each other", func() bool { return h.sees(3) })
	}
	if p := a.peer("c"); p.Meta.Addr != c.port.Addr() || p.Meta.Server || p.Meta.Incarnation != "c-1" {
		t.Errorf("a knows of c: %v", p.Meta)
	}
	b.meta.Run = "a-run"
	if err := b.gossip.SetMeta(b.meta); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the news of b", func() bool { return c.peer("b").Meta.Run == "a-run" })
	long := &pb.NodeMeta{Addr: strings.Repeat("x", 600)}
	if err := b.gossip.SetMeta(long); err == nil || !strings.Contains(err.Error(), "use shorter ones") {
		t.Errorf("too much metadata gives %v", err)
	}
	if err := c.gossip.Stop(time.Second); err != nil {
		t.Fatal(err)
	}
	c.once.Do(func() { _ = c.port.Close() })
	eventually(t, "c's goodbye", func() bool { return a.sees(2) && b.sees(2) })
}

// A node that dies without a word is found out, and may come back anywhere.
func TestGossipFindsTheDead(t *testing.T) {
	t.Parallel()
	a, b, c := newHost(t, "a", true), newHost(t, "b", true), newHost(t, "c", true)
	b.join(a)
	c.join(a)
	eventually(t, "all to know each other", func() bool { return a.sees(3) && b.sees(3) })
	c.kill()
	eventually(t, "the death of c", func() bool { return a.sees(2) && b.sees(2) })
	again := newLife(t, "c", "c-2", true, "127.0.0.1:0")
	again.join(a)
	for _, h := range []*host{a, b} {
		eventually(t, "the new life of c", func() bool { p := h.peer("c"); return p != nil && p.Alive && p.Meta.Incarnation == "c-2" })
	}
}

// The newcomer of two nodes with one name must go, whoever it asks first; the other stays.
func TestATakenName(t *testing.T) {
	t.Parallel()
	for _, seed := range []string{"the node itself", "another"} {
		t.Run(seed, func(t *testing.T) {
			t.Parallel()
			a, b := newHost(t, "a", true), newHost(t, "b", true)
			b.join(a)
			late := newLife(t, "a", "a-2", true, "127.0.0.1:0")
			through := a
			if seed == "another" {
				through = b
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := late.gossip.Join(ctx, []string{through.port.Addr()})
			if err == nil || !strings.Contains(err.Error(), "give this node another --name") || !strings.Contains(err.Error(), a.port.Addr()) {
				t.Fatalf("the newcomer joins with error %v", err)
			}
			select {
			case <-late.gossip.Refused():
			default:
				t.Error("the newcomer is not refused")
			}
			if err := late.gossip.Stop(100 * time.Millisecond); err != nil {
				t.Error(err)
			}
			late.once.Do(func() { _ = late.port.Close() })
			never(t, "the old node goes for the newcomer", time.Second, func() bool {
				return a.gossip.Err() != nil || b.peer("a").Meta.Incarnation != "a-1" || !b.peer("a").Alive
			})
		})
	}
}

func TestAWrongKeyIsRefused(t *testing.T) {
	t.Parallel()
	a := newHost(t, "a", true)
	key := []byte("sixteen bytes or more")
	p, err := openPort("b", key, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	meta := &pb.NodeMeta{Incarnation: "b-1", Addr: p.Addr()}
	g, err := StartGossip(GossipConfig{Port: p, Node: "b", Cluster: "test", Key: key, Meta: meta, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var refused *port.Refused
	if err := g.Join(ctx, []string{a.port.Addr()}); !errors.As(err, &refused) || !strings.Contains(err.Error(), "--key-file") {
		t.Errorf("a node with another key joins with error %v", err)
	}
	if err := errors.Join(g.Stop(100*time.Millisecond), p.Close()); err != nil {
		t.Error(err)
	}
	if !a.sees(1) {
		t.Error("a knows a node that has another key")
	}
}

func TestASeedThatNeverAnswers(t *testing.T) {
	t.Parallel()
	a, gone := newHost(t, "a", true), newHost(t, "gone", true)
	addr := gone.port.Addr()
	gone.kill()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := a.gossip.Join(ctx, []string{addr}); !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), addr) {
		t.Errorf("got %v", err)
	}
	if err := a.gossip.Join(t.Context(), nil); err != nil {
		t.Errorf("the first node of a cluster cannot start: %v", err)
	}
}
