package table

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
)

// What a store holds is encoded by slots: for each slot that has something its number and, for each table, the number of
// records, all 32 bits; then the records, table after table, by key. All numbers are little-endian.
//
//	record: key:u64 last:u64 seen:u32 flags:u32, then the values of a row, if it has one
const (
	flagKnown = 1 // else the key is not there
	flagRow   = 2

	recordBytes = 24
)

func (t *table) appendRecord(dst []byte, r record, values []float32) []byte {
	le := binary.LittleEndian
	flags := uint32(0)
	if r.known {
		flags |= flagKnown
	}
	if r.row != none {
		flags |= flagRow
	}
	dst = le.AppendUint64(dst, r.key)
	dst = le.AppendUint64(dst, uint64(r.last))
	dst = le.AppendUint32(dst, r.seen)
	dst = le.AppendUint32(dst, flags)
	if r.row != none {
		dst = append(dst, floats.Bytes(values)...)
	}
	return dst
}

// readRecord reads a record; its values are still bytes. Where there is a row, row is 0.
func (t *table) readRecord(b []byte) (r record, values, rest []byte, err error) {
	if len(b) < recordBytes {
		return r, nil, nil, bad("%d bytes are no record", len(b))
	}
	le := binary.LittleEndian
	flags := le.Uint32(b[20:])
	r = record{key: le.Uint64(b), last: id.Step(le.Uint64(b[8:])), seen: le.Uint32(b[16:]), known: flags&flagKnown != 0, row: none}
	b = b[recordBytes:]
	if flags&flagRow == 0 {
		return r, nil, b, nil
	}
	n := 4 * t.width
	if !r.known || len(b) < n {
		return r, nil, nil, bad("the row of key %x is cut short", r.key)
	}
	r.row = 0
	return r, b[:n], b[n:], nil
}

// AppendSlots encodes the slots [from, to) of this shard in the state at a step: those records that are not as they were in
// the state at since, all with 0.
func (s *Store) AppendSlots(dst []byte, step, since id.Step, from, to int) ([]byte, error) {
	notes, err := s.reach(step)
	if err != nil {
		return dst, err
	}
	all := make([]changes, len(s.tables))
	for number, t := range s.tables {
		all[number] = t.changes(number, notes, since, from, to)
	}
	le := binary.LittleEndian
	records := make([]byte, 0, 1<<12)
	for slot := from; slot < to; slot++ {
		head := len(dst)
		dst = le.AppendUint32(dst, uint32(slot))
		records = records[:0]
		for number, t := range s.tables {
			n, c := 0, &all[number]
			for _, key := range c.keys[slot-from] {
				r, values := c.at(t, key)
				if r.known && r.last >= since && !t.expired(r.last, step) {
					records = t.appendRecord(records, r, values)
					n++
				}
			}
			dst = le.AppendUint32(dst, uint32(n))
		}
		if len(records) == 0 {
			dst = dst[:head]
		}
		dst = append(dst, records...)
	}
	return dst, nil
}

// AppendShard is AppendSlots, of everything, but only what one of a number of shards keeps.
func (s *Store) AppendShard(dst []byte, step id.Step, from, to, shard, shards int) (_ []byte, err error) {
	for slot := from + ((shard-from)%shards+shards)%shards; slot < to && err == nil; slot += shards {
		dst, err = s.AppendSlots(dst, step, 0, slot, slot+1)
	}
	return dst, err
}

// changes is what may have changed in slots of a table, some in a row, since a step.
type changes struct {
	keys [][]uint64 // by slot, ascending
	past map[uint64]pastRecord
}

// pastRecord is a key as notes have it.
type pastRecord struct {
	record
	values []float32
}

// changes finds the keys that a step from since on saw, or that the notes name. What the notes say of each is looked up here once for
// all: a checkpoint that takes a hundred steps has a hundred notes.
func (t *table) changes(number int, notes []*undo, since id.Step, from, to int) changes {
	c := changes{keys: make([][]uint64, to-from), past: map[uint64]pastRecord{}}
	for slot := from; slot < to; slot++ {
		k := &c.keys[slot-from]
		for at := t.slots[slot].last; at != 0 && t.metas[at].last >= since; at = t.metas[at].prev {
			*k = append(*k, t.metas[at].key)
		}
	}
	for _, u := range notes { // the oldest first, which says what was before all others
		b := &u.tables[number]
		for _, r := range b.records {
			slot := Slot(r.key)
			if slot < from || slot >= to {
				continue
			}
			if _, known := c.past[r.key]; !known {
				c.past[r.key] = pastRecord{r, b.of(r, t.width)}
				c.keys[slot-from] = append(c.keys[slot-from], r.key)
			}
		}
	}
	for i, k := range c.keys {
		slices.Sort(k)
		c.keys[i] = slices.Compact(k)
	}
	return c
}

// at is a key in the state before the notes.
func (c *changes) at(t *table, key uint64) (record, []float32) {
	if p, ok := c.past[key]; ok {
		return p.record, p.values
	}
	return t.record(key, t.place(key))
}

// Overlay puts encoded records over what is there, of the slots for which want says so, or all with nil. Settle must
// follow before anything else.
func (s *Store) Overlay(b []byte, want func(slot int) bool) error {
	counts := make([]uint32, len(s.tables))
	for len(b) > 0 {
		w := &words{b: b}
		slot := int(w.next())
		for i := range counts {
			counts[i] = w.next()
		}
		if b = w.b; w.err != nil || slot >= Slots {
			return bad("no slot begins with %d bytes left", len(b))
		}
		for i, t := range s.tables {
			for range counts[i] {
				r, values, rest, err := t.readRecord(b)
				if err == nil && (!r.known || Slot(r.key) != slot || !s.Owns(r.key)) {
					err = bad("key %x in slot %d of shard %d of %d", r.key, slot, s.shard, s.shards)
				}
				if err != nil {
					return err
				}
				if b = rest; want == nil || want(slot) {
					t.set(r, values)
				}
			}
		}
	}
	return nil
}

// set makes a key what a record says.
func (t *table) set(r record, values []byte) {
	at := t.place(r.key)
	if at == 0 {
		at = t.add(r.key)
	}
	m := &t.metas[at]
	m.last, m.seen = r.last, r.seen
	switch {
	case r.row == none && m.row == none:
		return
	case r.row == none: // forgotten since, and waiting anew
		t.free, m.row = append(t.free, m.row), none
		t.stats.Rows--
		return
	case m.row == none:
		m.row = t.take()
		t.stats.Rows++
	}
	copy(floats.Bytes(t.values(m.row)), values)
}

// Settle makes of the records laid over each other the state at a step: what it has forgotten goes. Nothing before can be read.
func (s *Store) Settle(step id.Step) { s.settle(step, step) }

func (s *Store) settle(step, alive id.Step) {
	for _, t := range s.tables {
		for slot := range t.slots {
			t.settle(&t.slots[slot], alive)
		}
	}
	s.step, s.keep = step, step
	s.undos = nil
}

func (t *table) settle(l *list, alive id.Step) {
	var places []uint32
	for at := l.first; at != 0; at = t.metas[at].next {
		places = append(places, at)
	}
	slices.SortFunc(places, func(a, b uint32) int {
		x, y := &t.metas[a], &t.metas[b]
		return cmp.Or(cmp.Compare(x.last, y.last), cmp.Compare(x.key, y.key))
	})
	*l = list{}
	for _, at := range places {
		t.link(at)
	}
	for l.first != 0 && (t.expired(t.metas[l.first].last, alive) || t.limit > 0 && int(l.n) > t.limit) {
		t.remove(l.first)
	}
}

// Load takes up the slots [from, to) of a state that was encoded at a step. A store that has them, or is at the step or beyond
// it, changes nothing. It is at the step when all its slots have come.
func (s *Store) Load(step id.Step, from, to int, b []byte) error {
	if step <= s.step {
		return nil
	}
	if s.loaded == nil || s.loading != step {
		if s.step > 0 || s.missing < len(s.parts) {
			return bad("the state at %v cannot be loaded: steps were done already", step)
		}
		for i, t := range s.tables {
			s.tables[i] = newTable(i, t.cfg)
		}
		for _, n := range s.snapshots {
			n.gone = true
		}
		s.loaded, s.loading = make([]bool, Slots), step
	}
	err := s.Overlay(b, func(slot int) bool { return slot >= from && slot < to && !s.loaded[slot] })
	if err != nil {
		return err
	}
	for slot := max(from, 0); slot < min(to, Slots); slot++ {
		s.loaded[slot] = true
	}
	for slot := s.shard; slot < Slots; slot += s.shards {
		if !s.loaded[slot] {
			return nil
		}
	}
	s.loaded = nil
	s.Settle(step)
	return nil
}
