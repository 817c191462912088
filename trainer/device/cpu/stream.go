package cpu

import (
	"errors"
	"fmt"
	"math"

	"github.com/musterml/muster/trainer/device"
)

// memory is a device.Memory: one of the three slices. For a port the slice is the host's own
// while bound, nil otherwise.
type memory struct {
	owner *stream
	kind  device.Kind
	n     int
	port  bool
	f     []float32
	i     []int32
	u     []uint8
}

func (m *memory) Kind() device.Kind { return m.kind }
func (m *memory) Len() int          { return m.n }

// stream is a device.Stream whose operations run when they are called.
type stream struct {
	k      *kernels
	err    error // the first since the last Sync
	closed bool
	bound  []*memory

	t       tile
	strip   strip
	panel   []float32                      // packed panels of B
	block   []float32                      // a compact block of A, and
	rows    []int32                        // where its rows are
	flipped []float32                      // a product computed transposed, and
	starts  []float32                      // what its rows start from
	chosen  chosen                         // paths of products
	offsets                                // of matrix products
	plans   map[device.ConvShape]*convPlan // by geometry, N = 0

	// Scratch of operations, by whatever size was met.
	few       []float64    // of rows of few logits, and
	exps      []float64    // those of them that are not used yet
	row       []float32    // of one row of many logits
	scores    []float32    // of attention, see type attention
	parts     []float32    // of batch normalisation, see type channels
	sums      []float64    //
	weights   []float32    // of convolutions: packed, or their gradient before it has their layout
	slots     [2][]float32 // of an update
	added     [][]float32  // that are summed, and
	multiples []int32      // of a block of them
	dropout   dropout
	interact  interaction
	phased    []float32 // one phase of a gradient of the data
}

var _ device.Stream = (*stream)(nil)

// errClosed is returned by Sync when something was asked of a closed stream.
var errClosed = errors.New("the stream is closed")

// floorNone is the floor that changes nothing.
var floorNone = float32(math.Inf(-1))

func newStream(k *kernels) *stream {
	return &stream{
		k:       k,
		offsets: offsets{all: map[int][]int32{}},
		plans:   map[device.ConvShape]*convPlan{},
	}
}

// Alloc implements device.Stream.
func (s *stream) Alloc(kind device.Kind, n int) (device.Memory, error) {
	if n < 1 {
		return nil, fmt.Errorf("a memory of %d elements cannot be made", n)
	}
	m := &memory{owner: s, kind: kind, n: n}
	switch kind {
	case device.Float32:
		m.f = make([]float32, n)
	case device.Int32:
		m.i = make([]int32, n)
	case device.Uint8:
		m.u = make([]uint8, n)
	default:
		return nil, fmt.Errorf("a memory of %v cannot be made", kind)
	}
	return m, nil
}

// Port implements device.Stream. Bound, it is the host's memory itself.
func (s *stream) Port(kind device.Kind, n int) (device.Memory, error) {
	if n < 1 || (kind != device.Float32 && kind != device.Int32) {
		return nil, fmt.Errorf("a port of %d elements of %v cannot be made", n, kind)
	}
	return &memory{owner: s, kind: kind, n: n, port: true}, nil
}

// Bind implements device.Stream.
func (s *stream) Bind(p device.Memory, host []float32, _ device.Direction) {
	if m := s.bindable(p, device.Float32, len(host)); m != nil {
		m.f = host
	}
}

// BindInt32 implements device.Stream.
func (s *stream) BindInt32(p device.Memory, host []int32) {
	if m := s.bindable(p, device.Int32, len(host)); m != nil {
		m.i = host
	}
}

func (s *stream) bindable(p device.Memory, kind device.Kind, n int) *memory {
	m, ok := p.(*memory)
	switch {
	case !ok || m.owner != s || !m.port || m.kind != kind:
		s.fail(fmt.Errorf("bind: not a %v port of this stream", kind))
		return nil
	case n > m.n:
		s.fail(fmt.Errorf("bind: %d elements given to a port of %d", n, m.n))
		return nil
	}
	s.bound = append(s.bound, m)
	return m
}

// Flush implements device.Stream: the host's memory was written to directly.
func (s *stream) Flush(device.Buffer) {}

// Fetch implements device.Stream: both streams' operations are done when they return.
func (s *stream) Fetch(dst device.Buffer, from device.Stream, src device.Buffer) {
	other, ok := from.(*stream)
	if !ok || dst.Len != src.Len {
		s.fail(fmt.Errorf("fetch: %d elements of a stream of another device, to %d", src.Len, dst.Len))
		return
	}
	to, x := s.floats("fetch", "dst", dst, dst.Len), other.floats("fetch", "src", src, src.Len)
	if s.err == nil && other.err == nil {
		copy(to, x)
	}
}

// Tell implements device.Stream.
func (s *stream) Tell(n int, told func(n int)) {
	if s.err == nil {
		told(n)
	}
}

// Sync implements device.Stream.
func (s *stream) Sync() error {
	for i, m := range s.bound {
		m.f, m.i, s.bound[i] = nil, nil, nil
	}
	s.bound = s.bound[:0]
	s.t, s.strip = tile{}, strip{} // hold on to nobody's memory
	err := s.err
	if !s.closed {
		s.err = nil
	}
	return err
}

// Close implements device.Stream; the garbage collector does the rest.
func (s *stream) Close() error {
	if s.closed {
		return nil
	}
	err := s.Sync()
	s.err, s.closed = errClosed, true
	return err
}

func (s *stream) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// floats is the n elements of b, or nil after recording what is wrong with it.
func (s *stream) floats(op, name string, b device.Buffer, n int) []float32 {
	m, ok := b.Mem.(*memory)
	if !ok || m.owner != s || b.Off < 0 || b.Len < n || b.Len > m.n-b.Off || n > len(m.f)-b.Off {
		s.unfit(op, name, b, n)
		return nil
	}
	return m.f[b.Off : b.Off+n : b.Off+n]
}

// unfit records why b is not n floats. It is apart from floats since the smallest products notice what a call takes.
func (s *stream) unfit(op, name string, b device.Buffer, n int) {
	if m := s.look(op, name, b, n, device.Float32); m != nil {
		s.fail(fmt.Errorf("%s: operand %s lies outside what its port is bound to (%d elements)", op, name, len(m.f)))
	}
}

// optional is floats, but nil without a fault when b is none.
func (s *stream) optional(op, name string, b device.Buffer, n int) []float32 {
	if b.IsNone() {
		return nil
	}
	return s.floats(op, name, b, n)
}

func (s *stream) bytes(op, name string, b device.Buffer, n int) []uint8 {
	m := s.look(op, name, b, n, device.Uint8)
	if m == nil {
		return nil
	}
	return m.u[b.Off : b.Off+n : b.Off+n]
}

func (s *stream) ints(op, name string, b device.Buffer, n int) []int32 {
	m := s.look(op, name, b, n, device.Int32)
	if m == nil {
		return nil
	}
	if b.Off+n > len(m.i) {
		s.fail(fmt.Errorf("%s: operand %s lies outside what its port is bound to (%d elements)", op, name, len(m.i)))
		return nil
	}
	return m.i[b.Off : b.Off+n : b.Off+n]
}

func (s *stream) look(op, name string, b device.Buffer, n int, kind device.Kind) *memory {
	m, ok := b.Mem.(*memory)
	switch {
	case !ok || m.owner != s:
		s.fail(fmt.Errorf("%s: operand %s is not a memory of this stream", op, name))
	case m.kind != kind:
		s.fail(fmt.Errorf("%s: operand %s holds %v, not %v", op, name, m.kind, kind))
	case b.Off < 0 || b.Len < 0 || b.Off+b.Len > m.n:
		s.fail(fmt.Errorf("%s: operand %s is [%d, %d) of a memory of %d", op, name, b.Off, b.Off+b.Len, m.n))
	case b.Len < n:
		s.fail(fmt.Errorf("%s: operand %s has %d elements, the shape needs %d", op, name, b.Len, n))
	default:
		return m
	}
	return nil
}
