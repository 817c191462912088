// Package devicetest has a device for tests that need what only a GPU has: memory of its own.
package devicetest

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/musterml/muster/trainer/device"
)

// Apart is a device that computes as another one does, but in memory of its own: what is bound is copied, as far as it is bound In or flushed,
// and nothing else comes to the host.
type Apart struct {
	device.Device
	Room   int // numbers that all ports together may have; 0 is no limit
	Used   int // that they have; of one stream at a time
	mortal bool
	left   atomic.Int64 // times that it can be waited for
}

// ErrBroken is what a device says that has failed.
var ErrBroken = errors.New("an illegal memory access")

// NewApart makes one of a device that works in the host's memory. It fails, for good, when it has been waited for life times; 0 is never.
func NewApart(d device.Device, life int64) *Apart {
	a := &Apart{Device: d, mortal: life > 0}
	a.left.Store(life)
	return a
}

// Streams implements device.Device: as a GPU, one.
func (a *Apart) Streams() int { return 1 }

// Cards implements device.Carded.
func (a *Apart) Cards() []device.Card { return []device.Card{{Name: a.Name(), Memory: 1 << 30}} }

// NewStream implements device.Device.
func (a *Apart) NewStream() (device.Stream, error) {
	s, err := a.Device.NewStream()
	return &stream{Stream: s, of: a, ports: map[device.Memory]*port{}}, err
}

type stream struct {
	device.Stream
	of    *Apart
	ports map[device.Memory]*port
}

// port is the memory of one, and what it stands for.
type port struct {
	own  []float32
	ints []int32
	out  []float32 // nil unless it is bound Out
}

// Port implements device.Stream. It stands for its own memory always.
func (s *stream) Port(kind device.Kind, n int) (device.Memory, error) {
	if s.of.Used += n; s.of.Room > 0 && s.of.Used > s.of.Room {
		return nil, fmt.Errorf("%w: %s: %d numbers: out of memory", device.ErrFailed, s.of.Name(), n)
	}
	m, err := s.Stream.Port(kind, n)
	if err != nil {
		return nil, err
	}
	p := &port{own: make([]float32, n)}
	if kind == device.Int32 {
		p = &port{ints: make([]int32, n)}
	}
	s.ports[m] = p
	s.stand(m, p)
	return m, nil
}

func (s *stream) stand(m device.Memory, p *port) {
	if p.ints != nil {
		s.Stream.BindInt32(m, p.ints)
	} else {
		s.Stream.Bind(m, p.own, device.In)
	}
}

// Bind implements device.Stream.
func (s *stream) Bind(m device.Memory, host []float32, dir device.Direction) {
	p := s.ports[m]
	p.out = nil
	switch dir {
	case device.In:
		copy(p.own, host)
	case device.Out:
		p.out = host
	}
}

// BindInt32 implements device.Stream.
func (s *stream) BindInt32(m device.Memory, host []int32) { copy(s.ports[m].ints, host) }

// Flush implements device.Stream.
func (s *stream) Flush(b device.Buffer) {
	p := s.ports[b.Mem]
	if to := min(b.Off+b.Len, len(p.out)); to > b.Off {
		copy(p.out[b.Off:to], p.own[b.Off:])
	}
}

// Fetch implements device.Stream.
func (s *stream) Fetch(dst device.Buffer, from device.Stream, src device.Buffer) {
	s.Stream.Fetch(dst, from.(*stream).Stream, src)
}

// Sync implements device.Stream.
func (s *stream) Sync() error {
	err := s.Stream.Sync()
	for m, p := range s.ports {
		p.out = nil
		s.stand(m, p)
	}
	if s.of.mortal && s.of.left.Add(-1) < 0 {
		return fmt.Errorf("%w: %s: %w", device.ErrFailed, s.of.Name(), ErrBroken)
	}
	return err
}
