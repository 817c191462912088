package cuda

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/musterml/muster/trainer/device"
)

// memory is a device.Memory. A port has a place in pinned memory besides, through which its contents come and go.
type memory struct {
	owner *stream
	kind  device.Kind
	n     int
	at    pointer

	port   bool
	bound  int       // elements; 0: not bound
	staged []byte    // pinned
	out    []float32 // bound Out: where the contents go at Sync
	flush  bool      // they have been asked for
}

func (m *memory) Kind() device.Kind { return m.kind }
func (m *memory) Len() int          { return m.n }

func sizeOf(k device.Kind) int {
	if k == device.Uint8 {
		return 1
	}
	return 4
}

// stream is a device.Stream: operations are checked, and asked of the queue.
type stream struct {
	d      *Device
	q      queue
	err    error // the first since the last Sync
	broken error // the driver has failed: nothing can be done any more, as CUDA's errors stay
	closed bool

	memories []*memory
	bound    []*memory
	scratch  [2]pointer // of the operations, which run one after another: parts of sums, and rows of losses
	sizes    [2]int     // of scratch
	report   report
	args     [32]uint64 // of the kernel that is being launched: no allocation per operation
}

var _ device.Stream = (*stream)(nil)

var errClosed = errors.New("the stream is closed")

// Alloc implements device.Stream.
func (s *stream) Alloc(kind device.Kind, n int) (device.Memory, error) {
	if n < 1 || kind > device.Uint8 {
		return nil, fmt.Errorf("a memory of %d elements of %v cannot be made", n, kind)
	}
	return s.makeMemory(kind, n)
}

func (s *stream) makeMemory(kind device.Kind, n int) (*memory, error) {
	if s.closed {
		return nil, errClosed
	}
	bytes := n * sizeOf(kind)
	p, err := s.d.gpu.alloc(bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %d bytes: %w", s.d.Name(), bytes, err)
	}
	m := &memory{owner: s, kind: kind, n: n, at: p}
	s.memories = append(s.memories, m)
	s.asked(s.q.zero(p, bytes))
	return m, s.broken
}

// Port implements device.Stream.
func (s *stream) Port(kind device.Kind, n int) (device.Memory, error) {
	if n < 1 || (kind != device.Float32 && kind != device.Int32) {
		return nil, fmt.Errorf("a port of %d elements of %v cannot be made", n, kind)
	}
	m, err := s.makeMemory(kind, n)
	if err != nil {
		return nil, err
	}
	m.port = true
	if m.staged, err = s.d.gpu.pinned(4 * n); err != nil {
		return nil, fmt.Errorf("%s: %d bytes of pinned memory: %w", s.d.Name(), 4*n, err)
	}
	return m, nil
}

// Bind implements device.Stream. The contents are copied before it returns.
func (s *stream) Bind(p device.Memory, host []float32, dir device.Direction) {
	m := s.bindable(p, device.Float32, len(host))
	if m == nil {
		return
	}
	if dir == device.Out {
		m.out = host
	} else if len(host) > 0 {
		s.send(m, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(host))), 4*len(host)))
	}
}

// BindInt32 implements device.Stream.
func (s *stream) BindInt32(p device.Memory, host []int32) {
	if m := s.bindable(p, device.Int32, len(host)); m != nil && len(host) > 0 {
		s.send(m, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(host))), 4*len(host)))
	}
}

func (s *stream) send(m *memory, contents []byte) {
	n := copy(m.staged, contents)
	s.asked(s.q.write(m.at, m.staged[:n]))
}

func (s *stream) bindable(p device.Memory, kind device.Kind, n int) *memory {
	m, ok := p.(*memory)
	switch {
	case s.closed:
		s.fail(errClosed)
		return nil
	case !ok || m.owner != s || !m.port || m.kind != kind:
		s.fail(fmt.Errorf("bind: not a %v port of this stream", kind))
		return nil
	case n > m.n:
		s.fail(fmt.Errorf("bind: %d elements given to a port of %d", n, m.n))
		return nil
	case m.bound > 0: // its pinned memory may still be on its way
		s.asked(s.q.sync())
	}
	m.bound, m.out, m.flush = n, nil, false
	s.bound = append(s.bound, m)
	return m
}

// Flush implements device.Stream: the contents come to pinned memory now, and to the host's slice at Sync.
func (s *stream) Flush(p device.Memory) {
	m, ok := p.(*memory)
	if !ok || m.owner != s || m.out == nil {
		s.fail(errors.New("flush: not a port of this stream that is bound out"))
		return
	}
	if s.err == nil && len(m.out) > 0 {
		m.flush = true
		s.asked(s.q.read(m.staged[:4*len(m.out)], m.at))
	}
}

// Sync implements device.Stream.
func (s *stream) Sync() error {
	if s.closed {
		return errClosed
	}
	if s.broken == nil {
		s.askReport()
		s.asked(s.q.sync())
	}
	if s.broken == nil {
		s.takeReport()
	} else {
		s.report.drop()
	}
	for i, m := range s.bound {
		if m.flush && s.err == nil {
			copy(m.out, unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(m.staged))), len(m.out)))
		}
		m.bound, m.out, m.flush, s.bound[i] = 0, nil, false, nil
	}
	s.bound = s.bound[:0]
	err := s.err
	s.err = s.broken
	return err
}

// Close implements device.Stream.
func (s *stream) Close() error {
	if s.closed {
		return nil
	}
	err := s.Sync()
	for _, m := range s.memories {
		err = errors.Join(err, s.d.gpu.free(m.at))
		if m.staged != nil {
			err = errors.Join(err, s.d.gpu.unpin(m.staged))
		}
	}
	for _, p := range s.scratch {
		if p != 0 {
			err = errors.Join(err, s.d.gpu.free(p))
		}
	}
	err = errors.Join(err, s.report.free(s.d.gpu), s.q.close())
	s.memories, s.closed = nil, true
	return err
}

func (s *stream) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// asked keeps what the driver has answered to something that it cannot refuse while it works.
func (s *stream) asked(err error) {
	if err != nil && s.broken == nil {
		s.broken = fmt.Errorf("%s: %w", s.d.Name(), err)
		s.fail(s.broken)
	}
}

// room is scratch memory of at least that many bytes, good until the next operation asks for the same one.
func (s *stream) room(which, bytes int) pointer {
	if s.sizes[which] >= bytes {
		return s.scratch[which]
	}
	if old := s.scratch[which]; old != 0 {
		s.scratch[which], s.sizes[which] = 0, 0
		if s.asked(errors.Join(s.q.sync(), s.d.gpu.free(old))); s.broken != nil {
			return 0
		}
	}
	p, err := s.d.gpu.alloc(bytes)
	if err != nil {
		s.fail(fmt.Errorf("%s: %d bytes of scratch memory: %w", s.d.Name(), bytes, err))
		return 0
	}
	s.scratch[which], s.sizes[which] = p, bytes
	return p
}

// want is the address of the n elements of b, or 0 after recording what is wrong with it.
func (s *stream) want(op, name string, b device.Buffer, n int, kind device.Kind) pointer {
	m, ok := b.Mem.(*memory)
	switch {
	case s.closed:
		s.fail(errClosed)
	case !ok || m.owner != s:
		s.fail(fmt.Errorf("%s: operand %s is not a memory of this stream", op, name))
	case m.kind != kind:
		s.fail(fmt.Errorf("%s: operand %s holds %v, not %v", op, name, m.kind, kind))
	case b.Off < 0 || b.Len < 0 || b.Off+b.Len > m.n:
		s.fail(fmt.Errorf("%s: operand %s is [%d, %d) of a memory of %d", op, name, b.Off, b.Off+b.Len, m.n))
	case b.Len < n:
		s.fail(fmt.Errorf("%s: operand %s has %d elements, the shape needs %d", op, name, b.Len, n))
	case m.port && b.Off+n > m.bound:
		s.fail(fmt.Errorf("%s: operand %s lies outside what its port is bound to (%d elements)", op, name, m.bound))
	default:
		return m.at + pointer(b.Off*sizeOf(kind))
	}
	return 0
}

func (s *stream) floats(op, name string, b device.Buffer, n int) pointer {
	return s.want(op, name, b, n, device.Float32)
}

// optional is floats, but 0 without a fault when b is none.
func (s *stream) optional(op, name string, b device.Buffer, n int) pointer {
	if b.IsNone() {
		return 0
	}
	return s.floats(op, name, b, n)
}

// sized refuses sizes below 1.
func (s *stream) sized(op string, sizes ...int) bool {
	for _, n := range sizes {
		if n < 1 {
			s.fail(fmt.Errorf("%s: a size of %d; sizes must be at least 1", op, n))
		}
	}
	return s.err == nil
}
