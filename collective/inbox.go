package collective

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/musterml/muster/internal/id"
)

// InboxKey is the key under which the connections of one ring meet: use it as the topic on the port, too.
func InboxKey(run string, view id.View) string { return fmt.Sprintf("%s/view-%d", run, uint64(view)) }

// Inbox matches connections that have come with joins that want them. A trainer may learn of a view before its
// neighbour does: the neighbour's connection then waits here, for a while. One key has one connection, the latest:
// there is only one previous rank, and when it dials again it has given up the connection before.
type Inbox struct {
	keep  time.Duration
	limit int

	mu      sync.Mutex
	closed  bool
	turn    uint64
	parked  map[string]*parked
	waiting map[string][]chan net.Conn // capacity one each
}

type parked struct {
	conn  net.Conn
	turn  uint64 // of delivery
	timer *time.Timer
}

// Defaults of NewInbox.
const (
	DefaultInboxKeep  = 5 * time.Second
	DefaultInboxLimit = 64
)

// NewInbox makes an inbox that keeps at most limit connections, each for at most keep; zero means the default.
func NewInbox(keep time.Duration, limit int) *Inbox {
	if keep <= 0 {
		keep = DefaultInboxKeep
	}
	if limit <= 0 {
		limit = DefaultInboxLimit
	}
	return &Inbox{
		keep: keep, limit: limit,
		parked: make(map[string]*parked), waiting: make(map[string][]chan net.Conn),
	}
}

// Deliver hands over a connection; the inbox owns it from now on. It never blocks.
func (b *Inbox) Deliver(key string, conn net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		_ = conn.Close()
		return
	}
	if w := b.waiting[key]; len(w) > 0 {
		b.unwait(key, w[0])
		w[0] <- conn
		return
	}
	b.drop(key)
	if len(b.parked) >= b.limit {
		oldest := ""
		for k, p := range b.parked {
			if oldest == "" || p.turn < b.parked[oldest].turn {
				oldest = k
			}
		}
		b.drop(oldest)
	}
	b.turn++
	p := &parked{conn: conn, turn: b.turn}
	p.timer = time.AfterFunc(b.keep, func() { b.expire(key, p) })
	b.parked[key] = p
}

// Accept returns the connection of this key, waiting for it until ctx ends or the inbox is closed.
func (b *Inbox) Accept(ctx context.Context, key string) (net.Conn, error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil, ErrClosed
	}
	if p := b.parked[key]; p != nil {
		p.timer.Stop()
		delete(b.parked, key)
		b.mu.Unlock()
		return p.conn, nil
	}
	mine := make(chan net.Conn, 1)
	b.waiting[key] = append(b.waiting[key], mine)
	b.mu.Unlock()
	select {
	case conn := <-mine:
		if conn == nil {
			return nil, ErrClosed
		}
		return conn, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	b.unwait(key, mine)
	b.mu.Unlock()
	select {
	case conn := <-mine: // delivered at the same moment: a connection has an owner, always
		if conn != nil {
			_ = conn.Close()
		}
	default:
	}
	return nil, context.Cause(ctx)
}

// Close closes every parked connection, and ends every Accept with ErrClosed.
func (b *Inbox) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for key := range b.parked {
		b.drop(key)
	}
	for key, w := range b.waiting {
		for _, c := range w {
			close(c)
		}
		delete(b.waiting, key)
	}
	return nil
}

func (b *Inbox) expire(key string, p *parked) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.parked[key] == p {
		b.drop(key)
	}
}

func (b *Inbox) drop(key string) {
	if p := b.parked[key]; p != nil {
		p.timer.Stop()
		_ = p.conn.Close()
		delete(b.parked, key)
	}
}

func (b *Inbox) unwait(key string, c chan net.Conn) {
	w := b.waiting[key]
	for i := range w {
		if w[i] == c {
			w = append(w[:i:i], w[i+1:]...)
			break
		}
	}
	if len(w) == 0 {
		delete(b.waiting, key)
	} else {
		b.waiting[key] = w
	}
}
