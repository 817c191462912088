package cuda

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

// What only the data show is named at Sync, and the stream goes on afterwards.
func TestFaultsInData(t *testing.T) {
	for _, d := range gpus(t) {
		s, err := d.NewStream()
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{TB: t, Stream: s, rng: rand.New(rand.NewPCG(1, 2))}
		for _, labels := range [][]int32{{0, 3, 7, 1}, {0, -1, 9, 1}} {
			var total device.Total
			s.SoftmaxCrossEntropy(device.SoftmaxCrossEntropy{N: 4, Classes: 4, Logits: b.random(16), Labels: b.int32s(labels), Total: &total})
			s.SoftmaxCrossEntropy(device.SoftmaxCrossEntropy{N: 4, Classes: 4, Logits: b.random(16), Labels: b.int32s([]int32{9, 9, 9, 9}), Total: &total})
			place := 1
			if labels[1] == 3 {
				place = 2
			}
			if err := s.Sync(); err == nil || err.Error() != fmt.Sprintf("softmax cross-entropy: labels: what is at place %d is out of range", place) {
				t.Errorf("%s: labels %v: %v", d.Name(), labels, err)
			}
			if err := s.Sync(); err != nil {
				t.Errorf("%s: afterwards: %v", d.Name(), err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A driver that fails at any of its calls gives an error, and nothing is kept.
func TestEveryDriverFault(t *testing.T) {
	errLost := errors.New("device lost")
	for at := 1; ; at++ {
		e := emulator(t)
		calls, failed := 0, false
		e.fault = func(string) error {
			if calls++; calls == at {
				failed = true
				return errLost
			}
			return nil
		}
		err := step(newDevice(e, nil))
		if failed != (err != nil) || err != nil && !errors.Is(err, errLost) {
			t.Fatalf("call %d: %v", at, err)
		}
		if e.allocated != 0 || e.pinnedBytes != 0 {
			t.Fatalf("call %d: %d bytes of the GPU's and %d of the host's are never given back", at, e.allocated, e.pinnedBytes)
		}
		if !failed {
			return
		}
	}
}

// step is a little of everything that a step of training does.
func step(d *Device) (err error) {
	s, err := d.NewStream()
	if err != nil {
		return err
	}
	defer func() {
		if e := s.Close(); err == nil {
			err = e
		}
	}()
	in, err := s.Port(device.Float32, 64)
	if err != nil {
		return err
	}
	out, err := s.Port(device.Float32, 64)
	if err != nil {
		return err
	}
	w, err := s.Alloc(device.Float32, 64)
	if err != nil {
		return err
	}
	host := make([]float32, 64)
	s.Bind(in, host, device.In)
	s.Bind(out, host, device.Out)
	s.MatMul(device.MatMul{M: 8, N: 8, K: 8, A: device.Whole(in), B: device.Whole(in), C: device.Whole(w)})
	var total device.Total
	s.SquaredError(device.SquaredError{N: 64, Y: device.Whole(w), Targets: device.Whole(in), DY: device.Whole(out), Scale: 1, Total: &total})
	s.Flush(device.Whole(out))
	return s.Sync()
}
