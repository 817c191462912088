package port

import (
	"sync"
	"time"
)

// throttle lets each key through once per period, so that a port scanner or a
// misconfigured node that tries for ever is named, not repeated.
type throttle struct {
	period time.Duration
	now    func() time.Time

	mu   sync.Mutex
	last map[string]time.Time // at most maxThrottled keys
}

const maxThrottled = 1024

func newThrottle(period time.Duration, now func() time.Time) *throttle {
	return &throttle{period: period, now: now, last: make(map[string]time.Time)}
}

// allow reports whether key may speak now. When more keys than fit are active,
// new ones stay silent: memory and log are both bounded.
func (t *throttle) allow(key string) bool {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if last, ok := t.last[key]; ok && now.Sub(last) < t.period {
		return false
	}
	if len(t.last) >= maxThrottled {
		for k, last := range t.last {
			if now.Sub(last) >= t.period {
				delete(t.last, k)
			}
		}
		if len(t.last) >= maxThrottled {
			return false
		}
	}
	t.last[key] = now
	return true
}
