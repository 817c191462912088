package collective

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/musterml/muster/collective/vec"
)

var kernels = vec.Best()

// Vector is a slice that the ring works on: Int32s or Float32s. It is the slice's memory, not a copy. A reduction finds this rank's
// contribution in it and leaves the result there, unless it is told otherwise (From).
type Vector struct {
	raw   []byte
	own   []byte // this rank's contribution, where it is
	apart bool   // from raw
	float bool
	form  Form // of a sum of float32; nil: what lies in raw travels
}

// Int32s lets the ring work on x.
func Int32s(x []int32) Vector {
	return Vector{raw: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), elemSize*len(x))}
}

// Float32s lets the ring work on x.
func Float32s(x []float32) Vector {
	return Vector{raw: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), elemSize*len(x)), float: true}
}

// From has a reduction read this rank's contribution from src, which is as long, does not overlap v and is only read: whatever
// becomes of the operation, src is what it was.
func (v Vector) From(src []float32) Vector {
	v.own, v.apart = Float32s(src).raw, true
	return v
}

// Len is the number of elements.
func (v Vector) Len() int { return len(v.raw) / elemSize }

func (v Vector) bytes(lo, hi int) []byte { return v.raw[elemSize*lo : elemSize*hi] }

// input is where this rank's contribution to elements [lo, hi) lies.
func (v Vector) input(lo, hi int) []byte {
	if !v.apart {
		return v.bytes(lo, hi)
	}
	return v.own[elemSize*lo : elemSize*hi]
}

// checkInput refuses a contribution that cannot be one to x.
func (v Vector) checkInput(f Reduce) error {
	switch {
	case !v.apart:
		return nil
	case f == 0 || !v.float:
		return fmt.Errorf("%w: a contribution apart from its vector, where no floats are reduced", ErrArgument)
	case len(v.own) != len(v.raw):
		return fmt.Errorf("%w: a contribution of %d elements to a vector of %d", ErrArgument, len(v.own)/elemSize, v.Len())
	case overlap(v.own, v.raw):
		return fmt.Errorf("%w: a contribution that overlaps its vector", ErrArgument)
	}
	return nil
}

func overlap(a, b []byte) bool {
	x, y := uintptr(unsafe.Pointer(unsafe.SliceData(a))), uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	return x < y+uintptr(len(b)) && y < x+uintptr(len(a))
}

func asInt32(b []byte) []int32 {
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/elemSize)
}

func asFloat32(b []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/elemSize)
}

// littleEndian: vectors travel as they lie in memory, so a big-endian host cannot take part.
func littleEndian() bool { return binary.NativeEndian.Uint16([]byte{1, 0}) == 1 }

// Reduce is how two elements become one. It also fixes the element's type.
type Reduce uint8

const (
	// SumInt32 adds, modulo 2^32 (the caller sees to it that nothing overflows; Exact does).
	SumInt32 Reduce = iota + 1
	// MaxInt32 keeps the larger.
	MaxInt32
	// SumFloat32 adds with float32 rounding, in an order that depends on the ring; the result is the same on all ranks.
	SumFloat32
	// The sums of a Form.
	sumBF16
	sumInt8
	sumExact
)

func (f Reduce) String() string {
	switch f {
	case 0:
		return "none"
	case SumInt32:
		return "SumInt32"
	case MaxInt32:
		return "MaxInt32"
	case SumFloat32:
		return "SumFloat32"
	case sumBF16:
		return "SumBF16"
	case sumInt8:
		return "SumInt8"
	case sumExact:
		return "SumExact"
	}
	return fmt.Sprintf("Reduce(%d)", uint8(f))
}

func (f Reduce) check(x Vector) error {
	switch f {
	case SumInt32, MaxInt32:
		if x.float {
			return fmt.Errorf("%w: %v of a vector of floats", ErrArgument, f)
		}
	case SumFloat32:
		if !x.float {
			return fmt.Errorf("%w: %v of a vector that is not of float32", ErrArgument, f)
		}
	default:
		return fmt.Errorf("%w: unknown %v", ErrArgument, f)
	}
	return nil
}

// apply reduces src into dst; both have the same length.
func (f Reduce) apply(dst, src []byte) {
	switch f {
	case SumInt32:
		kernels.AddInt32(asInt32(dst), asInt32(src))
	case MaxInt32:
		kernels.MaxInt32(asInt32(dst), asInt32(src))
	case SumFloat32:
		kernels.AddFloat32(asFloat32(dst), asFloat32(src))
	}
}
