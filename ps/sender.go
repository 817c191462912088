package ps

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"
)

// sender streams the leader's payloads to one follower, each while the client is still
// sending it, several side by side. Its queue is bounded in bytes:
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
	queue []transmission // in the order of the payloads' numbers
	bytes int64          // of the payloads in it, and of that which is being finished
	wake  chan struct{}  // capacity 1
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

// transmission is a payload in the queue, pinned once.
type transmission struct {
	p     *payload
	begun bool
	sent  int // bytes
}

// chunk is what of a payload is sent next: its bytes [from, to), and with growth other than growing its end.
type chunk struct {
	p        *payload
	begin    bool
	from, to int
	growth   growth
	crc      uint32
}

// chunkBytes is the most that is sent of one payload before it is the next one's turn.
const chunkBytes = 1 << 20

// offer queues the payload if there is room. The caller's own pin keeps it alive
// meanwhile.
func (s *sender) offer(p *payload) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes > 0 && s.bytes+p.size() > s.limit {
		return false
	}
	s.payloads.repin(p)
	s.queue = append(s.queue, transmission{p: p})
	s.bytes += p.size()
	poke(s.wake)
	return true
}

// next takes what can be sent now of the first payload of which anything can. None is passed over before it has
// begun, so they begin in order. With its end a payload leaves the queue and is the caller's to finish.
func (s *sender) next() (t chunk, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.queue {
		q := &s.queue[i]
		filled, growth := s.payloads.reach(q.p)
		if q.begun && q.sent == filled && growth == growing {
			continue
		}
		t = chunk{p: q.p, begin: !q.begun, from: q.sent, to: min(filled, q.sent+chunkBytes), growth: growth}
		switch {
		case growth == failed:
			t.to = t.from
		case t.to < filled:
			t.growth = growing
		}
		q.begun, q.sent = true, t.to
		if t.growth != growing {
			t.crc = q.p.crc
			s.queue = slices.Delete(s.queue, i, i+1)
		}
		return t, true
	}
	return chunk{}, false
}

func (s *sender) finished(p *payload) {
	s.mu.Lock()
	s.bytes -= p.size()
	s.mu.Unlock()
	s.payloads.release(p)
}

// drain drops everything queued.
func (s *sender) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.queue {
		s.bytes -= q.p.size()
		s.payloads.release(q.p)
	}
	clear(s.queue)
	s.queue = s.queue[:0]
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
		t, ok := s.next()
		if !ok {
			select {
			case <-s.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		err := w.chunk(conn, t, s.patience)
		if t.growth != growing {
			s.finished(t.p)
		}
		if err != nil {
			return
		}
	}
}
