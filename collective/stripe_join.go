package collective

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"

	"github.com/musterml/muster/internal/pacing"
)

// How a link gets its stripes: once its two ranks have agreed over the first connection, the dialing one opens the others,
// one after another because an inbox keeps one connection, and waits for an answer on each. A token, told over the first
// one, says of which attempt to join they are.

const tokenSize = 8

func newToken() []byte {
	token := make([]byte, tokenSize)
	_, _ = rand.Read(token) // never fails
	return token
}

func (r *Ring) dialStripes(ctx context.Context, l *link, token []byte) error {
	return r.bundle(l, func(number int) (net.Conn, error) {
		conn, err := r.cfg.Dial(ctx, l.peer)
		if err != nil {
			return nil, err
		}
		return conn, bounded(ctx, conn, func() error {
			if err := r.writeStripe(conn, number, token); err != nil {
				return err
			}
			_, err := r.readStripe(l, conn, number)
			return err
		})
	})
}

// acceptStripes is the other side.
func (r *Ring) acceptStripes(ctx context.Context, l *link, token []byte) error {
	return r.bundle(l, func(number int) (net.Conn, error) {
		soon, cancel := context.WithTimeout(ctx, 2*r.cfg.DeadAfter)
		defer cancel()
		conn, err := r.cfg.Accept(soon)
		if err != nil {
			return nil, err
		}
		return conn, bounded(soon, conn, func() error {
			text, err := r.readStripe(l, conn, number)
			if err == nil && !bytes.Equal(text, token) {
				err = fmt.Errorf("%w: it is of another attempt", ErrProtocol)
			}
			if err != nil {
				return err
			}
			return r.writeStripe(conn, number, nil)
		})
	})
}

// bundle opens the stripes of a link, and makes one connection of them and the first.
func (r *Ring) bundle(l *link, open func(number int) (net.Conn, error)) error {
	conns := []net.Conn{l.conn}
	for number := 1; number < r.cfg.Stripes; number++ {
		conn, err := open(number)
		if conn != nil {
			conns = append(conns, conn)
		}
		if err != nil {
			for _, c := range conns[1:] {
				_ = c.Close()
			}
			return fmt.Errorf("stripe %d: %w", number, err)
		}
		pacing.Unpace(conn)
	}
	b := newBundle(conns, func() { l.heard.Store(l.clock()) })
	l.conn, l.out.conn = b, b
	return nil
}

func (r *Ring) writeStripe(conn net.Conn, number int, token []byte) error {
	h := r.hello(kindStripe)
	h.hop, h.length = uint16(number), uint32(len(token))
	b := make([]byte, headerSize, headerSize+tokenSize)
	h.put((*[headerSize]byte)(b))
	_, err := conn.Write(append(b, token...))
	return err
}

// readStripe reads no byte more: the first chunk may follow.
func (r *Ring) readStripe(l *link, conn net.Conn, number int) (token []byte, err error) {
	var h header
	var b [headerSize]byte
	if _, err = io.ReadFull(conn, b[:]); err != nil {
		return nil, err
	}
	if err = h.parse(&b); err != nil {
		return nil, err
	}
	token = make([]byte, h.length)
	if _, err = io.ReadFull(conn, token); err != nil {
		return nil, err
	}
	if err = r.judgeHello(l, &h, kindStripe); err == nil && int(h.hop) != number {
		err = fmt.Errorf("%w: stripe %d instead of %d", ErrProtocol, h.hop, number)
	}
	return token, err
}
