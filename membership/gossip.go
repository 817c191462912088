package membership

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/logadapt"
	"github.com/musterml/muster/internal/port"
	pb "github.com/musterml/muster/proto"
)

// Peer is a node that gossip knows.
type Peer struct {
	Node  id.Node
	Meta  *pb.NodeMeta
	Alive bool
}

// elsewhere says that a node takes part in another run than this one; false where either is not known.
func (p *Peer) elsewhere(run string) bool { return run != "" && p.Meta.Run != "" && p.Meta.Run != run }

// GossipConfig says how a node takes part in gossip.
type GossipConfig struct {
	Port    *port.Port
	Node    id.Node
	Cluster string
	Key     []byte       // nil: gossip is not encrypted
	Meta    *pb.NodeMeta // what this node tells about itself
	Log     zerolog.Logger
}

// Gossip tells who is here (SWIM, by hashicorp/memberlist). It only suggests: what
// the run relies on is agreed through Raft. Safe for concurrent use.
type Gossip struct {
	list      *memberlist.Memberlist
	transport *gossipTransport
	self      id.Node

	log zerolog.Logger

	mu      sync.Mutex
	meta    []byte
	peers   map[id.Node]Peer
	joining bool  // a seed is being asked: whoever holds this node's name was here before
	fail    error // set when the cluster refuses this node's name
	gone    chan struct{}
	warned  map[string]bool // addresses of nodes whose name was taken
}

// StartGossip begins to answer gossip; Join makes the node known to others.
func StartGossip(cfg GossipConfig) (*Gossip, error) {
	g := &Gossip{self: cfg.Node, log: cfg.Log, peers: map[id.Node]Peer{}, warned: map[string]bool{}, gone: make(chan struct{})}
	if err := g.encode(cfg.Meta); err != nil {
		return nil, err
	}
	c := memberlist.DefaultLANConfig()
	c.Name = string(cfg.Node)
	c.Label = cfg.Cluster
	g.transport = newGossipTransport(cfg.Port)
	c.Transport = g.transport
	c.Delegate = (*gossipDelegate)(g)
	c.Conflict = (*gossipDelegate)(g)
	c.Events = (*gossipDelegate)(g)
	c.DeadNodeReclaimTime = time.Millisecond // a dead node may come back at another address
	c.Logger = logadapt.Std(cfg.Log)
	c.ProbeInterval, c.ProbeTimeout = 500*time.Millisecond, 250*time.Millisecond
	c.GossipInterval = 100 * time.Millisecond
	c.PushPullInterval = 5 * time.Second
	c.DisableTcpPings = false
	if cfg.Key != nil {
		c.SecretKey = port.GossipKey(cfg.Key)
	}
	list, err := memberlist.Create(c)
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	g.list = list
	return g, nil
}

// Join makes this node known through the seeds; one that answers is enough. It keeps
// trying until ctx ends, because the seeds may start later, but gives up at once when
// a seed refuses this node.
func (g *Gossip) Join(ctx context.Context, seeds []string) error {
	if len(seeds) == 0 {
		return nil
	}
	for {
		g.setJoining(true)
		_, err := g.list.Join(seeds)
		g.setJoining(false)
		if taken := g.Err(); taken != nil || err == nil {
			return taken
		}
		if refused := g.transport.refused.Load(); refused != nil {
			return refused
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gossip: none of %v answers: %w", seeds, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (g *Gossip) setJoining(v bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.joining = v
}

// SetMeta changes what this node tells about itself.
func (g *Gossip) SetMeta(m *pb.NodeMeta) error {
	if err := g.encode(m); err != nil {
		return err
	}
	// That nobody has taken it up yet is no error: the others hear of it with the next full
	// exchange.
	_ = g.list.UpdateNode(time.Second)
	return nil
}

func (g *Gossip) encode(m *pb.NodeMeta) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	if len(b) > memberlist.MetaMaxSize {
		return fmt.Errorf("gossip: the node's name and address make %d bytes of metadata, more than %d; use shorter ones", len(b), memberlist.MetaMaxSize)
	}
	g.mu.Lock()
	g.meta = b
	g.mu.Unlock()
	return nil
}

// Peers returns the nodes that gossip knows, this one among them, by name; the dead too.
func (g *Gossip) Peers() []Peer {
	g.mu.Lock()
	defer g.mu.Unlock()
	peers := make([]Peer, 0, len(g.peers))
	for _, p := range g.peers {
		peers = append(peers, p)
	}
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.Node, b.Node) })
	return peers
}

// Refused is closed when another living node holds this node's name; Err says so.
func (g *Gossip) Refused() <-chan struct{} { return g.gone }

// Err is the reason for Refused.
func (g *Gossip) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.fail
}

// Stop says goodbye to the others and ends gossip. When nobody hears the goodbye within
// the time, the others find out by themselves; that is no error. A node whose name is
// taken goes without a word: its goodbye would be taken for that of the other.
func (g *Gossip) Stop(within time.Duration) error {
	if g.Err() == nil {
		_ = g.list.Leave(within)
	}
	return g.list.Shutdown()
}

// gossipDelegate is memberlist's view of Gossip.
type gossipDelegate Gossip

func (d *gossipDelegate) NodeMeta(int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meta
}

func (d *gossipDelegate) NotifyMsg([]byte)                {}
func (d *gossipDelegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d *gossipDelegate) LocalState(bool) []byte          { return nil }
func (d *gossipDelegate) MergeRemoteState([]byte, bool)   {}

func (d *gossipDelegate) NotifyJoin(n *memberlist.Node)   { d.note(n, true) }
func (d *gossipDelegate) NotifyUpdate(n *memberlist.Node) { d.note(n, true) }
func (d *gossipDelegate) NotifyLeave(n *memberlist.Node)  { d.note(n, false) }

// note keeps a copy of what memberlist knows: its own nodes change under its own lock.
func (d *gossipDelegate) note(n *memberlist.Node, alive bool) {
	m := &pb.NodeMeta{}
	if proto.Unmarshal(n.Meta, m) != nil {
		return // another program's metadata; the port refuses such nodes anyway
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.peers[id.Node(n.Name)] = Peer{Node: id.Node(n.Name), Meta: m, Alive: alive}
}

// NotifyConflict is called when two living nodes claim one name. The newcomer must go:
// the one that learns it from the seeds that it asks. Everybody else only says so.
func (d *gossipDelegate) NotifyConflict(existing, other *memberlist.Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if id.Node(existing.Name) == d.self && d.joining {
		if d.fail == nil {
			d.fail = fmt.Errorf("the name %q is taken by the node at %s; give this node another --name", existing.Name, other.Address())
			close(d.gone)
		}
		return
	}
	if at := other.Address(); !d.warned[at] && d.fail == nil {
		d.warned[at] = true
		d.log.Warn().Msgf("refused the node at %s: the name %q is taken by the node at %s; give it another --name", at, existing.Name, existing.Address())
	}
}

// gossipTransport lets memberlist live on the node's one port: UDP packets on the same
// number, TCP streams behind the port's handshake.
type gossipTransport struct {
	port    *port.Port
	packets chan *memberlist.Packet
	streams chan net.Conn
	remove  func()
	done    chan struct{}
	readers sync.WaitGroup
	refused atomic.Pointer[port.Refused] // memberlist flattens the errors of Join to text
}

func newGossipTransport(p *port.Port) *gossipTransport {
	t := &gossipTransport{
		port: p, packets: make(chan *memberlist.Packet, 64), streams: make(chan net.Conn),
		done: make(chan struct{}),
	}
	t.remove = p.Handle(port.Gossip, "", func(conn net.Conn, _ port.Peer) {
		select {
		case t.streams <- conn:
		case <-t.done:
			conn.Close()
		}
	})
	t.readers.Go(t.read)
	return t
}

// read passes packets on until the port's UDP socket is closed or the transport shut.
func (t *gossipTransport) read() {
	buf := make([]byte, 65536)
	for {
		n, from, err := t.port.PacketConn().ReadFrom(buf)
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				return // Shutdown set a deadline
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of an earlier packet
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: time.Now()}
		select {
		case t.packets <- p:
		case <-t.done:
			return
		}
	}
}

func (t *gossipTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	addr, err := net.ResolveTCPAddr("tcp", t.port.Addr())
	if err != nil {
		return nil, 0, fmt.Errorf("gossip: the advertised address %s: %w", t.port.Addr(), err)
	}
	return addr.IP, addr.Port, nil
}

func (t *gossipTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("gossip: %w", err)
	}
	_, err = t.port.PacketConn().WriteTo(b, to)
	return time.Now(), err
}

func (t *gossipTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *gossipTransport) StreamCh() <-chan net.Conn           { return t.streams }

func (t *gossipTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := t.port.Dial(ctx, addr, port.Gossip, "")
	var refused *port.Refused
	if errors.As(err, &refused) {
		t.refused.Store(refused)
	}
	return conn, err
}

func (t *gossipTransport) Shutdown() error {
	close(t.done)
	t.remove()
	err := t.port.PacketConn().SetReadDeadline(time.Unix(1, 0))
	t.readers.Wait()
	return err
}
