package table

import (
	"encoding/binary"
	"slices"

	"github.com/musterml/muster/internal/floats"
)

// Dealer deals rows to the shards that keep them, in the encodings that a Decoder reads. Its memory is used again by each call.
type Dealer struct {
	// Payloads is by shard.
	Payloads [][]byte
	// Shards is of each key, in the order in which the call was given them.
	Shards []uint16

	dims   []int
	counts []int // keys by part, table and shard
	dealt  int   // of Shards

	keyAt, valueAt []int // in the payloads
}

// NewDealer makes one.
func NewDealer(configs []Config, shards int) *Dealer {
	d := &Dealer{Payloads: make([][]byte, shards)}
	for _, c := range configs {
		d.dims = append(d.dims, c.Dim)
	}
	return d
}

// Parts encodes parts for every shard, also one that keeps nothing of them.
func (d *Dealer) Parts(parts []Part) {
	d.begin(parts)
	for shard := range d.Payloads {
		d.word(shard, len(parts))
	}
	for i := range parts {
		for shard := range d.Payloads {
			d.word(shard, int(parts[i].Shard))
		}
		d.heads(i)
	}
	for i := range parts {
		for j, r := range parts[i].Tables {
			d.rows(i, j, r, 4*d.dims[j])
		}
	}
}

// Keys encodes what Pull is asked for; the values do not matter.
func (d *Dealer) Keys(tables []Rows) {
	d.begin([]Part{{Tables: tables}})
	d.heads(0)
	for j, r := range tables {
		d.rows(0, j, r, 0)
	}
}

// begin finds the shards of all keys, and counts them.
func (d *Dealer) begin(parts []Part) {
	shards := len(d.Payloads)
	d.dealt, d.Shards, d.counts = 0, d.Shards[:0], sized(d.counts, len(parts)*len(d.dims)*shards)
	clear(d.counts)
	for i := range parts {
		for j, r := range parts[i].Tables {
			n := d.of(i, j)
			for _, k := range r.Keys {
				shard := Slot(k) % shards
				d.Shards = append(d.Shards, uint16(shard))
				n[shard]++
			}
		}
	}
	for shard, b := range d.Payloads {
		d.Payloads[shard] = b[:0]
	}
}

// of is the counts of one table of a part, by shard.
func (d *Dealer) of(part, table int) []int {
	shards := len(d.Payloads)
	return d.counts[(part*len(d.dims)+table)*shards:][:shards]
}

func (d *Dealer) word(shard, v int) {
	d.Payloads[shard] = binary.LittleEndian.AppendUint32(d.Payloads[shard], uint32(v))
}

func (d *Dealer) heads(part int) {
	for j := range d.dims {
		for shard, n := range d.of(part, j) {
			d.word(shard, n)
		}
	}
}

// rows writes the keys of one table of a part, and behind them their rows of so many bytes, to the shards. Tables are dealt in
// the order in which begin saw them.
func (d *Dealer) rows(part, table int, r Rows, bytes int) {
	d.keyAt, d.valueAt = d.keyAt[:0], d.valueAt[:0]
	for shard, n := range d.of(part, table) {
		at := len(d.Payloads[shard])
		d.keyAt, d.valueAt = append(d.keyAt, at), append(d.valueAt, at+8*n)
		d.Payloads[shard] = slices.Grow(d.Payloads[shard], n*(8+bytes))[:at+n*(8+bytes)]
	}
	values := floats.Bytes(r.Values)
	for i, k := range r.Keys {
		shard := d.Shards[d.dealt+i]
		b := d.Payloads[shard]
		binary.LittleEndian.PutUint64(b[d.keyAt[shard]:], k)
		d.keyAt[shard] += 8
		if bytes > 0 {
			d.valueAt[shard] += copy(b[d.valueAt[shard]:], values[i*bytes:(i+1)*bytes])
		}
	}
	d.dealt += len(r.Keys)
}
