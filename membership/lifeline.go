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

// A lifeline is a connection to a server, and of a server to every node. The
// kernel of a killed process closes it within a round trip, which tells the others of the
// death long before any timeout. One that breaks is dialled once more, so that a lost connection is not
// taken for a lost process. A host that falls silent closes nothing: between servers lifelines have a
// heartbeat (heartbeat.go). All this only shortens waits: Raft and the ring have deadlines of their own,
// and nothing unsafe follows from a wrong word.

const redialWithin = 200 * time.Millisecond

// lifelineTopic names one life of a process: its successor on the same port does not answer for it.
func lifelineTopic(inc id.Incarnation) string { return "lifeline/" + string(inc) }

// Lifelines watches the servers that gossip knows, on a server all nodes. It calls
// onGone for one that died, and onSilent whenever a server here or elsewhere hears less than before,
// with the question whether one does not hear another. Neither may wait for anything.
type Lifelines struct {
	port     *port.Port
	gossip   *Gossip
	self     id.Node
	server   bool
	onGone   func(id.Node, id.Incarnation)
	onSilent func(deaf func(who, to id.Node) bool)

	mu      sync.Mutex
	watched map[id.Incarnation]bool
	deaf    map[id.Node][]id.Node // by server: the servers that it says it does not hear, this one's own word among them
}

// NewLifelines answers the lifelines of others on p for the life self; Run holds its own.
func NewLifelines(p *port.Port, g *Gossip, self *pb.NodeMeta, onGone func(id.Node, id.Incarnation), onSilent func(deaf func(who, to id.Node) bool)) *Lifelines {
	inc := id.Incarnation(self.Incarnation)
	l := &Lifelines{
		server: self.Server, port: p, gossip: g, self: g.self, onGone: onGone, onSilent: onSilent,
		watched: map[id.Incarnation]bool{}, deaf: map[id.Node][]id.Node{},
	}
	p.Handle(port.Control, lifelineTopic(inc), func(conn net.Conn, _ port.Peer) {
		defer conn.Close()
		l.answer(conn) // until the other side or the port closes it
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
			l.hold(ctx, conn, p)
		case held && ctx.Err() == nil:
			l.onGone(p.Node, inc)
			return
		default:
			l.release(inc) // never reached; try again when gossip still knows it
			return
		}
	}
}

// hold returns when the connection has ended.
func (l *Lifelines) hold(ctx context.Context, conn net.Conn, p Peer) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if l.server && p.Meta.Server {
		l.beat(conn, p.Node)
		return
	}
	_, _ = io.Copy(io.Discard, conn) // nothing comes; it ends when the connection does
}

func (l *Lifelines) dial(ctx context.Context, addr string, inc id.Incarnation) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, redialWithin)
	defer cancel()
	return l.port.Dial(ctx, addr, port.Control, lifelineTopic(inc))
}
