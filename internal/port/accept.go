package port

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// accept runs until Close.
func (p *Port) accept() {
	const least, most = 5 * time.Millisecond, time.Second
	backoff := least
	for {
		conn, err := p.tcp.AcceptTCP()
		if err != nil {
			if p.ctx.Err() != nil {
				return
			}
			// Out of file descriptors, mostly: connections that wait in the backlog
			// are served once others have ended.
			if p.quiet.Allow("accept") {
				p.log.Warn().Err(err).Msg("cannot accept connections, will go on trying" + remedy(err))
			}
			select {
			case <-time.After(backoff):
			case <-p.ctx.Done():
				return
			}
			backoff = min(2*backoff, most)
			continue
		}
		backoff = least
		if !p.enter(conn) {
			_ = conn.Close() // nothing was said on it
			if p.ctx.Err() == nil && p.quiet.Allow("flood") {
				p.log.Warn().Stringer("from", conn.RemoteAddr()).Int("limit", maxOpening).
					Msg("too many connections open at a time without a hello; dropping new ones")
			}
			continue
		}
		go p.serve(conn)
	}
}

func remedy(err error) string {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return "; raise the limit of open files (ulimit -n)"
	}
	return ""
}

// serve opens one accepted connection and runs its handler.
func (p *Port) serve(raw *net.TCPConn) {
	defer p.leave(raw)
	conn, peer, handle, err := p.open(raw)
	p.opened()
	if err != nil {
		p.report(raw, peer, err)
		_ = raw.Close()
		return
	}
	handle(conn, peer)
}

// Why open gave up. The dialing side was told what refusal carries; the others
// are strangers, who are told nothing.
var (
	errGarbage = errors.New("not muster's protocol")
	errSilent  = errors.New("no hello in time")
)

type refusal struct {
	kind   pb.Welcome_Refusal
	reason string
}

func (r *refusal) Error() string { return r.reason }

// open reads the protocol byte and the Hello, and answers. The connection that
// it returns has no deadline, and nothing of it has been read beyond the Hello.
func (p *Port) open(raw *net.TCPConn) (net.Conn, Peer, Handler, error) {
	if err := raw.SetNoDelay(true); err != nil {
		return nil, Peer{}, nil, err
	}
	if err := raw.SetDeadline(time.Now().Add(p.cfg.handshake)); err != nil {
		return nil, Peer{}, nil, err
	}
	conn, first, err := p.openKey(raw)
	if err != nil {
		return nil, Peer{}, nil, err
	}
	proto := Protocol(first)
	if !proto.known() {
		return nil, Peer{}, nil, fmt.Errorf("%w: first byte 0x%02x", errGarbage, first)
	}
	var hello pb.Hello
	if err := pb.ReadMessage(conn, &hello, maxHello); err != nil {
		return nil, Peer{}, nil, garbage(err)
	}
	peer := Peer{Node: id.Node(hello.GetNode()), Addr: hello.GetAddr(), Topic: hello.GetTopic(), Tool: hello.GetAddr() == ""}
	handle, refused := p.judge(conn, proto, &hello)
	welcome := &pb.Welcome{WireVersion: wireVersion, Version: p.cfg.Version, Node: string(p.cfg.Node)}
	if refused != nil {
		welcome.Refusal, welcome.Reason = refused.kind, refused.reason
	}
	if err := answer(conn, welcome); err != nil {
		return nil, peer, nil, err
	}
	if refused != nil {
		linger(raw)
		return nil, peer, nil, refused
	}
	return conn, peer, handle, raw.SetDeadline(time.Time{})
}

// openKey reads the first byte and, with a key, runs TLS. It returns the
// connection to go on with and the protocol byte.
func (p *Port) openKey(raw *net.TCPConn) (net.Conn, byte, error) {
	var first [1]byte
	if _, err := io.ReadFull(raw, first[:]); err != nil {
		return nil, 0, garbage(err)
	}
	switch {
	case first[0] == tlsRecord && p.identity == nil:
		// A keyed node's TLS gives up on the answer byte and says why. Its records
		// are read so that closing does not reset the answer away.
		if err := answer(raw, &pb.Welcome{WireVersion: wireVersion, Refusal: pb.Welcome_MISMATCH}); err != nil {
			return nil, 0, err
		}
		linger(raw)
		return nil, 0, &refusal{kind: pb.Welcome_MISMATCH, reason: "it has a key, but this side has none; use the same --key-file on every node"}
	case first[0] != tlsRecord || p.identity == nil:
		return raw, first[0], nil
	}
	conn, err := p.identity.secure(p.ctx, tls.Server(&unread{Conn: raw, first: first[:]}, p.identity.config))
	if errors.Is(err, errKeyDiffers) {
		return nil, 0, &refusal{kind: pb.Welcome_MISMATCH, reason: keyDiffers}
	}
	if err != nil {
		return nil, 0, garbage(err)
	}
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		// The dialing side compares keys first and says nothing where they differ.
		return nil, 0, garbage(err)
	}
	return conn, first[0], nil
}

// judge finds the handler for a Hello or the reason to refuse it.
func (p *Port) judge(conn net.Conn, proto Protocol, hello *pb.Hello) (Handler, *refusal) {
	if _, secured := conn.(*tls.Conn); p.identity != nil && !secured {
		// Not a word more than this to somebody without the key.
		reason := fmt.Sprintf(dialerNoKeyFmt, p.cfg.Node, hello.GetNode())
		return nil, &refusal{kind: pb.Welcome_MISMATCH, reason: reason}
	}
	if reason := p.mismatch(proto, hello); reason != "" {
		return nil, &refusal{kind: pb.Welcome_MISMATCH, reason: reason}
	}
	handle := p.handler(proto, hello.GetTopic())
	if handle == nil {
		reason := fmt.Sprintf("%s does not handle %s topic %q", p.cfg.Node, proto, hello.GetTopic())
		return nil, &refusal{kind: pb.Welcome_NO_TOPIC, reason: reason}
	}
	return handle, nil
}

// answer writes the answer byte and the Welcome in one Write.
func answer(conn net.Conn, welcome *pb.Welcome) error {
	frame, err := pb.AppendMessage([]byte{answerByte}, welcome)
	if err != nil {
		return err
	}
	_, err = conn.Write(frame)
	return err
}

// linger waits a little for the other side to close first: a close with unread
// bytes sends a reset, which may destroy an answer that is still on its way.
func linger(raw *net.TCPConn) {
	const patience, most = 250 * time.Millisecond, 64 << 10
	if raw.CloseWrite() != nil || raw.SetReadDeadline(time.Now().Add(patience)) != nil {
		return // gone already
	}
	// Whatever still comes, and how it ends, is of no interest.
	_, _ = io.CopyN(io.Discard, raw, most)
}

// garbage sorts what went wrong before a Hello was complete.
func garbage(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %w", errSilent, err)
	case errors.Is(err, pb.ErrFrameTooLong), !isNetwork(err):
		return fmt.Errorf("%w: %w", errGarbage, err)
	}
	return err
}

// isNetwork tells a connection that broke from one that spoke nonsense.
func isNetwork(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// report logs why a connection was not opened, once a minute for each host and
// kind of trouble, as loud as a person should take it.
func (p *Port) report(raw *net.TCPConn, peer Peer, err error) {
	if p.ctx.Err() != nil {
		return // closing: every handshake fails
	}
	from := raw.RemoteAddr().String()
	host := hostOf(from)
	var refused *refusal
	switch {
	case errors.As(err, &refused) && refused.kind == pb.Welcome_NO_TOPIC:
		p.log.Debug().Str("from", from).Str("peer", string(peer.Node)).Msg(refused.reason)
	case errors.As(err, &refused):
		if p.quiet.Allow(host + " " + refused.reason) {
			p.log.Warn().Str("from", from).Str("peer", string(peer.Node)).Msg("refused a connection: " + refused.reason)
		}
	case errors.Is(err, errGarbage), errors.Is(err, errSilent):
		if p.quiet.Allow(host + " garbage") {
			p.log.Info().Str("from", from).Err(err).Msg("closed a connection that is not from a muster node")
		}
	default:
		p.log.Debug().Str("from", from).Err(err).Msg("connection ended before it was opened")
	}
}
