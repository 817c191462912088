package cuda

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/musterml/muster/trainer/device"
)

// class is part of Arithmetic: the number goes up whenever the order or the kind of a rounding changes.
const class = "8"

// Device is one GPU, and how it multiplies.
type Device struct {
	gpu       gpu
	precision device.Precision
	library   bool // multiplies matrices, not our kernels
	locked    *locked
	// warn is told, of each thing once, what works less well than it could.
	warn func(what string, why error)
}

var (
	_ device.Device  = (*Device)(nil)
	_ device.Chooser = (*Device)(nil)
	_ device.Carded  = (*Device)(nil)
)

// Count is how many GPUs there are, at least one; the error says what is missing: the build tag, the driver, the card.
func Count() (int, error) {
	n, err := countGPUs()
	if err == nil && n == 0 {
		err = errors.New("the NVIDIA driver finds no card")
	}
	return n, err
}

// Open makes the GPU of that number, counted from 0, ready. The error says what is missing: the build tag, the driver, the
// card.
//
// warn, which may be nil, is told, of each thing once, what works less well than it could.
func Open(number int, warn func(what string, why error)) (*Device, error) {
	all, err := OpenAll([]int{number}, func(_ int, what string, why error) {
		if warn != nil {
			warn(what, why)
		}
	})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// OpenAll is Open for GPUs that are to compute as one (device.Several): what one of them locks is locked for all. warn hears which it is about.
func OpenAll(numbers []int, warn func(number int, what string, why error)) (all []*Device, err error) {
	known := new(locked)
	for _, n := range numbers {
		g, err := openGPU(n)
		if err != nil {
			return nil, fmt.Errorf("CUDA device %d: %w", n, err)
		}
		d := newDevice(g, func(what string, why error) { warn(n, what, why) })
		d.locked = known
		all = append(all, d)
	}
	return all, nil
}

func newDevice(g gpu, warn func(what string, why error)) *Device {
	var told sync.Map
	return &Device{gpu: g, precision: device.FP32, locked: new(locked), warn: func(what string, why error) {
		if _, before := told.LoadOrStore(what, true); !before && warn != nil {
			warn(what, why)
		}
	}}
}

// Choose implements device.Chooser.
func (d *Device) Choose(p device.Products) (device.Device, error) {
	chosen := *d
	chosen.precision = cmp.Or(p.Precision, device.FP32)
	if !slices.Contains(device.Precisions(), chosen.precision) {
		return nil, fmt.Errorf("%s: there is no precision %q", d.Name(), p.Precision)
	}
	chosen.library = p.AnyOrder && d.gpu.library() != ""
	return &chosen, nil
}

// Name implements device.Device.
func (d *Device) Name() string { return "cuda " + d.gpu.name() }

// Arithmetic implements device.Device: GPUs of one architecture give the same bits.
func (d *Device) Arithmetic() string {
	name := "cuda-" + d.gpu.architecture() + "-" + string(d.precision) + "-" + class
	if d.library {
		name += "-" + d.gpu.library()
	}
	return name
}

// Streams implements device.Device: an operation fills the whole GPU.
func (d *Device) Streams() int { return 1 }

// NewStream implements device.Device.
func (d *Device) NewStream() (device.Stream, error) {
	q, err := d.gpu.newQueue()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Name(), err)
	}
	s := &stream{d: d, q: q, graphs: newGraphs(), tiles: tilesOf(d.precision), names: map[[3]string]string{}}
	if err := s.begin(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", device.ErrFailed, d.Name(), errors.Join(append(s.handover.close(), err, s.giveUp())...))
	}
	return s, nil
}

// Cards implements device.Carded.
func (d *Device) Cards() []device.Card {
	used, all := d.gpu.memory()
	return []device.Card{{Name: d.gpu.name(), Used: used, Memory: all}}
}

// Details are what a driver says of a GPU.
type Details struct {
	Architecture string `json:"architecture"` // "sm_90"
	Object       string `json:"object"`       // the embedded object that was taken
	Driver       int    `json:"driver"`       // the CUDA version of the driver: 12040 is 12.4
	Processors   int    `json:"processors"`   // streaming multiprocessors
	ClockMHz     int    `json:"clock_mhz"`    // the highest
	Memory       int64  `json:"memory_bytes"`
	Free         int64  `json:"free_bytes"`
	Library      string `json:"library"` // cuBLAS, and where; or why there is none
}

// Details asks the driver.
func (d *Device) Details() Details { return d.gpu.details() }

// PeakGFLOPS is what float32 products can reach: a multiplication and an addition per clock and core, 128 cores
// per processor (64 of sm_80).
func (d Details) PeakGFLOPS() float64 {
	cores := 128
	if d.Architecture == "sm_80" {
		cores = 64
	}
	return 2 * float64(cores) * float64(d.Processors) * float64(d.ClockMHz) / 1e3
}
