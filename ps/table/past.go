package table

import "github.com/musterml/muster/internal/id"

// undo is what the keys that a step changed were before it.
type undo struct {
	step   id.Step
	tables []before
}

// before is the part of one table.
type before struct {
	records []record
	values  []float32      // of the records that have a row, in their order
	index   map[uint64]int // made when it is first asked
}

// record is a key as it was, or is; Known is false of one that was not there.
type record struct {
	key   uint64
	last  id.Step
	seen  uint32
	known bool
	row   int32 // in values, none where there was no row
}

// note remembers a key of a table before it changes. at is 0 for one that is not there.
func (s *Store) note(number int, b *before, key uint64, at uint32) {
	t := s.tables[number]
	if at != 0 {
		for _, n := range s.snapshots {
			n.save(number, t, at)
		}
	}
	r := record{key: key, row: none}
	if at != 0 {
		m := &t.metas[at]
		r.last, r.seen, r.known = m.last, m.seen, true
		if m.row != none {
			r.row = int32(len(b.values) / t.width)
			b.values = append(b.values, t.values(m.row)...)
		}
	}
	b.records = append(b.records, r)
}

// of is the values of a record, nil where there is no row.
func (b *before) of(r record, width int) []float32 {
	if r.row == none {
		return nil
	}
	return b.values[int(r.row)*width : int(r.row+1)*width]
}

func (b *before) find(key uint64) (record, bool) {
	if b.index == nil {
		b.index = make(map[uint64]int, len(b.records))
		for i, r := range b.records {
			b.index[r.key] = i
		}
	}
	i, ok := b.index[key]
	if !ok {
		return record{}, false
	}
	return b.records[i], true
}

func (b *before) reset() { b.records, b.values, b.index = b.records[:0], b.values[:0], nil }

// past is the notes of the steps from a step on, oldest first; ok is false where they are gone.
func (s *Store) past(from id.Step) (notes []*undo, ok bool) {
	if from > s.step {
		return nil, false
	}
	if n := s.step - from; n <= id.Step(len(s.undos)) {
		return s.undos[len(s.undos)-int(n):], true
	}
	return nil, false
}

// at is a key, now in a place, in the state to which the notes lead back, with its values.
func (t *table) at(number int, notes []*undo, key uint64, place uint32) (r record, values []float32) {
	for _, n := range notes {
		b := &n.tables[number]
		if r, ok := b.find(key); ok {
			return r, b.of(r, t.width)
		}
	}
	return t.record(key, place)
}

// record is a key as it is, in a place, 0 if it has none.
func (t *table) record(key uint64, at uint32) (r record, values []float32) {
	if at == 0 {
		return record{key: key, row: none}, nil
	}
	m := &t.metas[at]
	r = record{key: m.key, last: m.last, seen: m.seen, known: true, row: m.row}
	if m.row != none {
		values = t.values(m.row)
	}
	return r, values
}

// trim forgets the notes that nobody needs.
func (s *Store) trim() {
	keep := s.keep
	if s.pinned && s.pin < keep {
		keep = s.pin
	}
	drop := 0
	for drop < len(s.undos) && s.undos[drop].step < keep {
		drop++
	}
	for _, u := range s.undos[:drop] {
		if len(s.spares) < 2 {
			s.spares = append(s.spares, u)
		}
	}
	s.undos = append(s.undos[:0], s.undos[drop:]...)
}

// newUndo is room for the notes of the step that is about to be done.
func (s *Store) newUndo() *undo {
	if n := len(s.spares); n > 0 {
		u := s.spares[n-1]
		s.spares = s.spares[:n-1]
		u.step = s.step
		for i := range u.tables {
			u.tables[i].reset()
		}
		return u
	}
	return &undo{step: s.step, tables: make([]before, len(s.tables))}
}
