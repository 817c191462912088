package cuda

import (
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"github.com/musterml/muster/trainer/device"
)

// A GPU reads and writes the host's memory by itself where the driver has locked it. A port's contents go by way of pinned memory of the
// stream's, and are copied once more by the host, unless the slice that it is bound to is locked: then they lie where the ring and
// the optimizer take them.

// fewestLocked is how many elements are worth it: 128 KiB. Slices of Go's of that size share no page with others.
const fewestLocked = 32 << 10

// locked is the memory of the host that is locked for all GPUs of a process that were opened together.
type locked struct {
	mu     sync.RWMutex
	ranges [][]byte
}

var _ device.Locker = (*Device)(nil)

// Lock implements device.Locker.
func (d *Device) Lock(host []float32) (unlock func()) {
	if len(host) < fewestLocked {
		return func() {}
	}
	b := bytesOf(host)
	var pin runtime.Pinner // the driver keeps the address
	pin.Pin(&host[0])
	if err := d.gpu.lock(b); err != nil {
		pin.Unpin()
		d.warn("gradients and weights are copied once more by the host, for the driver does not lock its memory", err)
		return func() {}
	}
	d.locked.add(b)
	return func() {
		d.locked.remove(b)
		_ = d.gpu.unlock(b) // a GPU that has broken down refuses, and touches it no more
		pin.Unpin()
	}
}

func (l *locked) add(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ranges = append(l.ranges, b)
}

func (l *locked) remove(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ranges = slices.DeleteFunc(l.ranges, func(r []byte) bool { return &r[0] == &b[0] })
}

// has tells whether all of b is locked.
func (l *locked) has(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	at := func(p *byte) uintptr { return uintptr(unsafe.Pointer(p)) }
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.ContainsFunc(l.ranges, func(r []byte) bool {
		return at(&r[0]) <= at(&b[0]) && at(&b[len(b)-1]) <= at(&r[len(r)-1])
	})
}

// bytesOf is the memory of v.
func bytesOf[T float32 | int32](v []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}
