package port

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	pb "github.com/musterml/muster/proto"
)

// Dial opens a connection to a topic of the port at addr. It ends with ctx, and
// after five seconds whatever ctx says. Errors to tell apart: *Refused (a person
// has to act), ErrNoTopic (try again), ErrNotMuster, the network's own.
func (p *Port) Dial(ctx context.Context, addr string, proto Protocol, topic string) (net.Conn, error) {
	return p.DialWithin(ctx, dialTimeout, addr, proto, topic)
}

// DialWithin is Dial where the host at addr, though not yet its process, must answer within that time.
func (p *Port) DialWithin(ctx context.Context, answer time.Duration, addr string, proto Protocol, topic string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	hello := &pb.Hello{
		WireVersion: wireVersion, Version: p.cfg.Version, Cluster: p.cfg.Cluster,
		Node: string(p.cfg.Node), Addr: p.addr, Topic: topic,
	}
	if p.cfg.Job != (jobDigest{}) {
		hello.Job = p.cfg.Job[:]
	}
	conn, err := dial(ctx, answer, p.identity, hello, addr, proto)
	if err != nil && p.ctx.Err() != nil {
		return nil, fmt.Errorf("dial %s: this node's port is closed: %w", addr, net.ErrClosed)
	}
	return conn, err
}

// ToolConfig is what a tool that is no node says of itself.
type ToolConfig struct {
	Cluster string // "" talks to any
	Version string
	Key     []byte
}

// DialTool is Dial for a program that has no port and no job (status, why).
// Nodes open Control to it and nothing else.
func DialTool(ctx context.Context, cfg ToolConfig, addr string, proto Protocol, topic string) (net.Conn, error) {
	if err := validKey(cfg.Key); err != nil {
		return nil, err
	}
	identity, err := newIdentity(cfg.Key)
	if err != nil {
		return nil, err
	}
	hello := &pb.Hello{WireVersion: wireVersion, Version: cfg.Version, Cluster: cfg.Cluster, Node: "a tool", Topic: topic}
	return dial(ctx, dialTimeout, identity, hello, addr, proto)
}

func dial(ctx context.Context, answer time.Duration, identity *identity, hello *pb.Hello, addr string, proto Protocol) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := net.Dialer{Timeout: answer}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	// From here on the context ends reads and writes through the deadline.
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	conn, err := greet(ctx, raw, identity, hello, addr, proto)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = raw.Close()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("dial %s: no welcome: %w", addr, context.Cause(ctx))
		}
		return nil, err
	}
	return conn, nil
}

// greet runs the dialing side of the opening.
func greet(ctx context.Context, raw net.Conn, identity *identity, hello *pb.Hello, addr string, proto Protocol) (net.Conn, error) {
	conn := raw
	if identity != nil {
		var err error
		if conn, err = identity.secure(ctx, tls.Client(raw, identity.config)); err != nil {
			return nil, keyError(addr, err)
		}
	}
	frame, err := pb.AppendMessage([]byte{byte(proto)}, hello)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(frame); err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		return nil, fmt.Errorf("dial %s: no welcome: %w", addr, err)
	}
	if first[0] != answerByte {
		return nil, fmt.Errorf("dial %s: %w", addr, ErrNotMuster)
	}
	var welcome pb.Welcome
	if err := pb.ReadMessage(conn, &welcome, maxHello); err != nil {
		return nil, fmt.Errorf("dial %s: no welcome: %w", addr, err)
	}
	switch welcome.GetRefusal() {
	case pb.Welcome_NONE:
		return conn, nil
	case pb.Welcome_NO_TOPIC:
		return nil, fmt.Errorf("dial %s: %w: %s", addr, ErrNoTopic, welcome.GetReason())
	}
	return nil, &Refused{Addr: addr, Reason: welcome.GetReason()}
}

// keyError explains a TLS handshake that failed on the dialing side.
func keyError(addr string, err error) error {
	var header tls.RecordHeaderError
	switch {
	case errors.Is(err, errKeyDiffers):
		return &Refused{Addr: addr, Reason: keyDiffers}
	case errors.As(err, &header) && header.RecordHeader[0] == answerByte:
		return &Refused{Addr: addr, Reason: acceptorNoKey}
	case errors.As(err, &header):
		return fmt.Errorf("dial %s: %w: %w", addr, ErrNotMuster, err)
	}
	return fmt.Errorf("dial %s: %w", addr, err)
}
