package collective

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterml/muster/internal/flight"
)

// recorded joins a ring in memory whose ranks have recorders.
func recorded(t *testing.T, m *memNet, world int) ([]*Ring, []*flight.Recorder) {
	recorders := make([]*flight.Recorder, world)
	rings := joinAll(t, world, func(rank int) Config {
		c := m.config(rank, world)
		recorders[rank] = flight.New(64)
		c.Flight = recorders[rank]
		return c
	})
	return rings, recorders
}

// Whoever comes late is the one that its neighbours' records name, and for how long.
func TestRecordNamesTheLateRank(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		synctest.Test(t, func(t *testing.T) {
			const world, late, n = 4, 2, 4000
			rings, recorders := recorded(t, newMemNet(1<<20).by(w), world)
			defer closeAll(rings)
			errs := onAll(rings, func(i int, r *Ring) error {
				if i == late {
					<-time.After(300 * time.Millisecond)
				}
				return r.AllReduce(bg, Op{Step: 7, Bucket: 3}, Int32s(make([]int32, n)), SumInt32)
			})
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			for i, rec := range recorders {
				spans := rec.Spans()
				if len(spans) != 1 {
					t.Fatalf("rank %d has %d spans, not 1", i, len(spans))
				}
				s := spans[0]
				if s.What != "AllReduce" || s.Of != "SumInt32" || s.Step != 7 || s.Bucket != 3 || s.Bytes != 4*n || s.Track != flight.Ring {
					t.Errorf("rank %d recorded %+v", i, s)
				}
				took := time.Duration(s.End - s.Begin)
				if s.Data > took || s.Reduced > took || i != late && (s.Data <= 0 || w.small != (s.Reduced == 0)) {
					t.Errorf("rank %d: data after %v, reduced after %v of %v", i, s.Data, s.Reduced, took)
				}
				neighbour := i == late-1 || i == late+1
				if neighbour && (s.Peer != nodeName(late) || s.Waited < 299*time.Millisecond) {
					t.Errorf("rank %d waited %v for %s, not 300ms for %s", i, s.Waited, s.Peer, nodeName(late))
				}
				if i == late && s.Waited > 10*time.Millisecond {
					t.Errorf("the late rank waited %v for %s", s.Waited, s.Peer)
				}
			}
		})
	})
}

// The operation that a frozen peer stops is in the record, with its error and with whom it waited for.
func TestRecordOfAFailure(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		synctest.Test(t, func(t *testing.T) {
			const world, frozen = 3, 1
			m := newMemNet(1 << 20).by(w)
			rings, recorders := recorded(t, m, world)
			defer closeAll(rings)
			m.freeze(nodeName(frozen))
			errs := onAll(rings, func(i int, r *Ring) error {
				if i == frozen {
					return nil // memory goes on without the connection; a process that stands still calls nothing
				}
				return r.AllReduce(bg, Op{Step: 1}, Int32s(make([]int32, 4000)), SumInt32)
			})
			for i, rec := range recorders {
				if i == frozen {
					continue
				}
				s := rec.Spans()[0]
				if errs[i] == nil || s.Err != errs[i] || s.End == 0 {
					t.Errorf("rank %d returned %v and recorded %v", i, errs[i], s.Err)
				}
				if s.Peer != nodeName(frozen) || s.Waited < DefaultDeadAfter/2 {
					t.Errorf("rank %d waited %v for %s", i, s.Waited, s.Peer)
				}
			}
		})
	})
}
