package table

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
)

// A snapshot is everything that replicas have in common, in pieces of a length, a checksum and an encoding. First come layers: each has
// a head (its step, and that of the layer below, 0 for the first, which has every row), slots with the records of rows that steps have
// seen since the layer below, and an empty piece. The newest is of the snapshot's moment. Then comes the rest: a head, the
// parts of the step that is not done, and the notes.
//
// It is of the moment at which it was begun, although it is written while steps go on: a step that changes a row which a
// snapshot has not written yet leaves it a copy (save). So a row is copied at most once, however long writing takes. Notes will
// not do: they grow with every step, and would have to be searched for each piece.

// Snapshot is written by WriteLayer and WriteRest; Close ends it.
type Snapshot struct {
	s      *Store
	lock   func(do func()) // runs do while the store does not change
	since  id.Step
	step   id.Step
	limit  id.Step // what no step from here on has seen is as it was
	oldest id.Step // that can be read
	loaded []bool  // slots that had come, where a state was being loaded
	saved  []saved // by table and slot
	next   int     // slots below are written
	gone   bool    // another state has taken the place of this one
	head   []byte
	rest   [][]byte
}

// saved is the records of a slot as they were.
type saved struct {
	n       uint32
	records []byte
}

const (
	snapshotMagic = "mstrrow2"
	layerMagic    = "mstrlay1"
	layerHead     = len(layerMagic) + 16
)

// Snapshot begins one, whose layer has what steps from since on have seen, all with 0. lock is used by WriteLayer and Close, which may
// run beside anything.
func (s *Store) Snapshot(since id.Step, lock func(do func())) *Snapshot {
	le := binary.LittleEndian
	n := &Snapshot{
		s: s, lock: lock, since: since, step: s.step, limit: s.step, oldest: s.Oldest(),
		loaded: slices.Clone(s.loaded), saved: make([]saved, len(s.tables)*Slots),
	}
	if s.loaded != nil {
		n.limit = s.loading
	}
	s.snapshots = append(s.snapshots, n)
	n.head = append([]byte(nil), snapshotMagic...)
	for _, v := range []uint64{uint64(len(s.tables)), uint64(len(s.parts)), uint64(s.step), uint64(s.keep), uint64(n.oldest), uint64(s.loading)} {
		n.head = le.AppendUint64(n.head, v)
	}
	for _, t := range s.tables {
		for _, v := range []uint64{uint64(t.width), t.stats.Admitted, t.stats.Expired, t.stats.Evicted} {
			n.head = le.AppendUint64(n.head, v)
		}
	}
	loaded := make([]byte, Slots)
	for slot := range s.loaded {
		if s.loaded[slot] {
			loaded[slot] = 1
		}
	}
	if s.loaded == nil {
		loaded = nil
	}
	var parts []Part
	for _, p := range s.parts {
		if p != nil {
			parts = append(parts, *p)
		}
	}
	n.rest = [][]byte{loaded, AppendParts(nil, parts)}
	for _, u := range s.undos {
		n.rest = append(n.rest, s.appendUndo(nil, u))
	}
	return n
}

// Step is the snapshot's.
func (n *Snapshot) Step() id.Step { return n.step }

func (s *Store) appendUndo(dst []byte, u *undo) []byte {
	for i, t := range s.tables {
		b := &u.tables[i]
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(b.records)))
		for _, r := range b.records {
			dst = t.appendRecord(dst, r, b.of(r, t.width))
		}
	}
	return dst
}

// wants tells whether a record that is as it was belongs into the layer.
func (n *Snapshot) wants(t *table, last id.Step) bool {
	return last >= n.since && last < n.limit && !t.expired(last, n.oldest)
}

// save is called before a key changes, for every snapshot that has not written its slot.
func (n *Snapshot) save(number int, t *table, at uint32) {
	m := &t.metas[at]
	slot := Slot(m.key)
	if slot < n.next || !n.wants(t, m.last) || n.loaded != nil && !n.loaded[slot] {
		return
	}
	r, values := t.record(m.key, at)
	k := &n.saved[number*Slots+slot]
	k.records = t.appendRecord(k.records, r, values)
	k.n++
}

// pieceBytes bounds, about, what is written while the store is held up.
const pieceBytes = 1 << 20

// appendPiece encodes the next slots. In a slot, records are in no order.
func (n *Snapshot) appendPiece(dst []byte) []byte {
	le := binary.LittleEndian
	for ; n.next < Slots && len(dst) < pieceBytes; n.next++ {
		slot, head := n.next, len(dst)
		dst = le.AppendUint32(dst, uint32(slot))
		counts := len(dst)
		dst = append(dst, make([]byte, 4*len(n.s.tables))...)
		for number, t := range n.s.tables {
			k := &n.saved[number*Slots+slot]
			count := k.n
			dst = append(dst, k.records...)
			k.records = nil
			for at := t.slots[slot].last; at != 0 && t.metas[at].last >= n.since; at = t.metas[at].prev {
				if m := &t.metas[at]; n.wants(t, m.last) && (n.loaded == nil || n.loaded[slot]) {
					r, values := t.record(m.key, at)
					dst = t.appendRecord(dst, r, values)
					count++
				}
			}
			le.PutUint32(dst[counts+4*number:], count)
		}
		if len(dst) == counts+4*len(n.s.tables) {
			dst = dst[:head]
		}
	}
	return dst
}

// WriteLayer writes the layer, once.
func (n *Snapshot) WriteLayer(w io.Writer) error {
	head := binary.LittleEndian.AppendUint64([]byte(layerMagic), uint64(n.since))
	err := writePiece(w, binary.LittleEndian.AppendUint64(head, uint64(n.step)))
	var piece []byte
	for err == nil && n.next < Slots {
		n.lock(func() {
			if piece = n.appendPiece(piece[:0]); n.gone {
				err = fmt.Errorf("%w: another state was loaded", ErrGone)
			}
		})
		if err == nil && len(piece) > 0 {
			err = writePiece(w, piece)
		}
	}
	if err == nil {
		err = writePiece(w, nil)
	}
	return err
}

// WriteRest writes what goes behind the layers, once.
func (n *Snapshot) WriteRest(w io.Writer) error {
	err := writePiece(w, n.head)
	for _, p := range n.rest {
		if err == nil {
			err = writePiece(w, p)
		}
	}
	if err == nil {
		err = writePiece(w, nil)
	}
	return err
}

// Close must be called once, written or not.
func (n *Snapshot) Close() {
	n.lock(func() {
		n.s.snapshots = slices.DeleteFunc(n.s.snapshots, func(o *Snapshot) bool { return o == n })
	})
}

func writePiece(w io.Writer, b []byte) error {
	var head [12]byte
	binary.LittleEndian.PutUint64(head[:], uint64(len(b)))
	binary.LittleEndian.PutUint32(head[8:], crc32.Checksum(b, floats.Castagnoli))
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// maxPiece bounds what a damaged length can ask for.
const maxPiece = 1 << 32

func readPiece(r io.Reader, buf []byte) ([]byte, error) {
	var head [12]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(head[:])
	if n > maxPiece {
		return nil, bad("a piece of %d bytes", n)
	}
	for buf = buf[:0]; uint64(len(buf)) < n; { // memory is taken as bytes come
		more := int(min(n-uint64(len(buf)), 1<<20))
		buf = slices.Grow(buf, more)
		if _, err := io.ReadFull(r, buf[len(buf):len(buf)+more]); err != nil {
			return nil, err
		}
		buf = buf[:len(buf)+more]
	}
	if crc32.Checksum(buf, floats.Castagnoli) != binary.LittleEndian.Uint32(head[8:]) {
		return nil, bad("the checksum of a piece of %d bytes differs", n)
	}
	return buf, nil
}

// Restore makes the store of a snapshot; the one it is called on says of what kind, and does not change.
func (s *Store) Restore(r io.Reader) (*Store, error) {
	configs := make([]Config, len(s.tables))
	for i, t := range s.tables {
		configs[i] = t.cfg
	}
	n, err := New(configs, s.shard, s.shards, len(s.parts))
	if err != nil {
		return nil, err
	}
	step, buf, err := n.readLayers(r)
	if err != nil {
		return nil, err
	}
	head, err := n.readHead(buf)
	if err != nil {
		return nil, err
	}
	if head.step != step {
		return nil, bad("it is of %v, its newest layer of %v", head.step, step)
	}
	n.settle(head.step, head.oldest)
	n.keep, n.loading = head.keep, head.loading
	if buf, err = readPiece(r, buf); err != nil {
		return nil, err
	}
	if len(buf) == Slots {
		n.loaded = make([]bool, Slots)
		for slot, v := range buf {
			n.loaded[slot] = v != 0
		}
	} else if len(buf) != 0 {
		return nil, bad("%d slots", len(buf))
	}
	if buf, err = readPiece(r, buf); err != nil {
		return nil, err
	}
	payload := make([]float32, len(buf)/4)
	copy(floats.Bytes(payload), buf)
	parts, err := n.Decoder().Parts(payload)
	if err != nil {
		return nil, err
	}
	for i := range parts {
		if n.parts[parts[i].Shard] == nil {
			n.parts[parts[i].Shard] = n.copied(&parts[i])
			n.missing--
		}
	}
	return n, n.readUndos(r, buf)
}

// readLayers lays all layers over each other, and returns the step of the last and the piece behind it.
func (s *Store) readLayers(r io.Reader) (step id.Step, buf []byte, err error) {
	for {
		if buf, err = readPiece(r, buf); err != nil {
			return 0, nil, err
		}
		if len(buf) != layerHead || string(buf[:len(layerMagic)]) != layerMagic {
			return step, buf, nil
		}
		since := id.Step(binary.LittleEndian.Uint64(buf[len(layerMagic):]))
		if since != step {
			return 0, nil, bad("a layer goes over that of %v, not over that of %v", since, step)
		}
		step = id.Step(binary.LittleEndian.Uint64(buf[len(layerMagic)+8:]))
		for {
			if buf, err = readPiece(r, buf); err != nil {
				return 0, nil, err
			}
			if len(buf) == 0 {
				break
			}
			if err := s.Overlay(buf, nil); err != nil {
				return 0, nil, err
			}
		}
	}
}

type head struct{ step, keep, oldest, loading id.Step }

func (s *Store) readHead(b []byte) (h head, err error) {
	le := binary.LittleEndian
	if len(b) != len(snapshotMagic)+8*(6+4*len(s.tables)) || string(b[:len(snapshotMagic)]) != snapshotMagic {
		return h, bad("%d bytes are no head of a snapshot of these tables", len(b))
	}
	v := func(i int) uint64 { return le.Uint64(b[len(snapshotMagic)+8*i:]) }
	if v(0) != uint64(len(s.tables)) || v(1) != uint64(len(s.parts)) {
		return h, bad("it has %d tables and %d logical shards, not %d and %d", v(0), v(1), len(s.tables), len(s.parts))
	}
	for i, t := range s.tables {
		if w := v(6 + 4*i); w != uint64(t.width) {
			return h, bad("table %s has %d values in a row, not %d", t.cfg.Name, w, t.width)
		}
		t.stats.Admitted, t.stats.Expired, t.stats.Evicted = v(7+4*i), v(8+4*i), v(9+4*i)
	}
	return head{id.Step(v(2)), id.Step(v(3)), id.Step(v(4)), id.Step(v(5))}, nil
}

// readUndos reads notes up to an empty piece.
func (s *Store) readUndos(r io.Reader, buf []byte) (err error) {
	for {
		if buf, err = readPiece(r, buf); err != nil {
			return err
		}
		if len(buf) == 0 {
			break
		}
		u := &undo{tables: make([]before, len(s.tables))}
		w := &words{b: buf}
		for i, t := range s.tables {
			b := &u.tables[i]
			for range w.next() {
				r, values, rest, err := t.readRecord(w.b)
				if err != nil {
					return err
				}
				if w.b = rest; r.row != none {
					r.row = int32(len(b.values) / t.width)
					b.values = append(b.values, make([]float32, t.width)...)
					copy(floats.Bytes(b.values[len(b.values)-t.width:]), values)
				}
				b.records = append(b.records, r)
			}
		}
		if w.err != nil || len(w.b) > 0 {
			return bad("notes of a step end wrong")
		}
		s.undos = append(s.undos, u)
	}
	if id.Step(len(s.undos)) > s.step {
		return fmt.Errorf("%w: notes of %d steps before %v", ErrBad, len(s.undos), s.step)
	}
	for i, u := range s.undos {
		u.step = s.Oldest() + id.Step(i)
	}
	return nil
}
