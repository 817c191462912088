package ps

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/musterml/muster/internal/id"
)

// endpoint is one replica's side channel. The topic holds the incarnation, so that
// nothing meant for an earlier life of a node reaches a later one.
type endpoint struct {
	node        id.Node
	addr, topic string
}

type dialFunc func(ctx context.Context, addr, topic string) (net.Conn, error)

// fetcher asks other replicas for payloads, one connection kept for each. Only Raft's
// main goroutine fetches; close may come from another.
type fetcher struct {
	payloads   *payloads
	candidates func() []endpoint // the leader first; never this replica itself
	dial       dialFunc
	limit      int // bytes of the largest payload of the shard
	patience   time.Duration

	mu     sync.Mutex
	conns  map[endpoint]net.Conn
	closed bool

	writer payloadWriter
	head   [frameSize]byte
}

var errNotFound = errors.New("no replica has it")

// fetchBatch is how many payloads are asked for before the first answer is read.
const fetchBatch = 16

// fetch tries the candidates in turn until one has some of the payloads. The caller
// sees for itself what is still missing.
func (f *fetcher) fetch(ctx context.Context, refs []reference) error {
	err := errNotFound
	for _, to := range f.candidates() {
		got, e := f.from(ctx, to, refs)
		if got > 0 {
			return nil
		}
		if e != nil {
			err = e
		}
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

func (f *fetcher) from(ctx context.Context, to endpoint, refs []reference) (got int, err error) {
	conn, err := f.connect(ctx, to)
	if err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { f.drop(to, conn) })()
	for len(refs) > 0 {
		n := min(len(refs), fetchBatch)
		g, err := f.ask(conn, refs[:n])
		got += g
		if err != nil {
			f.drop(to, conn)
			return got, fmt.Errorf("fetch from %s at %s: %w", to.node, to.addr, err)
		}
		refs = refs[n:]
	}
	return got, nil
}

func (f *fetcher) ask(conn net.Conn, refs []reference) (got int, err error) {
	for _, r := range refs {
		if err := f.writer.send(conn, frame{kind: frameFetch, id: r.id}, nil, f.patience); err != nil {
			return got, err
		}
	}
	for range refs {
		if err := conn.SetReadDeadline(time.Now().Add(f.patience)); err != nil {
			return got, err
		}
		head, err := readFrame(conn, &f.head)
		if err != nil {
			return got, err
		}
		switch {
		case head.kind == frameMissing:
			continue
		case head.kind != frameStore || !contains(refs, head.id):
			return got, fmt.Errorf("ps: side channel: answer of kind %d for %v", head.kind, head.id)
		}
		p, err := f.payloads.receive(conn, head, f.limit, f.patience)
		if err != nil {
			return got, err
		}
		f.payloads.arrive(p, time.Now())
		got++
	}
	return got, nil
}

func (f *fetcher) connect(ctx context.Context, to endpoint) (net.Conn, error) {
	f.mu.Lock()
	conn, closed := f.conns[to], f.closed
	f.mu.Unlock()
	if closed {
		return nil, net.ErrClosed
	}
	if conn != nil {
		return conn, nil
	}
	ctx, cancel := context.WithTimeout(ctx, f.patience)
	defer cancel()
	conn, err := f.dial(ctx, to.addr, to.topic)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	if f.conns == nil {
		f.conns = map[endpoint]net.Conn{}
	}
	f.conns[to] = conn
	return conn, nil
}

func (f *fetcher) drop(to endpoint, conn net.Conn) {
	_ = conn.Close() // it failed already
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, to)
}

func (f *fetcher) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for to, conn := range f.conns {
		_ = conn.Close()
		delete(f.conns, to)
	}
}
