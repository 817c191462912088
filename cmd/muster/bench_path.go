package main

import (
	"context"
	"time"

	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/device"
)

// What the way of gradients adds to a step: copies to the host, sums, the weights' way back. It is what a step takes beyond the optimizer and beyond
// computing the same gradients on a device that keeps them (bare).

// measurePath fills in what a bare step takes, and what the way of gradients adds to one.
func (o *benchStep) measurePath(ctx context.Context, bare *trainer.Alone, row *stepRow) error {
	times, err := o.repeat(func() (time.Duration, error) {
		began := time.Now()
		err := bare.Compute(ctx)
		return time.Since(began), err
	}, func() error { return nil })
	if err != nil {
		return err
	}
	row.BareMs = digits(median(times)*1e3, 3)
	without := row.BareMs + row.UpdateMs
	row.PathPercent = digits(100*(row.MedMs-without)/without, 2)
	return nil
}

// keeping is a device that gives no gradients to the host, and takes weights from it once.
type keeping struct {
	device.Device
	params int
}

func (k keeping) Choose(p device.Products) (device.Device, error) {
	d, _, err := device.Choose(k.Device, p)
	return keeping{d, k.params}, err
}

// Outputs implements device.Keeper.
func (k keeping) Outputs() device.Kind { return device.Outputs(k.Device) }

func (k keeping) NewStream() (device.Stream, error) {
	s, err := k.Device.NewStream()
	return &keepingStream{Stream: s, params: k.params}, err
}

type keepingStream struct {
	device.Stream
	params int
	given  bool
}

func (s *keepingStream) Bind(p device.Memory, host []float32, dir device.Direction) {
	if dir == device.In && len(host) == s.params {
		if s.given {
			dir = device.Again
		}
		s.given = true
	}
	s.Stream.Bind(p, host, dir)
}

func (s *keepingStream) Flush(device.Buffer) {}
