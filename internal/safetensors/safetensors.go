package safetensors

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Tensor is a named array of float32, or of uint64, in row-major order.
type Tensor struct {
	Name  string
	Shape []int     // each at least 0; empty for a single number
	Data  []float32 // as many as the product of Shape
	Keys  []uint64  // the same, in its place, of a tensor of uint64; else nil
}

// File is the content of a safetensors file.
type File struct {
	Tensors  []Tensor // sorted by name
	Metadata map[string]string
}

// Tensor finds a tensor by its name.
func (f *File) Tensor(name string) (Tensor, bool) {
	i, ok := slices.BinarySearchFunc(f.Tensors, name, func(t Tensor, name string) int { return strings.Compare(t.Name, name) })
	if !ok {
		return Tensor{}, false
	}
	return f.Tensors[i], true
}

const (
	// metadataKey is the one name in the header that is no tensor.
	metadataKey = "__metadata__"

	// maxHeader is the limit that the reference implementation sets too.
	maxHeader = 100_000_000

	// The element types that we write, and read.
	dtype     = "F32"
	keyType   = "U64"
	elemBytes = 4
)

// kind is a tensor's element type, the bytes of an element, and how many there are.
func (t *Tensor) kind() (name string, bytes, n int64) {
	if t.Keys != nil {
		return keyType, 8, int64(len(t.Keys))
	}
	return dtype, elemBytes, int64(len(t.Data))
}

// ErrInvalid is returned, wrapped, when tensors cannot be written as they are or a file
// is not a safetensors file that we read.
var ErrInvalid = errors.New("not valid safetensors")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// elements is the product of a shape, or false if it is negative or absurd.
func elements(shape []int) (int64, bool) {
	const most = int64(1) << 48 // floats; far beyond any disk, and times four still no overflow
	n := int64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		if d > 0 && n > most/int64(d) {
			return 0, false
		}
		n *= int64(d)
	}
	return n, true
}

// sorted checks the tensors and gives them in the order of the file.
func sorted(tensors []Tensor) ([]Tensor, error) {
	tensors = slices.Clone(tensors)
	slices.SortFunc(tensors, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
	for i, t := range tensors {
		_, _, have := t.kind()
		switch n, ok := elements(t.Shape); {
		case t.Name == "" || t.Name == metadataKey || !utf8.ValidString(t.Name):
			return nil, invalid("a tensor cannot be named %q", t.Name)
		case i > 0 && tensors[i-1].Name == t.Name:
			return nil, invalid("two tensors are named %q", t.Name)
		case !ok || n != have || t.Keys != nil && t.Data != nil:
			return nil, invalid("tensor %q of shape %v has %d numbers", t.Name, t.Shape, have)
		}
	}
	// Those of the largest elements first, so that all are aligned.
	slices.SortStableFunc(tensors, func(a, b Tensor) int {
		_, x, _ := a.kind()
		_, y, _ := b.kind()
		return cmp.Compare(y, x)
	})
	return tensors, nil
}
