package cuda

import (
	"errors"
	"fmt"

	"github.com/musterml/muster/trainer/device"
)

// memory is a device.Memory. The contents of a port come from, and go to, the host's slice where that is locked (lock.go), else through a place in pinned memory.
type memory struct {
	owner *stream
	kind  device.Kind
	n     int
	at    pointer

	port   bool
	bound  int       // elements; 0: not bound, and a memory as any other
	staged []byte    // pinned; made when it is first bound to what is not locked
	out    []float32 // bound Out: where the contents go at Sync
	direct bool      // out is locked
}

func (m *memory) Kind() device.Kind { return m.kind }
func (m *memory) Len() int          { return m.n }

func sizeOf(k device.Kind) int {
	switch k {
	case device.Uint8:
		return 1
	case device.BFloat16:
		return 2
	}
	return 4
}

// stream is a device.Stream: operations are checked, and become calls (calls.go), which reach the queue as graph.go says.
type stream struct {
	d      *Device
	q      queue
	err    error // the first since the last Sync
	broken error // the driver has failed: nothing can be done any more, as CUDA's errors stay
	closed bool

	memories []*memory
	bound    []*memory
	scratch  [rooms]pointer // of the operations, which run one after another
	sizes    [rooms]int     // of scratch
	factors  factors
	filled   filled
	report   report
	keys     keys

	calls    []call // since the last Sync
	next     call   // that is being made: no allocation per operation
	issued   int    // calls that the queue has
	hasAsked bool   // it has some for which the queue of copies has not waited
	graphs   graphs
	tiles    []tile               // of the precision
	names    map[[3]string]string // of kernels, by their parts
	handover handover
	mark     []byte // pinned: the number of the kernel that began last
	markAt   pointer
}

var _ device.Stream = (*stream)(nil)

var errClosed = errors.New("the stream is closed")

// Alloc implements device.Stream.
func (s *stream) Alloc(kind device.Kind, n int) (device.Memory, error) {
	if n < 1 || kind > device.BFloat16 {
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
		return nil, fmt.Errorf("%w: %s: %d bytes: %w", device.ErrFailed, s.d.Name(), bytes, err)
	}
	m := &memory{owner: s, kind: kind, n: n, at: p}
	s.memories = append(s.memories, m)
	s.hasAsked = true
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
	return m, nil
}

// Bind implements device.Stream.
func (s *stream) Bind(p device.Memory, host []float32, dir device.Direction) {
	m := s.bindable(p, device.Float32, len(host))
	if m == nil || dir == device.Again {
		return
	}
	contents := bytesOf(host)
	locked := s.d.locked.has(contents)
	switch {
	case !locked && !s.stage(m):
	case dir == device.Out:
		m.out, m.direct = host, locked
	case len(host) > 0:
		s.send(m, contents, locked)
	}
}

// stage sees that a port has its place in pinned memory.
func (s *stream) stage(m *memory) bool {
	if m.staged != nil {
		return true
	}
	var err error
	if m.staged, err = s.d.gpu.pinned(4 * m.n); err != nil {
		s.fail(fmt.Errorf("%w: %s: %d bytes of pinned memory: %w", device.ErrFailed, s.d.Name(), 4*m.n, err))
	}
	return err == nil
}

// BindInt32 implements device.Stream.
func (s *stream) BindInt32(p device.Memory, host []int32) {
	if m := s.bindable(p, device.Int32, len(host)); m != nil && len(host) > 0 && s.stage(m) {
		s.send(m, bytesOf(host), false)
	}
}

func (s *stream) send(m *memory, contents []byte, locked bool) {
	s.factors.drop()
	if !locked {
		contents = m.staged[:copy(m.staged, contents)]
	}
	s.issue()
	s.hasAsked = true
	s.asked(s.q.write(m.at, contents))
}

// Fetch implements device.Stream.
func (s *stream) Fetch(dst device.Buffer, from device.Stream, src device.Buffer) {
	const op = "fetch"
	other, ok := from.(*stream)
	if !ok || dst.Len != src.Len {
		s.fail(fmt.Errorf("%s: %d elements of a stream of another device, to %d", op, src.Len, dst.Len))
		return
	}
	to, x := s.floats(op, "dst", dst, dst.Len), other.floats(op, "src", src, src.Len)
	if s.err != nil || other.err != nil {
		return
	}
	s.factors.drop()
	s.issue()
	if other != s {
		other.issue()
		if e := other.event(); e != nil {
			other.asked(other.q.record(e))
			s.asked(s.q.after(e))
		}
	}
	s.hasAsked = true
	s.asked(s.q.fetch(to, other.d.gpu, x, 4*dst.Len))
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
		s.settle()
	}
	m.bound, m.out = n, nil
	s.bound = append(s.bound, m)
	return m
}

// Sync implements device.Stream.
func (s *stream) Sync() error {
	if s.closed {
		return errClosed
	}
	if s.broken == nil {
		s.askReport()
	}
	if s.settle(); s.broken == nil {
		s.takeReport()
	} else {
		s.report.drop()
	}
	for i, m := range s.bound {
		m.bound, m.out, s.bound[i] = 0, nil, nil
	}
	s.calls, s.issued, s.keys.used = s.calls[:0], 0, 0
	s.factors.drop()
	clear(s.mark)
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
	told := s.broken != nil
	errs := append([]error{s.Sync()}, s.graphs.close()...)
	errs = append(errs, s.handover.close()...)
	for _, m := range s.memories {
		errs = append(errs, s.give(m.at, m.staged))
	}
	for _, p := range s.scratch {
		errs = append(errs, s.give(p, nil))
	}
	s.memories, s.closed = nil, true
	if errs = append(errs, s.giveUp()); told {
		return nil // a GPU that has broken down refuses all of it, and has said why
	}
	return errors.Join(errs...)
}

// begin makes what every stream has.
func (s *stream) begin() (err error) {
	if s.handover.copies, err = s.d.gpu.newQueue(); err != nil {
		return err
	}
	if s.mark, err = s.d.gpu.pinned(8); err != nil {
		return err
	}
	s.markAt = s.d.gpu.address(s.mark)
	clear(s.mark)
	if err := s.makeKeys(); err != nil {
		return err
	}
	return s.makeReport()
}

// giveUp gives it back, as far as it was made.
func (s *stream) giveUp() error {
	return errors.Join(s.give(s.report.at, s.report.staged), s.give(s.keys.at, s.keys.staged), s.give(0, s.mark), s.q.close())
}

// give gives memory of the GPU's and of the host's back, where there is any.
func (s *stream) give(p pointer, pinned []byte) (err error) {
	if p != 0 {
		err = s.d.gpu.free(p)
	}
	if pinned != nil {
		err = errors.Join(err, s.d.gpu.unpin(pinned))
	}
	return err
}

func (s *stream) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// room is scratch memory of at least that many bytes, good until the next operation asks for the same one.
func (s *stream) room(which, bytes int) pointer {
	if s.sizes[which] >= bytes {
		return s.scratch[which]
	}
	if old := s.scratch[which]; old != 0 {
		s.scratch[which], s.sizes[which] = 0, 0
		s.issue()
		if s.asked(errors.Join(s.q.sync(), s.d.gpu.free(old))); s.broken != nil {
			return 0
		}
	}
	p, err := s.d.gpu.alloc(bytes)
	if err != nil {
		s.fail(fmt.Errorf("%w: %s: %d bytes of scratch memory: %w", device.ErrFailed, s.d.Name(), bytes, err))
		return 0
	}
	s.scratch[which], s.sizes[which] = p, bytes
	return p
}

// want is the address of the n elements of b, which lie there, or 0 after recording what is wrong with it.
func (s *stream) want(op, name string, b device.Buffer, n int, kind device.Kind) pointer {
	x := s.place(op, name, b, n, kind)
	if x != 0 && s.filled.touches(x, n*sizeOf(kind)) {
		s.bringBack()
	}
	return x
}

// place is want for what may lie elsewhere, filled up (filled.go).
func (s *stream) place(op, name string, b device.Buffer, n int, kind device.Kind) pointer {
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
	case m.bound > 0 && b.Off+n > m.bound:
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
