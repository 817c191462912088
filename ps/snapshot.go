package ps

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/musterml/muster/internal/crash"
	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/ps/table"
)

// A snapshot is a header, one record for each version of each block (ascending by block
// and place) and an end record. All integers are little-endian, all heads 32 bytes:
//
//	header: magic[8] params:u64 block_size:u64 shard:u16 shards:u16 slots:u32
//	record: kind:u32 block:u32 place:u32 crc:u32 step:u64 length:u64, then length bytes
//	end:    kind:u32 0:u32     0:u32     crc:u32 count:u64 applied:u64
//
// Where there are sparse tables, their snapshot comes before all this (package table).
//
// A record's crc is of its bytes; the end's is of all heads, its own with a crc of 0.
// The snapshot is of one moment, after the entry at applied, although it is written
// while the shard goes on: it holds references to versions, which never change.
const (
	snapshotHead  = 32
	snapshotMagic = "mstr-ps1"
	recordVersion = 1
	recordEnd     = 2
)

// ErrSnapshot is returned when a snapshot is damaged, cut short, or of another layout.
var ErrSnapshot = errors.New("ps: bad snapshot")

type snapshotRecord struct {
	block, place int // the shard's own block number
	v            *version
}

// stateSnapshot is written once, or released.
type stateSnapshot struct {
	s       *shardState
	applied uint64
	records []snapshotRecord
	rows    *table.Snapshot // of the sparse tables; nil where there are none, or once released
}

// snapshot begins one; of sparse tables it has what steps from since on have seen, all with 0.
func (s *shardState) snapshot(since id.Step) *stateSnapshot {
	s.turn.Lock()
	defer s.turn.Unlock()
	rows := s.rows.snapshot(since)
	s.mu.Lock()
	defer s.mu.Unlock()
	return &stateSnapshot{s: s, applied: s.applied, rows: rows, records: s.retainAll()}
}

// retainAll returns all versions, each with a reference for the caller to release. mu is held.
func (s *shardState) retainAll() []snapshotRecord {
	records := make([]snapshotRecord, 0, 2*len(s.blocks))
	for i := range s.blocks {
		for place, v := range s.blocks[i] {
			if v != nil {
				v.retain()
				records = append(records, snapshotRecord{i, place, v})
			}
		}
	}
	return records
}

// release gives back every version not written.
func (n *stateSnapshot) release() {
	for _, r := range n.records {
		r.v.release()
	}
	n.records = nil
	if n.rows != nil {
		n.rows.Close()
		n.rows = nil
	}
}

func (s *shardState) snapshotHeader() []byte {
	h := append(make([]byte, 0, snapshotHead), snapshotMagic...)
	h = binary.LittleEndian.AppendUint64(h, uint64(s.layout.Params))
	h = binary.LittleEndian.AppendUint64(h, uint64(s.layout.BlockSize))
	h = binary.LittleEndian.AppendUint16(h, uint16(s.shard))
	h = binary.LittleEndian.AppendUint16(h, uint16(s.layout.Shards))
	return binary.LittleEndian.AppendUint32(h, uint32(s.opt.Slots()))
}

func appendHead(b []byte, kind, block, place, crc uint32, step, length uint64) []byte {
	for _, v := range [...]uint32{kind, block, place, crc} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	b = binary.LittleEndian.AppendUint64(b, step)
	return binary.LittleEndian.AppendUint64(b, length)
}

// writeLayer writes the layer of the sparse tables, which comes before all else.
func (n *stateSnapshot) writeLayer(w io.Writer) error {
	if n.rows == nil {
		return nil
	}
	return n.rows.WriteLayer(w)
}

// write releases each version as soon as it is written, so that a snapshot holds back
// as little memory as it can.
func (n *stateSnapshot) write(w io.Writer) error {
	if n.rows != nil {
		if err := n.rows.WriteRest(w); err != nil {
			return err
		}
	}
	head := n.s.snapshotHeader()
	heads := crc32.Update(0, floats.Castagnoli, head)
	if _, err := w.Write(head); err != nil {
		return err
	}
	count := uint64(0)
	for ; len(n.records) > 0; n.records = n.records[1:] {
		r := n.records[0]
		data := floats.Bytes(r.v.data)
		head = appendHead(head[:0], recordVersion, uint32(r.block), uint32(r.place),
			floats.Checksum(0, r.v.data), uint64(r.v.step), uint64(len(data)))
		heads = crc32.Update(heads, floats.Castagnoli, head)
		if _, err := w.Write(head); err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
		crash.At("ps.snapshot-record")
		r.v.release()
		count++
	}
	head = appendHead(head[:0], recordEnd, 0, 0, 0, count, n.applied)
	heads = crc32.Update(heads, floats.Castagnoli, head)
	_, err := w.Write(appendHead(head[:0], recordEnd, 0, 0, heads, count, n.applied))
	return err
}

// restore replaces the whole state by a snapshot. When the snapshot is bad the state
// stays as it was. No length read from it is believed: every one follows from the layout.
func (s *shardState) restore(r io.Reader) error {
	from := bufio.NewReaderSize(r, 1<<18)
	rows, err := s.rows.readSnapshot(from)
	var blocks []blockState
	var applied uint64
	if err == nil {
		blocks, applied, err = s.readSnapshot(from)
	}
	if err != nil {
		dropBlocks(blocks)
		return fmt.Errorf("%w: %v: %w", ErrSnapshot, s.shard, err)
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	s.rows.replace(rows)
	s.mu.Lock()
	s.blocks, blocks = blocks, s.blocks
	s.applied = applied
	s.mu.Unlock()
	dropBlocks(blocks)
	return nil
}

func dropBlocks(blocks []blockState) {
	for _, b := range blocks {
		for _, v := range b {
			if v != nil {
				v.release()
			}
		}
	}
}

func (s *shardState) readSnapshot(r io.Reader) (blocks []blockState, applied uint64, err error) {
	var head [snapshotHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, 0, err
	}
	if want := s.snapshotHeader(); string(head[:]) != string(want) {
		return nil, 0, fmt.Errorf("header %x is not of this layout, whose is %x", head, want)
	}
	heads := crc32.Update(0, floats.Castagnoli, head[:])
	blocks = make([]blockState, len(s.blocks))
	after := -1 // place of the last record among all, 2*block+place
	for count := uint64(0); ; count++ {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return blocks, 0, err
		}
		le := binary.LittleEndian
		kind, block, place, crc := le.Uint32(head[:]), le.Uint32(head[4:]), le.Uint32(head[8:]), le.Uint32(head[12:])
		step, length := le.Uint64(head[16:]), le.Uint64(head[24:])
		if kind == recordEnd {
			clear(head[12:16])
			if crc != crc32.Update(heads, floats.Castagnoli, head[:]) || step != count {
				return blocks, 0, fmt.Errorf("end after %d records does not match what it says of %d", count, step)
			}
			return blocks, length, nil
		}
		heads = crc32.Update(heads, floats.Castagnoli, head[:])
		if kind != recordVersion || int64(block) >= int64(len(blocks)) || place > 1 || int(2*block+place) <= after {
			return blocks, 0, fmt.Errorf("record %d of kind %d for block %d, place %d", count, kind, block, place)
		}
		after = int(2*block + place)
		v, err := s.readVersion(r, int(block), id.Step(step), crc, length)
		if err != nil {
			return blocks, 0, err
		}
		if other := blocks[block][1-place]; other != nil && other.step == v.step {
			v.release()
			return blocks, 0, fmt.Errorf("block %d has step %d twice", block, step)
		}
		blocks[block][place] = v
	}
}

func (s *shardState) readVersion(r io.Reader, i int, step id.Step, crc uint32, length uint64) (*version, error) {
	block := s.layout.block(s.shard, i)
	lo, hi := s.layout.Range(block)
	n := (hi-lo)*(1+s.opt.Slots()) + s.layout.Parts
	if length != uint64(4*n) {
		return nil, fmt.Errorf("block %d has %d bytes, must have %d", block, length, 4*n)
	}
	v := s.pool.get(step, n)
	if _, err := io.ReadFull(r, floats.Bytes(v.data)); err != nil {
		v.release()
		return nil, err
	}
	if floats.Checksum(0, v.data) != crc {
		v.release()
		return nil, fmt.Errorf("block %d: checksum differs", block)
	}
	return v, nil
}
