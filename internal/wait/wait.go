// Package wait gives every wait a name. Whatever may block for long registers what it
// waits for and on whom, so that a running node can be asked why it does not go on.
package wait

import (
	"slices"
	"sync"
	"time"
)

// Wait is one thing waited for.
type Wait struct {
	What  string // "all-reduce of gradients, step 7"
	On    string // the node or server it depends on, "" when none is known
	Since time.Time
}

// Registry holds the waits of one node. Safe for concurrent use; the zero value is empty.
type Registry struct {
	mu    sync.Mutex
	next  uint64
	waits map[uint64]Wait
}

// Begin registers a wait and returns the function that ends it.
func (r *Registry) Begin(what, on string) (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waits == nil {
		r.waits = map[uint64]Wait{}
	}
	r.next++
	key := r.next
	r.waits[key] = Wait{What: what, On: on, Since: time.Now()}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.waits, key)
	}
}

// Snapshot returns the waits of this moment, the oldest first.
func (r *Registry) Snapshot() []Wait {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Wait, 0, len(r.waits))
	for _, w := range r.waits {
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b Wait) int { return a.Since.Compare(b.Since) })
	return out
}
