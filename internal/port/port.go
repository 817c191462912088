package port

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/musterml/muster/internal/logadapt"
	"github.com/rs/zerolog"
)

// Handler serves one accepted connection in a goroutine of its own and owns
// it: it closes it, or hands it on to somebody who does. It must return soon
// after the connection fails, because Close waits for it; a connection that it
// has handed on is no longer the port's to close.
type Handler func(conn net.Conn, from Peer)

// Port is one node's listener. All its methods may be called concurrently.
type Port struct {
	cfg      Config
	log      zerolog.Logger
	identity *identity // nil without a key
	addr     string    // advertised
	tcp      listener
	udp      *net.UDPConn
	quiet    *logadapt.Throttle

	ctx    context.Context // ends when Close begins
	cancel context.CancelFunc
	wg     sync.WaitGroup // the accept loop, handshakes and handlers

	mu       sync.Mutex
	closed   bool
	handlers map[Protocol]map[string]*registration
	// conns are the accepted connections in handshake or in the hands of a
	// handler that has not returned; opening counts those in handshake.
	conns   map[net.Conn]struct{}
	opening int
}

type registration struct{ handle Handler }

// listener is *net.TCPListener, but for tests that make it fail.
type listener interface {
	AcceptTCP() (*net.TCPConn, error)
	Close() error
}

// maxOpening bounds how many strangers are listened to at a time: real peers
// are through within a round trip, so only a flood gets here.
const maxOpening = 1024

// Listen opens the port and begins to accept. Connections to topics that are
// not handled yet are refused with ErrNoTopic.
func Listen(cfg Config) (*Port, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	identity, err := newIdentity(cfg.Key)
	if err != nil {
		return nil, err
	}
	tcp, udp, err := bind(cfg.Listen)
	if err != nil {
		return nil, err
	}
	bound, ok := tcp.Addr().(*net.TCPAddr)
	if !ok {
		return nil, errors.Join(errors.New("listen: no TCP address"), tcp.Close(), udp.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	lookup, done := context.WithTimeout(ctx, dialTimeout)
	addr, err := advertise(lookup, &cfg, bound)
	done()
	if err != nil {
		cancel()
		return nil, errors.Join(err, tcp.Close(), udp.Close())
	}
	p := &Port{
		cfg: cfg, log: cfg.Log, identity: identity, addr: addr, tcp: cfg.wrap(tcp), udp: udp,
		quiet: logadapt.NewThrottle(time.Minute, time.Now),
		ctx:   ctx, cancel: cancel,
		handlers: make(map[Protocol]map[string]*registration),
		conns:    make(map[net.Conn]struct{}),
	}
	p.wg.Go(p.accept)
	return p, nil
}

// bind gets a TCP listener and a UDP socket of the same number.
func bind(listen string) (*net.TCPListener, *net.UDPConn, error) {
	const tries = 32 // for port 0: a number free for TCP may be taken for UDP
	var err error
	for range tries {
		var tcp *net.TCPListener
		var udp *net.UDPConn
		tcp, udp, err = bindOnce(listen)
		if err == nil {
			return tcp, udp, nil
		}
		if _, port, _ := net.SplitHostPort(listen); port != "0" {
			break
		}
	}
	return nil, nil, err
}

func bindOnce(listen string) (*net.TCPListener, *net.UDPConn, error) {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, nil, bindError("TCP", listen, err)
	}
	tcp, ok := l.(*net.TCPListener)
	bound, ok2 := l.Addr().(*net.TCPAddr)
	if !ok || !ok2 {
		return nil, nil, errors.Join(fmt.Errorf("listen: %s is no TCP address", listen), l.Close())
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: bound.IP, Port: bound.Port, Zone: bound.Zone})
	if err != nil {
		return nil, nil, errors.Join(bindError("UDP", listen, err), tcp.Close())
	}
	return tcp, udp, nil
}

func bindError(network, listen string, err error) error {
	var address *net.AddrError
	switch {
	case errors.As(err, &address):
		return fmt.Errorf("listen: %s is no address: give HOST:PORT, with a port of at most 65535: %w", listen, err)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen: port %s is taken for %s, perhaps by another muster node on this host; stop that or choose another port: %w", listen, network, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen: %s is not an address of this host; name one of its own, or 0.0.0.0 for all: %w", listen, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen: no permission for port %s; choose one above 1023: %w", listen, err)
	}
	return fmt.Errorf("listen: %s: %w", listen, err)
}

// Addr is the advertised host:port.
func (p *Port) Addr() string { return p.addr }

// PacketConn is the UDP socket of the same number. Close closes it.
func (p *Port) PacketConn() net.PacketConn { return p.udp }

// Network is what the protocols need of a Port, so that tests can run them without one.
type Network interface {
	Handle(proto Protocol, topic string, h Handler) (remove func())
	Dial(ctx context.Context, addr string, proto Protocol, topic string) (net.Conn, error)
}

var _ Network = (*Port)(nil)

// Handle registers h for a topic of proto; the topic "" stands for every topic
// of proto that is not registered itself. A later registration of the same
// topic replaces the earlier one, whose remove then does nothing. Connections
// that h already serves are not ended by remove.
func (p *Port) Handle(proto Protocol, topic string, h Handler) (remove func()) {
	r := &registration{handle: h}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.handlers[proto] == nil {
		p.handlers[proto] = make(map[string]*registration)
	}
	p.handlers[proto][topic] = r
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.handlers[proto][topic] == r {
			delete(p.handlers[proto], topic)
		}
	}
}

func (p *Port) handler(proto Protocol, topic string) Handler {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.handlers[proto][topic]; r != nil {
		return r.handle
	}
	if r := p.handlers[proto][""]; r != nil {
		return r.handle
	}
	return nil
}

// Close stops listening, ends pending Dials and every accepted connection whose
// handler still runs, and waits for the handlers. It must not be called from one.
func (p *Port) Close() error {
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	conns := make([]net.Conn, 0, len(p.conns))
	for conn := range p.conns {
		conns = append(conns, conn)
	}
	p.mu.Unlock()
	p.cancel()
	var err error
	if first {
		err = errors.Join(p.tcp.Close(), p.udp.Close())
		for _, conn := range conns {
			// The handler may have been quicker; that it is closed is all we want.
			_ = conn.Close()
		}
	}
	p.wg.Wait()
	return err
}

// enter starts to track an accepted connection; false when it is one too many
// or the port is closing.
func (p *Port) enter(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.opening >= maxOpening {
		return false
	}
	p.conns[conn] = struct{}{}
	p.opening++
	p.wg.Add(1)
	return true
}

// opened marks the end of a connection's handshake.
func (p *Port) opened() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opening--
}

// leave ends the tracking of conn, whose handler has returned.
func (p *Port) leave(conn net.Conn) {
	p.mu.Lock()
	delete(p.conns, conn)
	p.mu.Unlock()
	p.wg.Done()
}
