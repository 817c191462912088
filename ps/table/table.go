package table

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"github.com/musterml/muster/internal/huge"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
)

// Config is one table, the same on every replica.
type Config struct {
	Name      string
	Dim       int // float32 values of a row
	Optimizer optim.Optimizer
	Seed      uint64
	Scale     float32 // initial values are uniform in (-Scale, Scale)
	Admit     int     // steps that must see a key before it has a row; 0 is 1
	Expire    id.Step // steps without a key after which it is forgotten; 0: never
	MaxRows   int     // keys of the whole table, over all shards; 0: no limit
}

// Slots is how many parts the keys of a table are dealt to, and the most shards there can be.
const Slots = 1024

// maxDim keeps sizes of rows within an int32.
const maxDim = 1 << 16

// Slot is the slot of a key: the upper bits of its hash.
func Slot(key uint64) int { return int(hash(key) >> 54) }

func hash(key uint64) uint64 { return mix(key + golden) }

// ErrConfig is returned when a table cannot be.
var ErrConfig = errors.New("table: bad configuration")

func (c *Config) validate() error {
	switch {
	case c.Dim < 1 || c.Dim > maxDim:
		return fmt.Errorf("%w: rows of table %s have %d values, must be 1 to %d", ErrConfig, c.Name, c.Dim, maxDim)
	case c.Optimizer == nil || c.Optimizer.WholeTensors():
		return fmt.Errorf("%w: table %s has no optimizer that updates each row for itself", ErrConfig, c.Name)
	case c.Admit < 0 || c.MaxRows < 0 || int64(c.Admit) > math.MaxUint32:
		return fmt.Errorf("%w: Admit %d and MaxRows %d of table %s must be at least 0", ErrConfig, c.Admit, c.MaxRows, c.Name)
	}
	return nil
}

// width is the values kept of a row: itself and the slots of its optimizer.
func (c *Config) width() int { return c.Dim * (1 + c.Optimizer.Slots()) }

// limit is how many keys a slot may have; 0: any number.
func (c *Config) limit() int { return (c.MaxRows + Slots - 1) / Slots }

// Stats counts over the life of a Store, but for what is there now.
type Stats struct {
	Keys, Rows                 int   // keys known now, and those of them that have a row
	Bytes                      int64 // of memory for them
	Admitted, Expired, Evicted uint64
}

// table is the rows of one table in one shard.
type table struct {
	cfg    Config
	origin uint64 // what initial values are drawn from
	width  int
	limit  int

	index index    // of keys: their places in metas
	metas []meta   // place 0 is none, and has no row
	spare []uint32 // places that are free
	slots []list   // by slot

	chunks [][]float32 // values of rows, chunkRows each
	free   []int32     // rows that are free
	rows   int32       // rows that chunks have room for

	stats Stats

	slices [2][]float32 // reused by update
}

// meta is what is known of a key.
type meta struct {
	key        uint64
	last       id.Step // the last that saw it
	seen       uint32  // how many did, until it was admitted
	row        int32   // its values; none while it waits
	prev, next uint32  // in its slot, by (last, key)
}

// none is the row of a key that waits to be admitted.
const none = -1

// list is the keys of a slot; the first was seen longest ago.
type list struct{ first, last, n uint32 }

const chunkRows = 256

// slabBytes is the most that is asked for at once for chunks.
const slabBytes = 16 << 20

func newTable(number int, c Config) *table {
	return &table{
		cfg: c, origin: origin(c.Seed, number), width: c.width(), limit: c.limit(),
		index: newIndex(), metas: []meta{{row: none}}, slots: make([]list, Slots),
	}
}

// values is a row: its values, and then the optimizer's.
func (t *table) values(row int32) []float32 {
	at := int(row%chunkRows) * t.width
	return t.chunks[row/chunkRows][at : at+t.width]
}

// take finds room for a row; its contents are not specified.
func (t *table) take() int32 {
	if n := len(t.free); n > 0 {
		row := t.free[n-1]
		t.free = t.free[:n-1]
		return row
	}
	if int(t.rows) == len(t.chunks)*chunkRows {
		t.grow()
	}
	t.rows++
	return t.rows - 1
}

// grow makes as many chunks again as there are, in one piece: rows are found at random, which huge pages make quicker.
func (t *table) grow() {
	each := chunkRows * t.width
	n := max(1, min(len(t.chunks), slabBytes/(4*each)))
	for b := huge.Float32s(n * each); len(b) > 0; b = b[each:] {
		t.chunks = append(t.chunks, b[:each:each])
	}
}

// place is where a key is in metas, 0 for none.
func (t *table) place(key uint64) uint32 {
	h := hash(key)
	return t.search(key, h, 0, t.index.at(h, 0))
}

// search goes on with a search at its i-th entry e.
func (t *table) search(key, h, i, e uint64) uint32 {
	for {
		at, j := t.index.candidate(h, i, e)
		if at == 0 || t.metas[at].key == key {
			return at
		}
		i, e = j+1, t.index.at(h, j+1)
	}
}

// admit gives a key a row with its initial value.
func (t *table) admit(m *meta) []float32 {
	m.row = t.take()
	v := t.values(m.row)
	t.initial(m.key, v[:t.cfg.Dim])
	clear(v[t.cfg.Dim:])
	t.stats.Rows++
	return v
}

// add makes a key known, as the one of its slot that was seen last.
func (t *table) add(key uint64) uint32 {
	var at uint32
	if n := len(t.spare); n > 0 {
		at, t.spare = t.spare[n-1], t.spare[:n-1]
	} else {
		at = uint32(len(t.metas))
		if len(t.metas) == cap(t.metas) {
			more := huge.Make[meta](len(t.metas) + len(t.metas)/2 + 64)
			t.metas = more[:copy(more, t.metas)]
		}
		t.metas = t.metas[:at+1]
	}
	t.metas[at] = meta{key: key, row: none}
	t.index.add(hash(key), at)
	t.link(at)
	t.stats.Keys++
	return at
}

// remove forgets a key.
func (t *table) remove(at uint32) {
	m := &t.metas[at]
	t.unlink(at)
	t.index.remove(hash(m.key), at)
	if m.row != none {
		t.free = append(t.free, m.row)
		t.stats.Rows--
	}
	t.spare = append(t.spare, at)
	t.stats.Keys--
}

// link puts a key at the end of its slot.
func (t *table) link(at uint32) {
	m := &t.metas[at]
	l := &t.slots[Slot(m.key)]
	m.prev, m.next = l.last, 0
	if l.last == 0 {
		l.first = at
	} else {
		t.metas[l.last].next = at
	}
	l.last = at
	l.n++
}

func (t *table) unlink(at uint32) {
	m := &t.metas[at]
	l := &t.slots[Slot(m.key)]
	if m.prev == 0 {
		l.first = m.next
	} else {
		t.metas[m.prev].next = m.next
	}
	if m.next == 0 {
		l.last = m.prev
	} else {
		t.metas[m.next].prev = m.prev
	}
	l.n--
}

// expired tells whether a key last seen by a step is forgotten in the state at a step.
func (t *table) expired(last, at id.Step) bool {
	return t.cfg.Expire > 0 && at > last && at-last > t.cfg.Expire
}

// unseen fills in what a key reads as that has no row.
func (t *table) unseen(key uint64, dst []float32) {
	if t.cfg.Admit > 1 {
		clear(dst)
		return
	}
	t.initial(key, dst)
}

func (t *table) statistics() Stats {
	s := t.stats
	s.Bytes = int64(cap(t.metas))*int64(unsafe.Sizeof(meta{})) + t.index.bytes() + int64(t.rows)*int64(t.width)*4
	return s
}
