package collective

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// delayed is a connection through a proxy that gives on every byte, in both directions, after so long.
func delayed(to net.Conn, delay time.Duration) net.Conn {
	near, far := net.Pipe()
	go lag(to, far, delay)
	go lag(far, to, delay)
	return near
}

// lag copies from one connection to the other and closes both at the end.
func lag(to, from net.Conn, delay time.Duration) {
	type piece struct {
		due  time.Time
		data []byte
	}
	wire := make(chan piece, 1<<10) // as much as may be on the way
	go func() {
		defer close(wire)
		for {
			b := make([]byte, 64<<10)
			n, err := from.Read(b)
			if n > 0 {
				wire <- piece{time.Now().Add(delay), b[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range wire {
		<-time.After(time.Until(p.due))
		if _, err := to.Write(p.data); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			break
		}
	}
	_, _ = to.Close(), from.Close()
	for range wire { // lets the reader end
	}
}

// Over a way of 20 ms all operations are right, nobody is taken for dead, and the short way pays for its hops only.
func TestLongWay(t *testing.T) {
	const delay = 20 * time.Millisecond
	for _, world := range []int{2, 4} {
		configs := tcpConfigs(t, world)
		rings := joinAll(t, world, func(rank int) Config {
			c := configs(rank)
			dial := c.Dial
			c.Dial = func(ctx context.Context, to Peer) (net.Conn, error) {
				conn, err := dial(ctx, to)
				if err != nil {
					return nil, err
				}
				return delayed(conn, delay), nil
			}
			return c
		})
		begin := time.Now()
		if err := errors.Join(onAll(rings, func(_ int, r *Ring) error { return r.Barrier(bg, Op{}) })...); err != nil {
			t.Fatal(err)
		}
		took := time.Since(begin)
		if took < delay*time.Duration(world/2) {
			t.Errorf("world %d: a barrier took %v, less than its way", world, took)
		}
		t.Logf("world %d: a barrier took %v over ways of %v", world, took, delay)
		checkAll(t, rings, 1000, 1)
		checkAll(t, rings, 1_000_003, 2)
		closeAll(rings)
	}
}
