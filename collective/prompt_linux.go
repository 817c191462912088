package collective

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/musterml/muster/internal/pacing"
)

// socket is a TCP connection taken out of the runtime's poller. There every arrival wakes a thread, also while the
// caller of an operation looks for itself, and that alone takes longer than a small message (with it, four bytes took
// 45 us between two processes, without it 15). Whoever has to wait for a socket blocks a thread in poll(2); a
// ring has two such readers, and a writer only while a buffer is full.
type socket struct {
	fd            int
	local, remote net.Addr
	in, out       side
	users         atomic.Int64 // calls that use the descriptors; closing counts closedBias more, and the last one closes
}

const closedBias = 1 << 32

// side is one direction. Each is used by one goroutine at a time, but for the deadline.
type side struct {
	bell     int          // an eventfd that ends a wait
	deadline atomic.Int64 // of the ring's clock: nanoseconds since epoch; 0: none
	poll     [2]unix.PollFd
	iov      [2]syscall.Iovec
}

var epoch = time.Now()

// asPrompt takes over the connection, if it can be asked what there is: TCP itself, no TLS. Else it returns nil.
func asPrompt(conn net.Conn) (net.Conn, prompt) {
	if p, ok := conn.(prompt); ok {
		return conn, p
	}
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return conn, nil
	}
	s, err := newSocket(c)
	if err != nil {
		return conn, nil
	}
	_ = c.Close() // the descriptor has been duplicated
	return s, s
}

func newSocket(c *net.TCPConn) (*socket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{fd: -1, local: c.LocalAddr(), remote: c.RemoteAddr()}
	s.in.bell, s.out.bell = -1, -1
	err1 := raw.Control(func(fd uintptr) { s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	for _, d := range [...]*side{&s.in, &s.out} {
		var err2 error
		d.bell, err2 = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		err = errors.Join(err, err2)
	}
	if err = errors.Join(err, err1); err != nil {
		s.closeAll()
		return nil, err
	}
	return s, nil
}

func (s *socket) use() bool {
	if s.users.Add(1) < closedBias {
		return true
	}
	s.unuse()
	return false
}

func (s *socket) unuse() {
	if s.users.Add(-1) == closedBias {
		s.users.Add(closedBias) // nobody comes here again
		s.closeAll()
	}
}

func (s *socket) closeAll() {
	for _, fd := range [...]int{s.fd, s.in.bell, s.out.bell} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// Close ends every wait.
func (s *socket) Close() error {
	if !s.use() {
		return net.ErrClosed
	}
	s.users.Add(closedBias)
	s.in.ring()
	s.out.ring()
	s.unuse()
	return nil
}

func (d *side) ring() { _, _ = unix.Write(d.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// rawBytes bounds one call, which keeps a processor from the scheduler while it copies.
const rawBytes = 256 << 10

func (s *socket) tryRead(p []byte) (int, error) {
	if !s.use() {
		return 0, net.ErrClosed
	}
	defer s.unuse()
	return s.read(p)
}

func (s *socket) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(s.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(min(len(p), rawBytes)))
	if errno != 0 {
		return 0, s.failure("read", errno)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return int(n), nil
}

func (s *socket) tryWrite(a, b []byte) (int, error) {
	if !s.use() {
		return 0, net.ErrClosed
	}
	defer s.unuse()
	return s.write(a, b)
}

func (s *socket) write(a, b []byte) (int, error) {
	v, k := &s.out.iov, 0
	for _, p := range [...][]byte{a, b[:min(len(b), rawBytes)]} {
		if len(p) > 0 {
			v[k].Base = &p[0]
			v[k].SetLen(len(p))
			k++
		}
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITEV, uintptr(s.fd), uintptr(unsafe.Pointer(v)), uintptr(k))
	v[0].Base, v[1].Base = nil, nil
	if errno != 0 {
		return 0, s.failure("write", errno)
	}
	return int(n), nil
}

func (s *socket) failure(op string, errno syscall.Errno) error {
	switch errno {
	case syscall.EAGAIN, syscall.EINTR:
		return errNotNow
	}
	return &net.OpError{Op: op, Net: "tcp", Source: s.local, Addr: s.remote, Err: os.NewSyscallError(op, errno)}
}

// Read waits for the first byte.
func (s *socket) Read(p []byte) (n int, err error) {
	if !s.use() {
		return 0, net.ErrClosed
	}
	defer s.unuse()
	for {
		if err := s.in.expired(); err != nil {
			return 0, err
		}
		if n, err = s.read(p); err != errNotNow {
			return n, err
		}
		s.wait(&s.in, unix.POLLIN)
	}
}

// Write waits until all is written.
func (s *socket) Write(p []byte) (n int, err error) {
	if !s.use() {
		return 0, net.ErrClosed
	}
	defer s.unuse()
	for len(p) > n {
		if err := s.out.expired(); err != nil {
			return n, err
		}
		k, err := s.write(nil, p[n:])
		if n += k; err == errNotNow {
			s.wait(&s.out, unix.POLLOUT)
		} else if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (s *socket) whenReadable(f func() bool) error {
	if !s.use() {
		return net.ErrClosed
	}
	defer s.unuse()
	for !f() {
		if err := s.in.expired(); err != nil {
			return err
		}
		s.wait(&s.in, unix.POLLIN)
		if s.users.Load() >= closedBias {
			return net.ErrClosed
		}
	}
	return nil
}

func (d *side) expired() error {
	if at := d.deadline.Load(); at != 0 && int64(time.Since(epoch)) >= at {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// wait returns when the socket may be ready, the deadline has passed or been changed, or for no reason.
func (s *socket) wait(d *side, events int16) {
	timeout := -1
	if at := d.deadline.Load(); at != 0 {
		timeout = max(0, int((time.Duration(at)-time.Since(epoch)+time.Millisecond-1)/time.Millisecond))
	}
	d.poll[0] = unix.PollFd{Fd: int32(s.fd), Events: events}
	d.poll[1] = unix.PollFd{Fd: int32(d.bell), Events: unix.POLLIN}
	// A thread in a system call keeps its processor of the scheduler until the runtime's monitor takes it away, which may
	// need 10 ms; whom this goroutine has just woken would wait for that.
	runtime.Gosched()
	_, _ = unix.Poll(d.poll[:], timeout)
	if d.poll[1].Revents != 0 && s.users.Load() < closedBias {
		var count [8]byte
		_, _ = unix.Read(d.bell, count[:])
	}
}

// awaitSockets waits, at most that long, until one of two links' sockets may be read, or written where a frame is begun.
// It returns false where they are no sockets.
func awaitSockets(a, b *link, most time.Duration) bool {
	var polls [2]unix.PollFd
	for i, l := range [...]*link{a, b} {
		s, ok := l.prompt.(*socket)
		if !ok {
			return false
		}
		if !s.use() {
			return true // the ring has failed
		}
		defer s.unuse()
		polls[i] = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN}
		if l.out.full.Load() {
			polls[i].Events |= unix.POLLOUT
		}
	}
	timeout := unix.NsecToTimespec(int64(most))
	_, _ = unix.Ppoll(polls[:], &timeout, nil)
	return true
}

func (s *socket) setDeadline(d *side, t time.Time) error {
	if !s.use() {
		return net.ErrClosed
	}
	defer s.unuse()
	at := int64(0)
	if !t.IsZero() {
		at = max(1, int64(t.Sub(epoch)))
	}
	d.deadline.Store(at)
	d.ring()
	return nil
}

func (s *socket) observe() (pacing.State, bool) {
	if !s.use() {
		return pacing.State{}, false
	}
	defer s.unuse()
	return pacing.ObserveSocket(s.fd)
}

func (s *socket) LocalAddr() net.Addr                { return s.local }
func (s *socket) RemoteAddr() net.Addr               { return s.remote }
func (s *socket) SetReadDeadline(t time.Time) error  { return s.setDeadline(&s.in, t) }
func (s *socket) SetWriteDeadline(t time.Time) error { return s.setDeadline(&s.out, t) }
func (s *socket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// yield lets another process have this core, if one wants it.
func yield() { _, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }

// nap is the shortest sleep there is.
func nap() { _ = unix.Nanosleep(&unix.Timespec{Nsec: 1}, nil) }
