package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
)

// ReadFile reads a file and checks all of it. Its errors name the file.
func ReadFile(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading a model: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading a model: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("reading a model: %s: %w", path, invalid("not a regular file"))
	}
	file, err := Decode(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("reading a model: %s: %w", path, err)
	}
	return file, nil
}

// Decode reads size bytes and checks all of them. It allocates no more than a small
// multiple of size.
func Decode(r io.Reader, size int64) (*File, error) {
	if size < 8+2 {
		return nil, invalid("%d bytes are too few for the length of a header and a header", size)
	}
	var length [8]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, truncated(err)
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > maxHeader {
		return nil, invalid("a header of %d bytes is announced, at most %d are allowed; this is probably another format", n, maxHeader)
	}
	if int64(n) > size-8 {
		return nil, invalid("a header of %d bytes is announced, but only %d follow: the file is truncated, or another format", n, size-8)
	}
	header := make([]byte, n)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, truncated(err)
	}
	entries, metadata, err := parseHeader(header)
	if err != nil {
		return nil, err
	}
	if err := checkLayout(entries, size-8-int64(n)); err != nil {
		return nil, err
	}
	file := &File{Metadata: metadata, Tensors: make([]Tensor, 0, len(entries))}
	buf := make([]byte, 256<<10)
	for _, e := range entries { // in the order of the data
		t := Tensor{Name: e.name, Shape: e.Shape}
		if e.DType == keyType {
			t.Keys = make([]uint64, (e.Offsets[1]-e.Offsets[0])/8)
			err = readKeys(r, t.Keys, buf)
		} else {
			t.Data = make([]float32, (e.Offsets[1]-e.Offsets[0])/elemBytes)
			err = readFloats(r, t.Data, buf)
		}
		if err != nil {
			return nil, truncated(err)
		}
		file.Tensors = append(file.Tensors, t)
	}
	slices.SortFunc(file.Tensors, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
	return file, nil
}

// truncated explains a read that ended early, though the size had promised more.
func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return invalid("the file became shorter while it was read")
	}
	return err
}

func readFloats(r io.Reader, dst []float32, buf []byte) error {
	for len(dst) > 0 {
		part := buf[:min(len(buf), elemBytes*len(dst))]
		if _, err := io.ReadFull(r, part); err != nil {
			return err
		}
		for i := range len(part) / elemBytes {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(part[elemBytes*i:]))
		}
		dst = dst[len(part)/elemBytes:]
	}
	return nil
}

func readKeys(r io.Reader, dst []uint64, buf []byte) error {
	for len(dst) > 0 {
		part := buf[:min(len(buf), 8*len(dst))]
		if _, err := io.ReadFull(r, part); err != nil {
			return err
		}
		for i := range len(part) / 8 {
			dst[i] = binary.LittleEndian.Uint64(part[8*i:])
		}
		dst = dst[len(part)/8:]
	}
	return nil
}

// namedEntry is a line of a header that was read.
type namedEntry struct {
	name string
	entry
}

// parseHeader reads the JSON object line by line, because encoding/json would silently
// keep the last of two tensors with one name.
func parseHeader(header []byte) ([]namedEntry, map[string]string, error) {
	if len(header) == 0 || header[0] != '{' {
		return nil, nil, invalid("the header does not begin with a brace")
	}
	d := json.NewDecoder(bytes.NewReader(header))
	d.DisallowUnknownFields()
	if _, err := d.Token(); err != nil {
		return nil, nil, invalid("the header is not JSON: %v", err)
	}
	var entries []namedEntry
	var metadata map[string]string
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return nil, nil, invalid("the header is not JSON: %v", err)
		}
		if seen[name] {
			return nil, nil, invalid("the header names %q twice", name)
		}
		seen[name] = true
		if name == metadataKey {
			if err := d.Decode(&metadata); err != nil {
				return nil, nil, invalid("the metadata is not a map of strings: %v", err)
			}
			continue
		}
		e := namedEntry{name: name}
		if err := d.Decode(&e.entry); err != nil {
			return nil, nil, invalid("tensor %q: %v", name, err)
		}
		if err := e.check(); err != nil {
			return nil, nil, err
		}
		entries = append(entries, e)
	}
	if _, err := d.Token(); err != nil {
		return nil, nil, invalid("the header is not JSON: %v", err)
	}
	if rest := bytes.TrimLeft(header[d.InputOffset():], " "); len(rest) > 0 {
		return nil, nil, invalid("the header goes on after its end")
	}
	return entries, metadata, nil
}

// UnmarshalJSON wants exactly two numbers; encoding/json would fill up or cut an array.
func (s *span) UnmarshalJSON(b []byte) error {
	var numbers []int64
	if err := json.Unmarshal(b, &numbers); err != nil {
		return err
	}
	if len(numbers) != len(s) {
		return fmt.Errorf("data_offsets has %d numbers in place of 2", len(numbers))
	}
	copy(s[:], numbers)
	return nil
}

func (e *namedEntry) check() error {
	size := int64(elemBytes)
	switch e.DType {
	case dtype:
	case keyType:
		size = 8
	default:
		return invalid("tensor %q has the element type %q; only %s and %s are read: convert the file first", e.name, e.DType, dtype, keyType)
	}
	n, ok := elements(e.Shape)
	if !ok || e.Shape == nil {
		return invalid("tensor %q has the absurd shape %v", e.name, e.Shape)
	}
	if from, to := e.Offsets[0], e.Offsets[1]; from < 0 || to < from || to-from != n*size {
		return invalid("tensor %q of shape %v needs %d bytes, but its offsets are %d to %d", e.name, e.Shape, n*size, from, to)
	}
	return nil
}

// checkLayout sorts the entries by place and sees that they fill the data exactly.
func checkLayout(entries []namedEntry, data int64) error {
	slices.SortFunc(entries, func(a, b namedEntry) int {
		if a.Offsets != b.Offsets {
			return slices.Compare(a.Offsets[:], b.Offsets[:])
		}
		return strings.Compare(a.name, b.name)
	})
	at := int64(0)
	for i, e := range entries {
		switch from := e.Offsets[0]; {
		case from < at:
			return invalid("tensors %q and %q overlap", entries[i-1].name, e.name)
		case from > at:
			return invalid("bytes %d to %d of the data belong to no tensor", at, from)
		}
		at = e.Offsets[1]
	}
	if at > data {
		return invalid("the header promises %d bytes of data, the file holds %d: it is truncated", at, data)
	}
	if at < data {
		return invalid("the header promises %d bytes of data, the file holds %d: it is damaged", at, data)
	}
	return nil
}
