package table

import (
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
)

// group is how many rows are looked for and updated together: each part of the work is done for all of them before the next
// part, so that the processor waits for their memory once, not for one after the other.
const group = 32

// work is the keys of a group that is being updated.
type work struct {
	keys   []uint64
	grads  [group][]float32
	sums   []float32 // of the keys that several logical shards have
	places [group]uint32
}

// gather takes the next keys of a merge; false means that there are none.
func (w *work) gather(m *merge, dim int) bool {
	w.keys, w.sums = w.keys[:0], sized(w.sums, group*dim)
	for i := range group {
		key, grad, ok := m.next(w.sums[i*dim : (i+1)*dim])
		if !ok {
			break
		}
		w.keys, w.grads[i] = append(w.keys, key), grad
	}
	return len(w.keys) > 0
}

// find looks for the places of up to group keys, 0 for what is not there. A branch that depends on what comes from far away keeps the
// processor from asking for more, so what all searches begin with is read before anything is decided.
func (t *table) find(keys []uint64, places []uint32) {
	var hashes, first [group]uint64
	for i, key := range keys {
		hashes[i] = hash(key)
		first[i] = t.index.at(hashes[i], 0)
	}
	for i, key := range keys {
		places[i] = t.search(key, hashes[i], 0, first[i])
	}
}

// apply does the step whose parts are all here.
func (s *Store) apply(keep id.Step) {
	u := s.newUndo()
	for i, t := range s.tables {
		s.update(t, i, &u.tables[i])
	}
	s.undos = append(s.undos, u)
	s.step++
	for _, p := range s.parts {
		if p.kept {
			s.room = append(s.room, p)
		}
	}
	clear(s.parts)
	s.missing = len(s.parts)
	s.keep = max(keep, s.keep)
	s.trim()
}

// update does the step in one table: keys ascending, then what is forgotten.
func (s *Store) update(t *table, number int, b *before) {
	rule := t.cfg.Optimizer.Rule(s.step)
	s.merge.begin(s.parts, number, t.cfg.Dim)
	for w := &s.work; w.gather(&s.merge, t.cfg.Dim); {
		t.find(w.keys, w.places[:])
		for i, key := range w.keys {
			b.note(t, key, w.places[i])
		}
		for i, key := range w.keys {
			s.see(t, &rule, key, w.places[i], w.grads[i])
		}
	}
	for _, slot := range s.grown {
		s.isGrow[slot] = false
		for l := &t.slots[slot]; t.limit > 0 && int(l.n) > t.limit; {
			s.forget(t, b, l.first)
			t.stats.Evicted++
		}
	}
	s.grown = s.grown[:0]
	if t.cfg.Expire > 0 { // one slot in turn: reading passes over those whose turn has not come
		l := &t.slots[int(s.step)%Slots]
		for l.first != 0 && t.expired(t.metas[l.first].last, s.step+1) {
			s.forget(t, b, l.first)
			t.stats.Expired++
		}
	}
}

// see updates the row of a key by its gradient, if it has one by now. The key is noted already.
func (s *Store) see(t *table, rule *optim.Rule, key uint64, at uint32, grad []float32) {
	known := at != 0
	if known && t.expired(t.metas[at].last, s.step) {
		t.remove(at)
		t.stats.Expired++
		known = false
	}
	if known {
		t.unlink(at)
		t.link(at)
	} else {
		at = t.add(key)
		if slot := Slot(key); t.limit > 0 && !s.isGrow[slot] {
			s.isGrow[slot] = true
			s.grown = append(s.grown, int32(slot))
		}
	}
	m := &t.metas[at]
	m.last = s.step
	read := m.row != none || t.cfg.Admit <= 1 // the gradient is for what the row was
	if m.row == none {
		m.seen++
		if int(m.seen) < t.cfg.Admit {
			return
		}
		t.admit(m)
		t.stats.Admitted++
	}
	if read {
		v := t.values(m.row)
		dim := t.cfg.Dim
		for k := range len(v)/dim - 1 {
			t.slices[k] = v[dim*(k+1) : dim*(k+2)]
		}
		state := t.slices[:len(v)/dim-1]
		rule.Apply(v[:dim], state, v[:dim], grad, state)
	}
}

// forget removes a key; one that this step saw is noted already.
func (s *Store) forget(t *table, b *before, at uint32) {
	if m := &t.metas[at]; m.last != s.step {
		b.note(t, m.key, at)
	}
	t.remove(at)
}
