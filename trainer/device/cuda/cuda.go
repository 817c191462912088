package cuda

import (
	"fmt"

	"github.com/musterml/muster/trainer/device"
)

// class is part of Arithmetic: the number goes up whenever the order or the kind of a rounding changes.
const class = "1"

// Device is one GPU.
type Device struct{ gpu gpu }

var _ device.Device = (*Device)(nil)

// Open makes the GPU of that number, counted from 0, ready. The error says what is missing: the build tag, the driver, the
// card.
func Open(number int) (*Device, error) {
	g, err := openGPU(number)
	if err != nil {
		return nil, fmt.Errorf("CUDA device %d: %w", number, err)
	}
	return &Device{gpu: g}, nil
}

// Name implements device.Device.
func (d *Device) Name() string { return "cuda " + d.gpu.name() }

// Arithmetic implements device.Device: GPUs of one architecture give the same bits.
func (d *Device) Arithmetic() string { return "cuda-" + d.gpu.architecture() + "-fp32-" + class }

// NewStream implements device.Device.
func (d *Device) NewStream() (device.Stream, error) {
	q, err := d.gpu.newQueue()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Name(), err)
	}
	s := &stream{d: d, q: q}
	if err := s.makeReport(); err != nil {
		return nil, err
	}
	return s, nil
}
