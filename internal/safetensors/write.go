package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"unicode/utf8"

	"github.com/musterml/muster/internal/atomicfile"
)

// entry is a tensor's line in the header.
type entry struct {
	DType   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets span   `json:"data_offsets"`
}

// span is a range of bytes past the header, its end exclusive.
type span [2]int64

// Encode writes tensors, in any order, and metadata, which may be nil. Equal content
// gives equal bytes.
func Encode(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	tensors, err := sorted(tensors)
	if err != nil {
		return err
	}
	header, err := encodeHeader(tensors, metadata)
	if err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return err
	}
	buf := make([]byte, 0, 256<<10)
	for _, t := range tensors {
		for _, v := range t.Data {
			if len(buf) == cap(buf) {
				if _, err := w.Write(buf); err != nil {
					return err
				}
				buf = buf[:0]
			}
			buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
		}
		for _, v := range t.Keys {
			if len(buf) == cap(buf) {
				if _, err := w.Write(buf); err != nil {
					return err
				}
				buf = buf[:0]
			}
			buf = binary.LittleEndian.AppendUint64(buf, v)
		}
	}
	_, err = w.Write(buf)
	return err
}

// encodeHeader gives the length and the header, padded with spaces so that the data
// begins at a multiple of 8. Metadata comes first, then the tensors by name.
func encodeHeader(tensors []Tensor, metadata map[string]string) ([]byte, error) {
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	b.WriteByte('{')
	line := func(name string, value any) error {
		if b.Len() > 9 {
			b.WriteByte(',')
		}
		if err := writeJSON(&b, name); err != nil {
			return err
		}
		b.WriteByte(':')
		return writeJSON(&b, value)
	}
	if len(metadata) > 0 {
		for k, v := range metadata {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return nil, invalid("metadata %q: %q is not UTF-8", k, v)
			}
		}
		if err := line(metadataKey, metadata); err != nil { // encoding/json sorts the keys
			return nil, err
		}
	}
	at := int64(0)
	for _, t := range tensors {
		shape := t.Shape
		if shape == nil {
			shape = []int{} // JSON [] and not null
		}
		kind, size, n := t.kind()
		end := at + size*n
		if err := line(t.Name, entry{kind, shape, span{at, end}}); err != nil {
			return nil, err
		}
		at = end
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	out := b.Bytes()
	if len(out)-8 > maxHeader {
		return nil, invalid("the header would take %d bytes, more than the %d that readers accept", len(out)-8, maxHeader)
	}
	binary.LittleEndian.PutUint64(out, uint64(len(out)-8))
	return out, nil
}

// writeJSON is json.Marshal without the escaping of <, > and &.
func writeJSON(b *bytes.Buffer, v any) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // the newline that Encode adds
	return nil
}

// WriteFile writes tensors to a file, as a whole or not at all. Equal content gives equal
// bytes.
func WriteFile(path string, tensors []Tensor, metadata map[string]string) error {
	return atomicfile.Write(path, func(w io.Writer) error { return Encode(w, tensors, metadata) })
}
