package membership

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	pb "github.com/musterml/muster/proto"
)

// A lifeline is an idle connection to a server, and of a server to every node. The
// kernel of a killed process closes it within a round trip, which tells the others of the
// death long before any timeout. One that breaks is dialled once more, so that a lost connection is not
// taken for a lost process. It only shortens waits: a silent host is found by Raft's
// and the ring's own deadlines, and nothing unsafe follows from a wrong word.

const redialWithin = 200 * time.Millisecond

// lifelineTopic names one life of a process: its successor on the same port does not answer for it.
func lifelineTopic(inc id.Incarnation) string { return "lifeline/" + string(inc) }

// Lifelines watches the servers that gossip knows, on a server all nodes, and calls
// onGone for one that died.
type Lifelines struct {
	port   *port.Port
	gossip *Gossip
	self   id.Node
	server bool
	onGone func(id.Node, id.Incarnation)

	mu      sync.Mutex
	watched map[id.Incarnation]bool
}

// NewLifelines answers the lifelines of others on p for the life self; Run holds its own.
func NewLifelines(p *port.Port, g *Gossip, self *pb.NodeMeta, onGone func(id.Node, id.Incarnation)) *Lifelines {
	inc := id.Incarnation(self.Incarnation)
	l := &Lifelines{server: self.Server, port: p, gossip: g, self: g.self, onGone: onGone, watched: map[id.Incarnation]bool{}}
	p.Handle(port.Control, lifelineTopic(inc), func(conn net.Conn, _ port.Peer) {
		defer conn.Close()
		_, _ = io.Copy(io.Discard, conn) // until the other side or the port closes it
	})
	return l
}

// Run watches until ctx ends.
func (l *Lifelines) Run(ctx context.Context) {
	var watchers sync.WaitGroup
	defer watchers.Wait()
	for {
		for _, p := range l.gossip.Peers() {
			if p.Node == l.self || !l.server && !p.Meta.Server || !p.Alive || !l.claim(id.Incarnation(p.Meta.Incarnation)) {
				continue
			}
			watchers.Go(func() { l.watch(ctx, p) })
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// claim marks an incarnation as watched; false if it is already.
func (l *Lifelines) claim(inc id.Incarnation) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watched[inc] {
		return false
	}
	l.watched[inc] = true
	return true
}

func (l *Lifelines) release(inc id.Incarnation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.watched, inc)
}

// watch holds one lifeline until the process at its end is gone. An incarnation that
// is known to be dead stays claimed: gossip may call it alive for some seconds more.
func (l *Lifelines) watch(ctx context.Context, p Peer) {
	inc := id.Incarnation(p.Meta.Incarnation)
	held := false
	for ctx.Err() == nil {
		conn, err := l.dial(ctx, p.Meta.Addr, inc)
		switch {
		case err == nil:
			held = true
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			_, _ = io.Copy(io.Discard, conn)
			stop()
			conn.Close()
		case held && ctx.Err() == nil:
			l.onGone(p.Node, inc)
			return
		default:
			l.release(inc) // never reached; try again when gossip still knows it
			return
		}
	}
}

func (l *Lifelines) dial(ctx context.Context, addr string, inc id.Incarnation) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, redialWithin)
	defer cancel()
	return l.port.Dial(ctx, addr, port.Control, lifelineTopic(inc))
}
