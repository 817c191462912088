package table

import (
	"errors"
	"fmt"
	"slices"

	"github.com/musterml/muster/internal/id"
)

// Store is one shard's rows of all tables, at one step. Methods that change it must not run beside any other; Pull may run
// beside Pull where Newest is so.
type Store struct {
	shard, shards int
	tables        []*table
	step          id.Step

	parts   []*Part // of this step, by logical shard; nil has not come
	missing int
	room    []*Part // to be used again

	undos  []*undo // of the steps before this one, without gaps
	spares []*undo
	keep   id.Step // states from here on are to stay readable
	pin    id.Step // and from here on, while pinned
	pinned bool

	snapshots []*Snapshot // that are being written

	loaded  []bool // by slot: the state of the step that is being loaded has come
	loading id.Step

	merge  merge
	work   work
	grown  []int32 // slots that have new keys, of the table at work
	isGrow [Slots]bool
}

var (
	// ErrGap is returned when a part is of a step that the store has not reached.
	ErrGap = errors.New("table: part beyond the state held")
	// ErrGone is returned when the state at a step can no longer be read.
	ErrGone = errors.New("table: step no longer held")
	// ErrNotYet is returned when the state at a step cannot be read before it is made.
	ErrNotYet = errors.New("table: step not held yet")
	// ErrBad is returned for bytes that are not what they should be.
	ErrBad = errors.New("table: bad encoding")
)

// New makes the empty store of one of a number of shards, at step 0. A step has a part of each logical shard.
func New(configs []Config, shard, shards, logicalShards int) (*Store, error) {
	if shards < 1 || shards > Slots || shard < 0 || shard >= shards || logicalShards < 1 {
		return nil, fmt.Errorf("%w: shard %d of %d with %d logical shards; at most %d shards can hold tables", ErrConfig, shard, shards, logicalShards, Slots)
	}
	s := &Store{shard: shard, shards: shards, parts: make([]*Part, logicalShards), missing: logicalShards}
	for i, c := range configs {
		if err := c.validate(); err != nil {
			return nil, err
		}
		s.tables = append(s.tables, newTable(i, c))
	}
	s.work = newWork(s.tables)
	return s, nil
}

// Step is the newest state.
func (s *Store) Step() id.Step { return s.step }

// Oldest is the oldest state that can be read.
func (s *Store) Oldest() id.Step { return s.step - id.Step(len(s.undos)) }

// Newest tells whether a step is the newest: to read that changes nothing.
func (s *Store) Newest(step id.Step) bool { return step == s.step }

// Owns tells whether a key is in this shard.
func (s *Store) Owns(key uint64) bool { return Slot(key)%s.shards == s.shard }

// Stats are those of each table.
func (s *Store) Stats() []Stats {
	all := make([]Stats, len(s.tables))
	for i, t := range s.tables {
		all[i] = t.statistics()
	}
	return all
}

// Push gives the store parts of a step. Those that it has, and those of a step that is done, change nothing; a Part is not
// kept. States from keep on stay readable after this step is done, if they are so now.
func (s *Store) Push(step, keep id.Step, parts []Part) error {
	if step > s.step {
		return fmt.Errorf("%w: %v was pushed, the rows are at %v", ErrGap, step, s.step)
	}
	if step < s.step {
		return nil
	}
	for i := range parts {
		if p := &parts[i]; int(p.Shard) >= len(s.parts) || p.Shard < 0 {
			return fmt.Errorf("%w: there is no %v", ErrBad, p.Shard)
		}
	}
	for i := range parts {
		p := &parts[i]
		if s.parts[p.Shard] == nil {
			s.parts[p.Shard] = p
			s.missing--
		}
	}
	if s.missing == 0 {
		s.apply(min(keep, s.step))
		return nil
	}
	for i, p := range s.parts { // those that have to wait
		if p != nil && !p.kept {
			s.parts[i] = s.copied(p)
		}
	}
	return nil
}

func (s *Store) copied(p *Part) *Part {
	c := &Part{Tables: make([]Rows, len(s.tables)), kept: true}
	if n := len(s.room); n > 0 {
		c, s.room = s.room[n-1], s.room[:n-1]
	}
	c.Shard = p.Shard
	for i := range c.Tables {
		c.Tables[i].Keys = append(c.Tables[i].Keys[:0], p.Tables[i].Keys...)
		c.Tables[i].Values = append(c.Tables[i].Values[:0], p.Tables[i].Values...)
	}
	return c
}

// Pull reads the rows of keys in the state at a step: for each table, one behind the other. With since below step,
// rows that are the same in the state at since are left out, and changed says which are not: bit i%8 of byte i/8 for the
// i-th key of the request. The bytes are appended to dst.
func (s *Store) Pull(step, since id.Step, keys [][]uint64, changed []byte, dst []float32) ([]byte, []float32, error) {
	notes, err := s.reach(step)
	if err != nil {
		return changed, dst, err
	}
	var places [group]uint32
	n := 0
	for number, t := range s.tables {
		for rest := keys[number]; len(rest) > 0; {
			some := rest[:min(group, len(rest))]
			rest = rest[len(some):]
			t.find(some, places[:])
			t.touchRows(places[:len(some)], t.cfg.Dim)
			for i, key := range some {
				r, values := t.at(number, notes, key, places[i])
				visible := r.known && !t.expired(r.last, step)
				if n%8 == 0 {
					changed = append(changed, 0)
				}
				if !visible || since >= step || r.last >= since {
					changed[len(changed)-1] |= 1 << (n % 8)
					if visible && r.row != none {
						dst = append(dst, values[:t.cfg.Dim]...)
					} else {
						from := len(dst)
						dst = append(dst, make([]float32, t.cfg.Dim)...)
						t.unseen(key, dst[from:])
					}
				}
				n++
			}
		}
	}
	return changed, dst, nil
}

// reach is the notes that lead back to a step.
func (s *Store) reach(step id.Step) ([]*undo, error) {
	if step > s.step {
		return nil, fmt.Errorf("%w: the rows are at %v, %v was asked for", ErrNotYet, s.step, step)
	}
	notes, ok := s.past(step)
	if !ok {
		return nil, fmt.Errorf("%w: the rows can be read from %v on, %v was asked for", ErrGone, s.Oldest(), step)
	}
	return notes, nil
}

// Pin keeps the states from a step on readable until another is pinned, or none (keep false). It is no part of what
// replicas have in common.
func (s *Store) Pin(step id.Step, keep bool) {
	s.pin, s.pinned = step, keep
	s.trim()
}

// Each calls do for every row of a table in the newest state, by key: those that are admitted.
func (s *Store) Each(number int, do func(key uint64, values []float32)) {
	t := s.tables[number]
	var keys []uint64
	for slot := range t.slots {
		for at := t.slots[slot].first; at != 0; at = t.metas[at].next {
			if m := &t.metas[at]; m.row != none && !t.expired(m.last, s.step) {
				keys = append(keys, m.key)
			}
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		do(key, t.values(t.metas[t.place(key)].row)[:t.cfg.Dim])
	}
}

// Unseen fills in what a key reads as that has no row.
func (c *Config) Unseen(number int, key uint64, dst []float32) {
	t := table{cfg: *c, origin: origin(c.Seed, number)}
	t.unseen(key, dst)
}
