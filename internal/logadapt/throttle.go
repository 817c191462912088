package logadapt

import (
	"sync"
	"time"
)

// Throttle lets each key through once per period, so that what happens over
// and over is named, not repeated.
type Throttle struct {
	period time.Duration
	now    func() time.Time

	mu   sync.Mutex
	last map[string]time.Time // at most maxKeys
}

const maxKeys = 1024

// NewThrottle takes its clock from now (time.Now outside tests).
func NewThrottle(period time.Duration, now func() time.Time) *Throttle {
	return &Throttle{period: period, now: now, last: make(map[string]time.Time)}
}

// Allow reports whether key may speak now. When more keys than fit are active,
// new ones stay silent: memory and log are both bounded.
func (t *Throttle) Allow(key string) bool {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if last, ok := t.last[key]; ok && now.Sub(last) < t.period {
		return false
	}
	if len(t.last) >= maxKeys {
		for k, last := range t.last {
			if now.Sub(last) >= t.period {
				delete(t.last, k)
			}
		}
		if len(t.last) >= maxKeys {
			return false
		}
	}
	t.last[key] = now
	return true
}
