package device

import (
	"fmt"
	"sync/atomic"
)

// several is devices that compute as one.
type several struct {
	all  []Device
	made *atomic.Int64 // streams
}

// Several is devices, at least one, that compute as one: its streams are on each of them in turn. They must have one Arithmetic, and where they are Lockers, know what each other has locked. A
// trainer on it spreads its logical shards over them, and what they find is summed in this process before it goes to other nodes.
func Several(all ...Device) (Device, error) {
	for _, d := range all[1:] {
		if d.Arithmetic() != all[0].Arithmetic() {
			return nil, fmt.Errorf("%s computes as %s, %s as %s: one node's devices must give the same bits; name those of one kind with --device",
				all[0].Name(), all[0].Arithmetic(), d.Name(), d.Arithmetic())
		}
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return &several{all: all, made: new(atomic.Int64)}, nil
}

// Name implements Device.
func (s *several) Name() string { return fmt.Sprintf("%d x %s", len(s.all), s.all[0].Name()) }

// Arithmetic implements Device.
func (s *several) Arithmetic() string { return s.all[0].Arithmetic() }

// Streams implements Device.
func (s *several) Streams() (n int) {
	for _, d := range s.all {
		n += d.Streams()
	}
	return n
}

// NewStream implements Device.
func (s *several) NewStream() (Stream, error) { return s.next().NewStream() }

func (s *several) next() Device { return s.all[int(s.made.Add(1)-1)%len(s.all)] }

// Next is, of devices that compute as one, the one whose turn it is, for streams that are to be on the same one; of any other device that itself.
func Next(d Device) Device {
	if s, ok := d.(*several); ok {
		return s.next()
	}
	return d
}

// Cards implements Carded.
func (s *several) Cards() (all []Card) {
	for _, d := range s.all {
		all = append(all, Cards(d)...)
	}
	return all
}

// Outputs implements Keeper.
func (s *several) Outputs() Kind { return Outputs(s.all[0]) }

// Lock implements Locker: what one of them locks is locked for all.
func (s *several) Lock(host []float32) (unlock func()) { return Lock(s.all[0], host) }

// Choose implements Chooser, for devices that are.
func (s *several) Choose(p Products) (Device, error) {
	chosen := make([]Device, len(s.all))
	for i, d := range s.all {
		var err error
		if chosen[i], _, err = Choose(d, p); err != nil {
			return nil, err
		}
	}
	return Several(chosen...)
}
