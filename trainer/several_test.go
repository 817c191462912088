package trainer

import (
	"slices"
	"sync/atomic"
	"testing"

	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
)

// single is a device of one stream, as a GPU is, which counts how many were made.
type single struct {
	device.Device
	streams atomic.Int64
}

func (s *single) Streams() int { return 1 }
func (s *single) NewStream() (device.Stream, error) {
	s.streams.Add(1)
	return s.Device.NewStream()
}

// A trainer on several devices uses all of them, and comes to the weights that it comes to on one.
func TestSeveralDevicesComputeAsOne(t *testing.T) {
	run := func(n int) []float32 {
		var all []device.Device
		for range n {
			d, err := cpu.New()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, &single{Device: d})
		}
		d, err := device.Several(all...)
		if err != nil {
			t.Fatal(err)
		}
		a := newAlone(t, d)
		for range 3 {
			if _, err := a.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for i, d := range all {
			if made := d.(*single).streams.Load(); made != 1 {
				t.Errorf("%d devices: %d streams on number %d", n, made, i)
			}
		}
		return a.state.w
	}
	if one := run(1); !slices.Equal(one, run(3)) {
		t.Error("three devices give other weights than one")
	}
}

// Devices that give other bits than each other are refused.
func TestSeveralDevicesAreOfOneKind(t *testing.T) {
	best, err := cpu.New()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := cpu.NewFor("go")
	if err != nil {
		t.Fatal(err)
	}
	if best.Arithmetic() == plain.Arithmetic() {
		t.Skip("this processor has but one arithmetic")
	}
	if _, err := device.Several(best, plain); err == nil {
		t.Error("taken")
	}
}
