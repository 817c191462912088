// Package wait gives every wait a name. Whatever may block for long registers what it
// waits for and on whom, so that a running node can be asked why it does not go on.
// Long work registers too: what one node works at is what others wait for.
package wait

import (
	"slices"
	"sync"
	"time"
)

// Wait is one thing waited for, or worked at.
type Wait struct {
	What   string // the same every time: "the all-reduce"
	Of     string // which one: "step 7"; may be empty
	Detail string // what is known beyond that, of this moment
	On     string // the node, "ring", "servers" or "coordinator" that it depends on; "" when none is known
	Work   bool   // nothing is waited for: the node itself is busy with it
	Since  time.Time
	Usual  time.Duration // what a wait of this What has lasted lately; 0 before the first has ended
}

// Ask tells, at any moment, what more is known of a wait under way: of which node, and
// what exactly. ok is false when there is nothing to tell.
type Ask func() (detail, on string, ok bool)

// Registry holds the waits of one node. Safe for concurrent use; the zero value is empty.
type Registry struct {
	mu    sync.Mutex
	next  uint64
	waits map[uint64]pending
	usual map[string]time.Duration // by What
}

type pending struct {
	Wait
	ask Ask // may be nil
}

// Begin registers a wait and returns the function that ends it.
func (r *Registry) Begin(what, of, on string) (end func()) {
	return r.add(pending{Wait: Wait{What: what, Of: of, On: on}})
}

// Follow is Begin for a wait whose cause changes while it lasts; on is what it depends
// on as long as ask has nothing to tell.
func (r *Registry) Follow(what, of, on string, ask Ask) (end func()) {
	return r.add(pending{Wait: Wait{What: what, Of: of, On: on}, ask: ask})
}

// Work registers that the node is busy, and returns the function that ends it.
func (r *Registry) Work(what, of string) (end func()) {
	return r.add(pending{Wait: Wait{What: what, Of: of, Work: true}})
}

func (r *Registry) add(p pending) (end func()) {
	p.Since = time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waits == nil {
		r.waits, r.usual = map[uint64]pending{}, map[string]time.Duration{}
	}
	r.next++
	key := r.next
	r.waits[key] = p
	return func() { r.end(key) }
}

func (r *Registry) end(key uint64) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.waits[key]
	if !ok {
		return
	}
	delete(r.waits, key)
	took := max(now.Sub(p.Since), 1)
	if r.usual[p.What] == 0 {
		r.usual[p.What] = took
		return
	}
	r.usual[p.What] += (took - r.usual[p.What]) / 10
}

// Usual is what waits of that name have lasted lately, 0 before the first has ended.
func (r *Registry) Usual(what string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.usual[what]
}

// Snapshot returns the waits of this moment, the oldest first.
func (r *Registry) Snapshot() []Wait {
	r.mu.Lock()
	all := make([]pending, 0, len(r.waits))
	for _, p := range r.waits {
		p.Usual = r.usual[p.What]
		all = append(all, p)
	}
	r.mu.Unlock()
	out := make([]Wait, 0, len(all))
	for _, p := range all { // without the lock: whoever is asked may hold others
		if p.ask != nil {
			if detail, on, ok := p.ask(); ok {
				p.Detail, p.On = detail, on
			}
		}
		out = append(out, p.Wait)
	}
	slices.SortFunc(out, func(a, b Wait) int { return a.Since.Compare(b.Since) })
	return out
}
