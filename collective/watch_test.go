package collective

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterml/muster/internal/id"
)

func TestPatience(t *testing.T) {
	p := patience{dead: 500}
	lost := func(heard int64) bool { return p.silence(heard) >= p.dead }
	for now := int64(50); now <= 500; now += 50 {
		if p.tick(now); lost(20) {
			t.Fatalf("lost at %d", now)
		}
	}
	if p.tick(550); !lost(20) || lost(100) {
		t.Fatal("silence of 530 must be death, of 450 not")
	}
	if p.tick(5000); lost(100) { // we stood still
		t.Fatal("judged before it could be heard")
	}
	for now := int64(5050); now < 5500; now += 50 {
		if p.tick(now); lost(100) {
			t.Fatalf("lost at %d", now)
		}
	}
	if p.tick(5500); !lost(100) {
		t.Fatal("never lost")
	}
}

// A packet is lost, and nothing behind it can be read for much longer than silence is death. The peer lives as long as something
// comes. One that is frozen meanwhile is lost as ever.
func TestLostPacket(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		if w.kind == lanes {
			t.Skip("within a host nothing is lost")
		}
		for _, dies := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				m := newMemNet(64 << 10).by(w)
				rings := joinAll(t, 2, func(rank int) Config { return m.config(rank, 2) })
				defer closeAll(rings)
				const gap = 3 * time.Second
				m.each("n1", func(p *memPipe) { p.gap = true })
				time.AfterFunc(gap, func() { m.each("n1", func(p *memPipe) { p.gap = false }) })
				if dies {
					time.AfterFunc(gap/2, func() { m.freeze("n1") })
				}
				begin := time.Now()
				errs := onAll(rings, func(_ int, r *Ring) error {
					return r.AllReduce(bg, Op{}, Int32s(make([]int32, 1000)), SumInt32)
				})
				took := time.Since(begin)
				lost := (*PeerError)(nil)
				switch err := errors.Join(errs...); {
				case !dies && err != nil:
					t.Errorf("after %v: %v", took, err)
				case dies && (!errors.As(errs[0], &lost) || lost.Peer != "n1"): // it loses the other likewise, and may be the first to hang up
					t.Error(errs[0])
				case dies && took > gap/2+2*DefaultDeadAfter:
					t.Errorf("named after %v", took)
				}
			})
		}
	})
}

// Over a long way a peer is given the time of a packet that is lost twice, in a local network not.
func TestSilenceOverLongWays(t *testing.T) {
	for name, c := range map[string]struct {
		first, then time.Duration // the shortest round trip
		rtt         time.Duration
		least, most time.Duration
	}{
		"near, queues":          {time.Millisecond, time.Millisecond, 90 * time.Millisecond, 350 * time.Millisecond, 500 * time.Millisecond},
		"near, full for long":   {time.Millisecond, 90 * time.Millisecond, 90 * time.Millisecond, 350 * time.Millisecond, 500 * time.Millisecond},
		"far":                   {40 * time.Millisecond, 40 * time.Millisecond, 40 * time.Millisecond, 710 * time.Millisecond, 860 * time.Millisecond},
		"far, and queues on it": {40 * time.Millisecond, 40 * time.Millisecond, 5 * time.Second, 1750 * time.Millisecond, 1900 * time.Millisecond},
	} {
		everyWay(t, func(t *testing.T, w way) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemNet(64 << 10).by(w)
				rings := joinAll(t, 2, func(rank int) Config { return m.config(rank, 2) })
				defer closeAll(rings)
				m.each("n1", func(p *memPipe) { p.state.RTT, p.state.Shortest = c.rtt, c.first })
				<-time.After(2 * DefaultHeartbeat)
				m.each("n1", func(p *memPipe) { p.state.Shortest = c.then })
				begin := time.Now()
				m.freeze(id.Node("n1"))
				err := rings[0].Barrier(bg, Op{})
				lost := (*PeerError)(nil) // the other loses this one likewise, and may be the first to hang up
				if took := time.Since(begin); !errors.As(err, &lost) || lost.Peer != "n1" || took < c.least || took > c.most {
					t.Errorf("%s: after %v: %v", name, took, err)
				}
			})
		})
	}
}
