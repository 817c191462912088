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

// A snapshot is everything that replicas have in common, in pieces of a length and an encoding: a head, the slots in pieces
// that end with an empty one, the parts of the step that is not done, and the notes. It is of the moment at
// which it was begun, although it is written while steps go on.

// Snapshot is written by Write; Close ends it.
type Snapshot struct {
	s       *Store
	lock    func(do func()) // runs do while the store does not change
	step    id.Step
	oldest  id.Step // that can be read
	release func()
	head    []byte
	rest    [][]byte
}

const snapshotMagic = "mstrrow1"

// Snapshot begins one. lock is used by Write and Close, which may run beside anything.
func (s *Store) Snapshot(lock func(do func())) *Snapshot {
	le := binary.LittleEndian
	n := &Snapshot{s: s, lock: lock}
	n.step, n.release = s.Hold()
	n.oldest = s.Oldest()
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

// pieceBytes bounds, about, what is written while the store is held up.
const pieceBytes = 1 << 20

// slotsAtOnce is how many slots a piece has.
func (s *Store) slotsAtOnce() int {
	bytes := int64(0)
	for _, st := range s.Stats() {
		bytes += st.Bytes
	}
	return int(min(max(1, pieceBytes*Slots/(bytes+1)), 64))
}

// Write writes the snapshot, once.
func (n *Snapshot) Write(w io.Writer) error {
	err := writePiece(w, n.head)
	var piece []byte
	each := 1
	for slot := 0; slot < Slots && err == nil; slot += each {
		n.lock(func() {
			each = min(n.s.slotsAtOnce(), Slots-slot)
			piece, err = n.s.appendSlots(piece[:0], n.step, 0, n.oldest, slot, slot+each)
		})
		if err == nil && len(piece) > 0 {
			err = writePiece(w, piece)
		}
	}
	if err == nil {
		err = writePiece(w, nil)
	}
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
func (n *Snapshot) Close() { n.lock(n.release) }

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
	buf, err := readPiece(r, nil)
	if err != nil {
		return nil, err
	}
	head, err := n.readHead(buf)
	if err != nil {
		return nil, err
	}
	for {
		if buf, err = readPiece(r, buf); err != nil {
			return nil, err
		}
		if len(buf) == 0 {
			break
		}
		if err := n.Overlay(buf, nil); err != nil {
			return nil, err
		}
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
