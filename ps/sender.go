package ps

import (
	"context"
	"net"
	"sync"
	"time"
)

// sender streams the leader's payloads to one follower. Its queue is bounded in bytes:
// what finds no room, or is queued when the connection breaks, is dropped, and the
// follower fetches it when Raft shows it the entry. So a slow or dead follower costs the
// leader a bounded amount of memory and never any time.
type sender struct {
	to       endpoint
	payloads *payloads
	dial     dialFunc
	limit    int64
	patience time.Duration

	mu    sync.Mutex
	queue []*payload // each pinned once
	head  int        // queue[:head] is sent
	bytes int64
	wake  chan struct{} // capacity 1
	done  chan struct{}
	stop  context.CancelFunc
}

// redialPause keeps a sender to a dead follower from dialing in a tight loop.
const redialPause = 20 * time.Millisecond

func startSender(ctx context.Context, to endpoint, p *payloads, dial dialFunc, limit int64, patience time.Duration) *sender {
	ctx, stop := context.WithCancel(ctx)
	s := &sender{
		to: to, payloads: p, dial: dial, limit: limit, patience: patience,
		wake: make(chan struct{}, 1), done: make(chan struct{}), stop: stop,
	}
	go s.run(ctx)
	return s
}

// offer queues the payload if there is room. The caller's own pin keeps it alive
// meanwhile.
func (s *sender) offer(p *payload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes > 0 && s.bytes+p.size() > s.limit {
		return
	}
	s.payloads.repin(p)
	if s.head == len(s.queue) {
		s.queue, s.head = s.queue[:0], 0
	}
	s.queue = append(s.queue, p)
	s.bytes += p.size()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *sender) next() *payload {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.head == len(s.queue) {
		return nil
	}
	p := s.queue[s.head]
	s.queue[s.head] = nil
	s.head++
	return p
}

func (s *sender) finished(p *payload) {
	s.mu.Lock()
	s.bytes -= p.size()
	s.mu.Unlock()
	s.payloads.release(p)
}

// drain drops everything queued.
func (s *sender) drain() {
	for p := s.next(); p != nil; p = s.next() {
		s.finished(p)
	}
}

func (s *sender) close() {
	s.stop()
	<-s.done
}

func (s *sender) run(ctx context.Context) {
	defer close(s.done)
	defer s.drain()
	for ctx.Err() == nil {
		conn, err := s.connect(ctx)
		if err == nil {
			s.stream(ctx, conn)
			_ = conn.Close() // broken, or no longer wanted
		}
		s.drain()
		select {
		case <-ctx.Done():
		case <-time.After(redialPause):
		}
	}
}

func (s *sender) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	return s.dial(ctx, s.to.addr, s.to.topic)
}

// stream sends until the connection breaks or the sender is closed.
func (s *sender) stream(ctx context.Context, conn net.Conn) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var w payloadWriter
	if w.send(conn, frame{kind: frameOpen, id: payloadID{source: s.payloads.source}}, nil, s.patience) != nil {
		return
	}
	for {
		p := s.next()
		if p == nil {
			select {
			case <-s.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		err := w.store(conn, p, s.patience)
		s.finished(p)
		if err != nil {
			return
		}
	}
}
