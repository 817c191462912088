// Package still measures how much of the last seconds a process stood still: it was stopped, swapped out, or got no
// processor. Whoever is slow because of that cannot see it in what its work takes, as it is always so; so it looks at how late it wakes.
package still

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

const (
	tick   = 20 * time.Millisecond
	jitter = 20 * time.Millisecond // on a busy machine a process that is well waits so long for a processor
	window = 5 * time.Second       // after that long a share counts for a third
)

// Meter measures. Safe for concurrent use; the zero value is that of a process that never stood still.
type Meter struct{ share atomic.Uint64 }

// Share is how much of the last seconds, from 0 to 1.
func (m *Meter) Share() float64 { return math.Float64frombits(m.share.Load()) }

// Run measures until ctx ends.
func (m *Meter) Run(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		m.add(now.Sub(last))
		last = now
	}
}

// add notes that so much time has passed between two ticks.
func (m *Meter) add(passed time.Duration) {
	if passed <= 0 {
		return
	}
	late := float64(max(0, passed-tick-jitter)) / float64(passed)
	weight := 1 - math.Exp(-float64(passed)/float64(window))
	was := m.Share()
	m.share.Store(math.Float64bits(was + weight*(late-was)))
}
