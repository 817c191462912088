package cuda

import (
	"fmt"
	"math"

	"github.com/musterml/muster/trainer/device"
)

// ReLUBackward implements device.Ops.
func (s *stream) ReLUBackward(dx, dy, y device.Buffer, n int) {
	const op = "gradient of ReLU"
	if s.sized(op, n) {
		o := s.outputs(op, y)
		to, from, at := o.at("dx", dx, n), o.at("dy", dy, n), o.at("y", y, n)
		if !s.masks(to, from, at, n) {
			launch(s, o.kernel("relu_backward"), each(n), blockThreads, struct {
				dx, dy, y pointer
				n         int64
			}{to, from, at, int64(n)})
		}
	}
}

type addArgs struct {
	y, a, b, mask pointer
	n, act        int64
}

// Add implements device.Ops.
func (s *stream) Add(y, a, b device.Buffer, n int, act device.Activation) {
	const op = "sum"
	if s.sized(op, n) {
		o := s.outputs(op, y)
		args := addArgs{y: o.at("y", y, n), a: o.at("a", a, n), b: o.at("b", b, n), n: int64(n), act: int64(act)}
		if !s.adds(args) {
			launch(s, o.kernel("add"), each(n), blockThreads, args)
		}
	}
}

// Scale implements device.Ops.
func (s *stream) Scale(y, x device.Buffer, n int, a float32) {
	const op = "scale"
	if s.sized(op, n) {
		o := s.outputs(op, x)
		launch(s, o.kernel("scale"), each(n), blockThreads, struct {
			y, x   pointer
			n      int64
			factor float32
		}{s.floats(op, "y", y, n), o.at("x", x, n), int64(n), a})
	}
}

// Apply implements device.Ops.
func (s *stream) Apply(y, x device.Buffer, n int, f device.Function) {
	const op = "function"
	if !s.sized(op, n) || !s.knows(op, f) {
		return
	}
	o := s.outputs(op, x)
	to, from := o.at("y", y, n), o.at("x", x, n)
	if !s.joins(to, from, 0, n, int64(f), o) {
		launch(s, o.kernel("apply"), each(n), blockThreads, struct {
			y, x pointer
			n, f int64
		}{to, from, int64(n), int64(f)})
	}
}

// ApplyBackward implements device.Ops.
func (s *stream) ApplyBackward(dx, dy, x device.Buffer, n int, f device.Function) {
	const op = "gradient of a function"
	if !s.sized(op, n) || !s.knows(op, f) {
		return
	}
	o := s.outputs(op, x)
	to, from, at := o.at("dx", dx, n), o.at("dy", dy, n), o.at("x", x, n)
	if !s.joins(to, from, at, n, int64(f), o) {
		launch(s, o.kernel("apply_backward"), each(n), blockThreads, struct {
			dx, dy, x pointer
			n, f      int64
		}{to, from, at, int64(n), int64(f)})
	}
}

func (s *stream) knows(op string, f device.Function) bool {
	if f >= device.Functions {
		s.fail(fmt.Errorf("%s: there is no function %d", op, f))
	}
	return s.err == nil
}

// Dropout implements device.Ops.
func (s *stream) Dropout(p device.Dropout) {
	const op = "dropout"
	if !s.sized(op, p.N) {
		return
	}
	if !(p.P >= 0 && p.P < 1) || p.N > 1<<34 {
		s.fail(fmt.Errorf("%s of %d elements with probability %v: it must be in [0, 1), and elements at most 2^34", op, p.N, p.P))
		return
	}
	o := s.outputs(op, p.X)
	launch(s, o.kernel("dropout"), each(p.N), blockThreads, struct {
		y, x, key pointer
		n         int64
		threshold uint64
		where     uint32
		factor    float32
	}{
		o.at("Y", p.Y, p.N), o.at("X", p.X, p.N), s.key(p.Key), int64(p.N),
		uint64(math.RoundToEven(float64(p.P) * (1 << 32))), uint32(p.Key.Layer)<<16 | uint32(p.Key.Shard), 1 / (1 - p.P),
	})
}

// ToNHWC implements device.Ops.
func (s *stream) ToNHWC(y, x device.Buffer, n, c, h, w int) {
	s.transpose("ToNHWC", y, x, n, c, h*w, 1)
}

// ToNCHW implements device.Ops.
func (s *stream) ToNCHW(y, x device.Buffer, n, c, h, w int) {
	s.transpose("ToNCHW", y, x, n, c, h*w, 0)
}

func (s *stream) transpose(op string, y, x device.Buffer, n, c, pixels int, toLast int64) {
	if !s.sized(op, n, c, pixels) {
		return
	}
	to, from := s.outputs(op, y), s.outputs(op, x)
	kernel := to.kernel("transpose_images")
	if to.kind != from.kind { // samples of float32
		kernel = "transpose_images_to_bf16"
		from.kind = device.Float32
	}
	s.transposeAt(kernel, to.at("y", y, n*c*pixels), from.at("x", x, n*c*pixels), n, c, pixels, toLast)
}

func (s *stream) transposeAt(kernel string, y, x pointer, n, c, pixels int, toLast int64) {
	launch(s, kernel, each(n*c*pixels), blockThreads, struct {
		y, x                 pointer
		n, c, pixels, toLast int64
	}{y, x, int64(n), int64(c), int64(pixels), toLast})
}
