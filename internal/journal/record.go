package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/musterml/muster/internal/floats"
)

// Record is what Append takes and Open gives back. Kind, A and B are the owner's.
type Record struct {
	Kind uint32 // below 1<<31
	Mark uint64 // see Trim
	A, B uint64
	Body []byte // when read, only valid during the call
}

const (
	magic       = "mstr-jn1"
	segmentHead = 24
	recordHead  = 40
	sector      = 512     // what a disk writes as one
	first       = 1 << 31 // in the kind of the first record of an Append: all before it was durable then
	maxBody     = 1 << 31 // bytes of a record
)

// Damage says where a journal is not what was written.
type Damage struct {
	File   string
	Offset int64 // of the record in the file
	What   string
}

func (d *Damage) Error() string {
	return fmt.Sprintf("%s is damaged at byte %d: %s", d.File, d.Offset, d.What)
}

func appendSegmentHead(b []byte, number uint64) []byte {
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint64(b, number)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[len(b)-16:], floats.Castagnoli))
	return binary.LittleEndian.AppendUint32(b, 0)
}

func appendHead(b []byte, r *Record, begins bool) []byte {
	at := len(b)
	kind := r.Kind
	if begins {
		kind |= first
	}
	b = binary.LittleEndian.AppendUint32(b, kind)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(r.Body, floats.Castagnoli))
	b = binary.LittleEndian.AppendUint64(b, r.Mark)
	b = binary.LittleEndian.AppendUint64(b, r.A)
	b = binary.LittleEndian.AppendUint64(b, r.B)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Body)))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[at:], floats.Castagnoli))
}

// parseHead is the inverse of appendHead; false when the head is not whole.
func parseHead(b []byte) (h head, ok bool) {
	le := binary.LittleEndian
	if crc32.Checksum(b[:recordHead-4], floats.Castagnoli) != le.Uint32(b[recordHead-4:]) {
		return h, false
	}
	h.Record = Record{Kind: le.Uint32(b) &^ first, Mark: le.Uint64(b[8:]), A: le.Uint64(b[16:]), B: le.Uint64(b[24:])}
	h.begins = le.Uint32(b)&first != 0
	h.crc, h.length = le.Uint32(b[4:]), int64(le.Uint32(b[32:]))
	return h, true
}

// head is what stands before a record's bytes.
type head struct {
	Record
	begins bool // an Append
	crc    uint32
	length int64
}

// torn tells whether bytes at an offset of a file look like a write that did not reach
// the disk: some sector's part of them is all zeros.
func torn(b []byte, offset int64) bool {
	for len(b) > 0 {
		n := min(len(b), sector-int(offset%sector))
		if bytes.Count(b[:n], []byte{0}) == n {
			return true
		}
		b, offset = b[n:], offset+int64(n)
	}
	return false
}
