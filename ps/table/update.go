package table

import (
	"math"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
)

// group is how many rows are looked for and updated together: each part of the work is done for all of them before the next
// part, so that the processor waits for their memory once, not for one after the other.
const group = 32

// work is the keys of a group that is being updated, and their rows one behind the other: the optimizer is called once for all of them.
type work struct {
	keys   []uint64
	grads  []float32 // (group, dim)
	places [group]uint32

	rows   [group]int32
	values []float32   // (group, dim), of rows
	slots  [][]float32 // (group, dim) of each slot of the optimizer
}

func newWork(tables []*table) (w work) {
	dim, slots := 0, 0
	for _, t := range tables {
		dim, slots = max(dim, t.cfg.Dim), max(slots, t.cfg.Optimizer.Slots())
	}
	w.grads, w.values, w.slots = make([]float32, group*dim), make([]float32, group*dim), make([][]float32, slots)
	for k := range w.slots {
		w.slots[k] = make([]float32, group*dim)
	}
	return w
}

// gather takes the next keys of a merge; false means that there are none.
func (w *work) gather(m *merge, dim int) bool {
	w.keys = w.keys[:0]
	for i := range group {
		key, ok := m.next(w.grads[i*dim : (i+1)*dim])
		if !ok {
			break
		}
		w.keys = append(w.keys, key)
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

// touchRows reads a little of every line of memory of the rows, or of their first values, of keys in these places, and touchNeighbours of the keys beside them in their
// slots: so the processor fetches them for all keys at the same time. What they return means nothing.
//
//go:noinline
func (t *table) touchRows(places []uint32, width int) (x uint32) {
	for _, at := range places {
		if row := t.metas[at].row; row != none {
			v := t.values(row)[:width]
			for i := 0; i < len(v); i += 16 {
				x ^= math.Float32bits(v[i])
			}
		}
	}
	return x
}

//go:noinline
func (t *table) touchNeighbours(places []uint32) (x uint32) {
	for _, at := range places {
		m := &t.metas[at]
		x ^= t.metas[m.prev].seen ^ t.metas[m.next].seen
	}
	return x
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
		t.touchRows(w.places[:len(w.keys)], t.width)
		t.touchNeighbours(w.places[:len(w.keys)])
		for i, key := range w.keys {
			s.note(number, b, key, w.places[i])
		}
		n := 0
		for i, key := range w.keys {
			if row := s.see(t, key, w.places[i]); row != none {
				w.rows[n] = row
				copy(w.grads[n*t.cfg.Dim:], w.grads[i*t.cfg.Dim:(i+1)*t.cfg.Dim])
				n++
			}
		}
		w.apply(t, &rule, n)
	}
	for _, slot := range s.grown {
		s.isGrow[slot] = false
		for l := &t.slots[slot]; t.limit > 0 && int(l.n) > t.limit; {
			s.forget(number, b, l.first)
			t.stats.Evicted++
		}
	}
	s.grown = s.grown[:0]
	if t.cfg.Expire > 0 { // one slot in turn: reading passes over those whose turn has not come
		l := &t.slots[int(s.step)%Slots]
		for l.first != 0 && t.expired(t.metas[l.first].last, s.step+1) {
			s.forget(number, b, l.first)
			t.stats.Expired++
		}
	}
}

// see notes that the step sees a key, and returns its row if it is to be updated. What the key was is noted already.
func (s *Store) see(t *table, key uint64, at uint32) (row int32) {
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
	if m.row != none {
		return m.row
	}
	m.seen++
	if int(m.seen) < t.cfg.Admit {
		return none
	}
	t.admit(m)
	t.stats.Admitted++
	if t.cfg.Admit > 1 { // the gradient is for zeros, which the row was
		return none
	}
	return m.row
}

// apply updates n rows by their gradients.
func (w *work) apply(t *table, rule *optim.Rule, n int) {
	dim := t.cfg.Dim
	slots := t.slices[:t.width/dim-1]
	for k := range slots {
		slots[k] = w.slots[k][:n*dim]
	}
	values := w.values[:n*dim]
	for i, row := range w.rows[:n] {
		v := t.values(row)
		copy(values[i*dim:], v[:dim])
		for k := range slots {
			copy(slots[k][i*dim:], v[dim*(k+1):dim*(k+2)])
		}
	}
	rule.Apply(values, slots, values, w.grads[:n*dim], slots)
	for i, row := range w.rows[:n] {
		v := t.values(row)
		copy(v, values[i*dim:(i+1)*dim])
		for k := range slots {
			copy(v[dim*(k+1):], slots[k][i*dim:(i+1)*dim])
		}
	}
}

// forget removes a key; one that this step saw is noted already.
func (s *Store) forget(number int, b *before, at uint32) {
	t := s.tables[number]
	if m := &t.metas[at]; m.last != s.step {
		s.note(number, b, m.key, at)
	}
	t.remove(at)
}
