package cpu

import (
	"math"

	"github.com/musterml/muster/trainer/device"
)

// rstd is 1/sqrt(variance + eps).
func rstd(variance float64, eps float32) float32 {
	return float32(1 / math.Sqrt(variance+float64(eps)))
}

// LayerNorm implements device.Ops.
func (s *stream) LayerNorm(p device.LayerNorm) {
	const op = "layer norm"
	if !s.sized(op, p.Rows, p.Cols) {
		return
	}
	y, x := s.floats(op, "Y", p.Y, p.Rows*p.Cols), s.floats(op, "X", p.X, p.Rows*p.Cols)
	gamma, beta := s.floats(op, "Gamma", p.Gamma, p.Cols), s.floats(op, "Beta", p.Beta, p.Cols)
	means, rstds := s.floats(op, "Mean", p.Mean, p.Rows), s.floats(op, "RStd", p.RStd, p.Rows)
	if s.err != nil {
		return
	}
	n := float32(p.Cols)
	for i := range p.Rows {
		row := x[i*p.Cols : (i+1)*p.Cols]
		means[i] = s.k.sum(row) / n
		rstds[i] = rstd(float64(s.k.squares(row, means[i])/n), p.Eps)
		s.k.normalise(y[i*p.Cols:(i+1)*p.Cols], row, gamma, beta, means[i], rstds[i])
	}
}

// LayerNormBackward implements device.Ops.
func (s *stream) LayerNormBackward(p device.LayerNormBackward) {
	const op = "layer norm backward"
	if !s.sized(op, p.Rows, p.Cols) {
		return
	}
	m := p.Rows * p.Cols
	dx, dy, x := s.floats(op, "DX", p.DX, m), s.floats(op, "DY", p.DY, m), s.floats(op, "X", p.X, m)
	gamma := s.floats(op, "Gamma", p.Gamma, p.Cols)
	dgamma, dbeta := s.floats(op, "DGamma", p.DGamma, p.Cols), s.floats(op, "DBeta", p.DBeta, p.Cols)
	means, rstds := s.floats(op, "Mean", p.Mean, p.Rows), s.floats(op, "RStd", p.RStd, p.Rows)
	if s.err != nil {
		return
	}
	clear(dgamma)
	clear(dbeta)
	n := float32(p.Cols)
	for i := range p.Rows {
		from, to := i*p.Cols, (i+1)*p.Cols
		s0, s1 := s.k.normSums(dy[from:to], gamma, x[from:to], means[i], rstds[i])
		s.k.normBack(dx[from:to], dy[from:to], gamma, x[from:to], dgamma, dbeta, means[i], rstds[i], s0/n, s1/n)
	}
}
