package cpu

import "github.com/musterml/muster/trainer/device"

// AveragePool implements device.Ops.
func (s *stream) AveragePool(yb, xb device.Buffer, n, pixels, c int) {
	const op = "average pooling"
	if !s.sized(op, n, pixels, c) {
		return
	}
	y, x := s.floats(op, "Y", yb, n*c), s.floats(op, "X", xb, n*pixels*c)
	if s.err != nil {
		return
	}
	clear(y)
	for i := range n {
		row := y[i*c : (i+1)*c]
		s.addRows(row, x[i*pixels*c:(i+1)*pixels*c], pixels)
		s.k.scale(row, row, 1/float32(pixels))
	}
}

// AveragePoolBackward implements device.Ops.
func (s *stream) AveragePoolBackward(dxb, dyb device.Buffer, n, pixels, c int) {
	const op = "average pooling backward"
	if !s.sized(op, n, pixels, c) {
		return
	}
	dx, dy := s.floats(op, "DX", dxb, n*pixels*c), s.floats(op, "DY", dyb, n*c)
	if s.err != nil {
		return
	}
	for i := range n {
		image := dx[i*pixels*c : (i+1)*pixels*c]
		s.k.scale(image[:c], dy[i*c:(i+1)*c], 1/float32(pixels))
		for p := 1; p < pixels; p++ {
			copy(image[p*c:(p+1)*c], image[:c])
		}
	}
}
