package table

import (
	"encoding/binary"
	"fmt"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
)

// Part is the gradients of one logical shard in one step.
type Part struct {
	Shard  id.LogicalShard
	Tables []Rows

	kept bool // a copy that belongs to a store
}

// Rows are keys of one table, ascending, each once, and a row of values for each.
type Rows struct {
	Keys   []uint64
	Values []float32 // (len(Keys), Dim)
}

// Parts travel as 32-bit words, little-endian: the number of parts; for each its logical shard and for each table the
// number of keys; then for each part and table the keys, and the values. It is the bytes of a payload, which are floats.

// AppendParts encodes parts.
func AppendParts(dst []byte, parts []Part) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, uint32(len(parts)))
	for _, p := range parts {
		dst = le.AppendUint32(dst, uint32(p.Shard))
		for _, r := range p.Tables {
			dst = le.AppendUint32(dst, uint32(len(r.Keys)))
		}
	}
	for _, p := range parts {
		for _, r := range p.Tables {
			dst = appendKeys(dst, r.Keys)
			dst = append(dst, floats.Bytes(r.Values)...)
		}
	}
	return dst
}

func appendKeys(dst []byte, keys []uint64) []byte {
	for _, k := range keys {
		dst = binary.LittleEndian.AppendUint64(dst, k)
	}
	return dst
}

// Decoder reads encodings for a store, of which it knows only what never changes; its memory is used again by each call.
type Decoder struct {
	shard, shards, logical int
	dims                   []int

	parts []Part
	keys  [][]uint64
}

// Decoder makes one.
func (s *Store) Decoder() *Decoder {
	d := &Decoder{shard: s.shard, shards: s.shards, logical: len(s.parts), keys: make([][]uint64, len(s.tables))}
	for _, t := range s.tables {
		d.dims = append(d.dims, t.cfg.Dim)
	}
	return d
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBad, fmt.Sprintf(format, args...))
}

// words reads the front of an encoding.
type words struct {
	b   []byte
	err error
}

func (w *words) next() uint32 {
	if len(w.b) < 4 {
		if w.err == nil {
			w.err = bad("it ends early")
		}
		return 0
	}
	v := binary.LittleEndian.Uint32(w.b)
	w.b = w.b[4:]
	return v
}

// Parts decodes and checks parts; every key must be one of this shard. Their values stay where they are.
func (d *Decoder) Parts(payload []float32) ([]Part, error) {
	b := floats.Bytes(payload)
	w := &words{b: b}
	n := int(w.next())
	if n > d.logical {
		return nil, bad("%d parts, there are %d logical shards", n, d.logical)
	}
	for len(d.parts) < n {
		d.parts = append(d.parts, Part{Tables: make([]Rows, len(d.dims))})
	}
	parts := d.parts[:n]
	size := 0
	for i := range parts {
		parts[i].Shard = id.LogicalShard(w.next())
		if uint(parts[i].Shard) >= uint(d.logical) {
			return nil, bad("a part of %v, there are %d", parts[i].Shard, d.logical)
		}
		for j, dim := range d.dims {
			keys := int(w.next())
			if size += keys * (8 + 4*dim); size > len(b) {
				return nil, bad("%d keys do not fit in", keys)
			}
			parts[i].Tables[j].Keys = sized(parts[i].Tables[j].Keys, keys)
		}
	}
	if w.err != nil || len(w.b) != size {
		return nil, bad("%d bytes behind the heads of %d parts, must be %d", len(w.b), n, size)
	}
	rest := w.b
	for i := range parts {
		for j, dim := range d.dims {
			r := &parts[i].Tables[j]
			var err error
			if rest, err = d.readKeys(r.Keys, rest); err != nil {
				return nil, err
			}
			n := len(r.Keys) * dim
			r.Values, rest = payload[len(payload)-len(rest)/4:][:n:n], rest[4*n:]
		}
	}
	return parts, nil
}

func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/4)
	}
	return s[:n]
}

// readKeys checks that they ascend and are of this shard.
func (d *Decoder) readKeys(dst []uint64, b []byte) (rest []byte, err error) {
	for i := range dst {
		k := binary.LittleEndian.Uint64(b[8*i:])
		if i > 0 && k <= dst[i-1] {
			return nil, bad("keys %x and %x do not ascend", dst[i-1], k)
		}
		if Slot(k)%d.shards != d.shard {
			return nil, bad("key %x is not of shard %d of %d", k, d.shard, d.shards)
		}
		dst[i] = k
	}
	return b[8*len(dst):], nil
}

// Keys decodes what Pull is asked for: for each table the number of keys, then the keys. values is how many floats their rows have.
func (d *Decoder) Keys(b []byte) (keys [][]uint64, values int, err error) {
	w := &words{b: b}
	size := 0
	for j, dim := range d.dims {
		n := int(w.next())
		if size += 8 * n; size > len(b) {
			return nil, 0, bad("%d keys do not fit in", n)
		}
		values += n * dim
		d.keys[j] = sized(d.keys[j], n)
	}
	if w.err != nil || len(w.b) != size {
		return nil, 0, bad("%d bytes of keys, must be %d", len(w.b), size)
	}
	rest := w.b
	for j := range d.dims {
		if rest, err = d.readKeys(d.keys[j], rest); err != nil {
			return nil, 0, err
		}
	}
	return d.keys, values, nil
}
