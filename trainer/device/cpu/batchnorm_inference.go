package cpu

import "github.com/musterml/muster/trainer/device"

// BatchNormInference implements device.Ops.
func (s *stream) BatchNormInference(p device.BatchNormInference) {
	const op = "batch norm inference"
	if !s.sized(op, p.Rows, p.Channels) {
		return
	}
	n := p.Channels
	y, x := s.floats(op, "Y", p.Y, p.Rows*n), s.floats(op, "X", p.X, p.Rows*n)
	gamma, beta := s.floats(op, "Gamma", p.Gamma, n), s.floats(op, "Beta", p.Beta, n)
	mean, variance := s.floats(op, "Mean", p.Mean, n), s.floats(op, "Variance", p.Variance, n)
	if s.err != nil {
		return
	}
	c := s.channelScratch(n)
	for j := range n {
		c.a[j] = gamma[j] * rstd(float64(variance[j]), p.Eps)
		c.b[j] = beta[j] - float32(mean[j]*c.a[j])
	}
	floor := floorOf(p.Act)
	for i := range p.Rows {
		s.k.affine(y[i*n:(i+1)*n], x[i*n:(i+1)*n], c.a, c.b, floor)
	}
}
