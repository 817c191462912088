package nn

import (
	"fmt"

	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
)

// Feed brings the values of samples to a replica's device beside what that does, where they would otherwise be waited for (Replica.Fed). It is for devices with memory
// of their own, and used by one goroutine at a time.
type Feed struct {
	stream device.Stream
	x      device.Memory // a port
}

// NewFeed makes one for as many samples as the replica has room for. It is nil for models whose samples are few bytes: all but dense values.
func (r *Replica) NewFeed() (*Feed, error) {
	if r.spec.kind != data.Dense {
		return nil, nil
	}
	stream, err := r.device.NewStream()
	if err != nil {
		return nil, fmt.Errorf("samples of model %s on %s: %w", r.spec.name, r.device.Name(), err)
	}
	f := &Feed{stream: stream}
	if f.x, err = stream.Port(device.Float32, r.x.Len()); err != nil {
		_ = stream.Close() // the first error is the one to tell
		return nil, fmt.Errorf("samples of model %s on %s: %w", r.spec.name, r.device.Name(), err)
	}
	return f, nil
}

// Bring copies the values of a batch, and returns when they are there.
func (f *Feed) Bring(in data.Batch) error {
	f.stream.Bind(f.x, in.X, device.In)
	return f.stream.Sync()
}

// Close gives back what NewFeed has taken. The replica must not use it any more.
func (f *Feed) Close() error { return f.stream.Close() }

// bindValues has the port stand for the values of a call's samples.
func (r *Replica) bindValues(x []float32) {
	if r.Fed == nil {
		r.stream.Bind(r.x, x, device.In)
		return
	}
	r.stream.Fetch(device.Whole(r.x).Range(0, len(x)), r.Fed.stream, device.Whole(r.Fed.x).Range(0, len(x)))
	r.Fed = nil
}
