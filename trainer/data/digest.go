package data

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
)

// digester gathers what identifies a Dataset.
type digester struct {
	hash hash.Hash
	buf  []byte
}

// newDigester begins with what is said in words.
func newDigester(format string, args ...any) *digester {
	d := &digester{hash: sha256.New(), buf: make([]byte, 0, 64<<10)}
	fmt.Fprintf(d.hash, format, args...)
	return d
}

func (d *digester) uint32(v uint32) {
	if len(d.buf) == cap(d.buf) {
		d.flush()
	}
	d.buf = binary.LittleEndian.AppendUint32(d.buf, v)
}

func (d *digester) ints(list []int32) {
	for _, v := range list {
		d.uint32(uint32(v))
	}
}

func (d *digester) floats(list []float32) {
	for _, v := range list {
		d.uint32(math.Float32bits(v))
	}
}

func (d *digester) flush() {
	d.hash.Write(d.buf)
	d.buf = d.buf[:0]
}

func (d *digester) sum() (sum Digest) {
	d.flush()
	d.hash.Sum(sum[:0])
	return sum
}
