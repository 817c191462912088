package device

import "errors"

// Kind is the type of the elements of a Memory.
type Kind uint8

// The kinds of elements.
const (
	Float32 Kind = iota
	Int32
	Uint8
	BFloat16 // 8 significant bits with float32's range; of a Keeper alone
)

func (k Kind) String() string {
	switch k {
	case Float32:
		return "float32"
	case Int32:
		return "int32"
	case Uint8:
		return "uint8"
	case BFloat16:
		return "bfloat16"
	}
	return "unknown kind"
}

// Memory is an allocation of a device. It is opaque: only the stream that made it
// can look inside.
type Memory interface {
	Kind() Kind
	Len() int // in elements
}

// Buffer is a range of a Memory: elements [Off, Off+Len). The zero Buffer means
// "none" where an operation has an optional operand.
type Buffer struct {
	Mem      Memory
	Off, Len int
}

// Whole is the buffer that covers all of m.
func Whole(m Memory) Buffer { return Buffer{Mem: m, Len: m.Len()} }

// Range is the part [off, off+n) of b. It is checked where it is used.
func (b Buffer) Range(off, n int) Buffer { return Buffer{Mem: b.Mem, Off: b.Off + off, Len: n} }

// IsNone tells whether b is the zero Buffer.
func (b Buffer) IsNone() bool { return b.Mem == nil }

// Device is a processor.
type Device interface {
	// Name says in words what computes, for logs: "cpu avx512".
	Name() string
	// Arithmetic names the class of results: two devices with the same string
	// give the same bits.
	Arithmetic() string
	// Streams is how many streams at work at once keep it busy.
	Streams() int
	// NewStream makes an ordered queue of operations with its own scratch memory.
	NewStream() (Stream, error)
}

// Direction says which way the contents of a bound memory go.
type Direction uint8

const (
	// In: the contents come from the host at Bind; operations only read them.
	In Direction = iota
	// Again is In for a slice that the port stood for when it was last bound, after a Sync without an error, where the port's contents are wanted
	// as they are: those of the slice then, and what operations have made of them since. A device with memory of its own copies nothing.
	Again
	// Out: the contents, as operations leave them, are on the host after Flush, and Tell or Sync.
	Out
)

// ErrFailed is wrapped by an error of a Device or a Stream that is the fault of the device and not of what was asked of it: it
// has no memory left, or has broken down. Another device may do the same work.
var ErrFailed = errors.New("the device has failed")

// Stream is an ordered queue of operations on a device. It is used by one goroutine
// at a time.
//
// A wrong operand (shape, kind, range, a foreign memory) is a fault of the caller; the
// first one is kept, later operations do nothing, and Sync returns it. Outputs must
// not overlap inputs unless the operation says so.
type Stream interface {
	// Alloc makes a zeroed memory of n elements.
	Alloc(kind Kind, n int) (Memory, error)
	// Port makes a memory of at most n elements that takes its contents from, or gives
	// them to, host slices (Bind). A device that shares the host's memory keeps no copy. On one that has its own, a port that is not bound is a memory as any
	// other.
	Port(kind Kind, n int) (Memory, error)

	// Bind makes the first len(host) elements of the port p stand for host. The host
	// slice belongs to the stream until the Sync after the last operation that uses it.
	Bind(p Memory, host []float32, dir Direction)
	// BindInt32 is Bind for memories of int32; they only go in.
	BindInt32(p Memory, host []int32)
	// Flush sends a part of a port bound Out to its host slice, as what was asked for so far leaves it, while what is asked for
	// from now on goes on: until Sync that must not write there. What goes beyond what the port is bound to is left out.
	Flush(b Buffer)
	// Tell calls told(n) when all that was flushed before is in the host's slices: at once where operations are done when they
	// return, else during Sync, in the order of the calls, while operations that were asked for later may still go on. It is called in
	// the goroutine that uses the stream, and not at all after an error. told must not use the stream.
	Tell(n int, told func(n int))
	// Fetch copies a part of a memory of another stream, of the same device or of one that computes with it as one (Several), when all is done that
	// was asked of both before. Of what is asked of the other one later, only what comes behind a Fetch from this stream waits for it.
	Fetch(dst Buffer, from Stream, src Buffer)
	// Sync waits until everything asked for is done, releases the bound host slices and
	// returns the first error since the last Sync.
	Sync() error
	// Close frees the stream and its memories.
	Close() error

	Ops
}
