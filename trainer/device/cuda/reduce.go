package cuda

import (
	"fmt"

	"github.com/musterml/muster/trainer/device"
)

var one = [3]int{1, 1, 1}

// SumRows implements device.Ops.
func (s *stream) SumRows(out, x device.Buffer, rows, cols int) {
	const op = "sum of rows"
	if !s.sized(op, rows, cols) {
		return
	}
	o := s.outputs(op, x)
	to, from := s.floats(op, "out", out, cols), o.at("x", x, rows*cols)
	n := ceil(rows, rowsPerPart)
	parts := to
	if n > 1 {
		parts = s.room(roomOfParts, 4*n*cols)
	}
	launch(s, o.kernel("sum_rows_parts"), [3]int{ceil(n*cols, blockThreads), 1, 1}, blockThreads, struct {
		parts, x   pointer
		rows, cols int64
	}{parts, from, int64(rows), int64(cols)})
	if n > 1 {
		launch(s, "sum_parts", [3]int{ceil(cols, totalColumns), 1, 1}, blockThreads, struct {
			out, parts pointer
			n, cols    int64
		}{to, parts, int64(n), int64(cols)})
	}
}

// Finite implements device.Ops.
func (s *stream) Finite(x device.Buffer, n int, ok *bool) {
	const op = "finite"
	if !s.sized(op, n) {
		return
	}
	o := s.outputs(op, x)
	from, cell := o.at("x", x, n), s.cell(answer{ok: ok})
	if s.err != nil {
		return
	}
	s.zero(cell, cellBytes)
	launch(s, o.kernel("finite"), each(n), blockThreads, struct {
		bad, x pointer
		n      int64
	}{cell, from, int64(n)})
}

// SoftmaxCrossEntropy implements device.Ops.
func (s *stream) SoftmaxCrossEntropy(p device.SoftmaxCrossEntropy) {
	const op = "softmax cross-entropy"
	if !s.sized(op, p.N, p.Classes) || !s.totalled(op, p.Total) {
		return
	}
	rows := s.room(roomOfParts, lossBytes*p.N)
	o := s.outputs(op, p.Logits)
	logits, gradient, pitch := o.at("Logits", p.Logits, p.N*p.Classes), pointer(0), p.Classes
	if !p.DLogits.IsNone() {
		gradient = o.result("DLogits", p.DLogits, p.N*p.Classes)
	}
	if at := s.fills(o, p.DLogits, p.N, p.Classes); at != 0 {
		gradient, pitch = at, s.filled.pitch()
	}
	launch(s, o.kernel("softmax_cross_entropy"), [3]int{min(p.N, mostBlocks), 1, 1}, blockThreads, struct {
		dlogits, logits, labels, rows pointer
		at                            fault
		n, classes, pitch             int64
		scale                         float32
	}{
		gradient, logits, s.want(op, "Labels", p.Labels, p.N, device.Int32), rows, s.mayBlame(op + ": labels"),
		int64(p.N), int64(p.Classes), int64(pitch), p.Scale,
	})
	s.addLosses(rows, p.N, p.Total)
}

// BinaryCrossEntropy implements device.Ops.
func (s *stream) BinaryCrossEntropy(p device.BinaryCrossEntropy) {
	const op = "binary cross-entropy"
	if !s.sized(op, p.N) || !s.totalled(op, p.Total) {
		return
	}
	var labels, targets pointer
	if m := p.Targets.Mem; m != nil && m.Kind() == device.Int32 {
		labels = s.want(op, "Targets", p.Targets, p.N, device.Int32)
	} else {
		targets = s.floats(op, "Targets", p.Targets, p.N)
	}
	rows := s.room(roomOfParts, lossBytes*p.N)
	o := s.outputs(op, p.Logits)
	launch(s, o.kernel("binary_cross_entropy"), each(p.N), blockThreads, struct {
		dlogits, logits, targets, labels, rows pointer
		at                                     fault
		n                                      int64
		scale                                  float32
	}{
		o.optional("DLogits", p.DLogits, p.N), o.at("Logits", p.Logits, p.N), targets, labels, rows,
		s.mayBlame(op + ": targets"), int64(p.N), p.Scale,
	})
	s.addLosses(rows, p.N, p.Total)
}

// SquaredError implements device.Ops.
func (s *stream) SquaredError(p device.SquaredError) {
	const op = "squared error"
	if !s.sized(op, p.N) || !s.totalled(op, p.Total) {
		return
	}
	rows := s.room(roomOfParts, lossBytes*p.N)
	o := s.outputs(op, p.Y)
	launch(s, o.kernel("squared_error"), each(p.N), blockThreads, struct {
		dy, y, targets, rows pointer
		n                    int64
		scale                float32
	}{o.optional("DY", p.DY, p.N), o.at("Y", p.Y, p.N), s.floats(op, "Targets", p.Targets, p.N), rows, int64(p.N), p.Scale})
	s.addLosses(rows, p.N, p.Total)
}

const lossBytes = 16 // of a row: the loss, and whether it was right

func (s *stream) addLosses(rows pointer, n int, total *device.Total) {
	launch(s, "total_loss", one, blockThreads, struct {
		out, rows pointer
		n         int64
	}{s.cell(answer{total: total}), rows, int64(n)})
}

func (s *stream) totalled(op string, t *device.Total) bool {
	if t == nil {
		s.fail(fmt.Errorf("%s: no place for the total", op))
	}
	return s.err == nil
}
