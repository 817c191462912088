package collective

import (
	"fmt"
	"hash/fnv"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// hostIdentity is 0 where it cannot be told. Process numbers mean the same in one namespace only.
func hostIdentity() uint64 {
	boot, err1 := os.ReadFile("/proc/sys/kernel/random/boot_id")
	space, err2 := os.Readlink("/proc/self/ns/pid")
	if err1 != nil || err2 != nil {
		return 0
	}
	h := fnv.New64a()
	h.Write(boot)
	h.Write([]byte(space))
	return h.Sum64()
}

func processID() uint32 { return uint32(os.Getpid()) }

const segmentName = "muster-ring"

// newSegment makes memory that another process of this host can open, if near.
func newSegment(size int, near bool) (*segment, error) {
	if !near {
		return &segment{memory: make([]byte, size), fd: -1}, nil
	}
	fd, err := unix.MemfdCreate(segmentName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("memory of %d bytes: %w", size, err)
	}
	// Nobody can make it shorter under our hands.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("sealing memory: %w", err)
	}
	s, err := mapSegment(fd, size)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	s.fd = fd
	return s, nil
}

// openSegment is nil where there is no such memory of another process, or it may not be opened.
func openSegment(pid, fd, size int) *segment {
	path := fmt.Sprintf("/proc/%d/fd/%d", pid, fd)
	if name, err := os.Readlink(path); err != nil || !strings.HasPrefix(name, "/memfd:"+segmentName) {
		return nil
	}
	own, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = unix.Close(own) }()
	var st unix.Stat_t
	seals, err := unix.FcntlInt(uintptr(own), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_SHRINK == 0 || unix.Fstat(own, &st) != nil || st.Size != int64(size) {
		return nil
	}
	s, err := mapSegment(own, size)
	if err != nil {
		return nil
	}
	return s
}

func mapSegment(fd, size int) (*segment, error) {
	m, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("mapping memory: %w", err)
	}
	s := &segment{memory: m, fd: -1}
	// A caller may look into the lane until it has seen that the ring has failed, so the lane says when it is done with.
	runtime.AddCleanup(s, func(m []byte) { _ = unix.Munmap(m) }, m)
	return s, nil
}

// close closes the file; the memory stays.
func (s *segment) close() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
		s.fd = -1
	}
}
