package membership

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
)

func (h *host) watch() (gone chan id.Incarnation) {
	gone = make(chan id.Incarnation, 16)
	l := NewLifelines(h.port, h.gossip, h.meta, func(_ id.Node, inc id.Incarnation) { gone <- inc }, func(func(who, to id.Node) bool) {})
	h.life.wg.Go(func() { l.Run(h.life.ctx) })
	return gone
}

func TestALifelineTellsOfAKilledProcess(t *testing.T) {
	t.Parallel()
	a, b, c := newHost(t, "a", true), newHost(t, "b", true), newHost(t, "worker", false)
	b.join(a)
	c.join(a)
	gone := []chan id.Incarnation{a.watch(), c.watch()}
	// b answers lifelines itself, to know when they are held.
	var held atomic.Int32
	b.port.Handle(port.Control, lifelineTopic("b-1"), func(conn net.Conn, _ port.Peer) {
		defer conn.Close()
		held.Add(1)
		_, _ = io.Copy(io.Discard, conn)
	})
	eventually(t, "the lifelines to b", func() bool { return held.Load() == 2 })
	killed := time.Now()
	b.kill()
	for _, g := range gone {
		select {
		case inc := <-g:
			if inc != "b-1" {
				t.Errorf("%s is said to be gone", inc)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("nobody says that b is gone")
		}
	}
	t.Logf("told %v after the kill", time.Since(killed))
	never(t, "a death is told twice, or that of a trainer", 500*time.Millisecond, func() bool { return len(gone[0])+len(gone[1]) > 0 })
}

// A connection that breaks is dialled anew, and no death; nor is a node that was never reached.
func TestALostConnectionIsNoDeath(t *testing.T) {
	t.Parallel()
	a, b, late := newHost(t, "a", true), newHost(t, "b", true), newHost(t, "late", true)
	b.join(a)
	late.join(a) // it does not answer lifelines yet
	var dials atomic.Int32
	b.port.Handle(port.Control, lifelineTopic("b-1"), func(conn net.Conn, _ port.Peer) {
		defer conn.Close()
		if dials.Add(1) > 3 {
			_, _ = io.Copy(io.Discard, conn)
		}
	})
	gone := a.watch()
	eventually(t, "the lifeline to be dialled anew", func() bool { return dials.Load() == 4 })
	never(t, "a lost connection is taken for a death", 500*time.Millisecond, func() bool { return len(gone) > 0 })
	b.kill()
	eventually(t, "the death of b", func() bool { return len(gone) == 1 })
}
