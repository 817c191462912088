package cuda

import "github.com/musterml/muster/trainer/device"

type normSumsArgs struct {
	parts, dy, x, mean, rstd pointer
	rows, cols, byRow        int64
}

// normSums is dgamma and dbeta: the sums over rows of dy, and of dy times the normalised x.
func (s *stream) normSums(o outputs, dgamma, dbeta pointer, a normSumsArgs) {
	n, cols := ceil(int(a.rows), rowsPerPart), int(a.cols)
	a.parts = s.room(roomOfParts, 8*n*cols)
	launch(s, o.kernel("norm_sums"), [3]int{ceil(n*cols, blockThreads), 1, 1}, blockThreads, a)
	launch(s, "norm_totals", [3]int{ceil(cols, totalColumns), 1, 1}, blockThreads, struct {
		dgamma, dbeta, parts pointer
		n, cols              int64
	}{dgamma, dbeta, a.parts, int64(n), a.cols})
}

// LayerNorm implements device.Ops.
func (s *stream) LayerNorm(p device.LayerNorm) {
	const op = "layer norm"
	if !s.sized(op, p.Rows, p.Cols) {
		return
	}
	n, o := p.Rows*p.Cols, s.outputs(op, p.X)
	launch(s, o.kernel("layer_norm"), [3]int{min(p.Rows, mostBlocks), 1, 1}, blockThreads, struct {
		y, x, gamma, beta, mean, rstd pointer
		rows, cols                    int64
		eps                           float32
	}{
		o.at("Y", p.Y, n), o.at("X", p.X, n), s.floats(op, "Gamma", p.Gamma, p.Cols), s.floats(op, "Beta", p.Beta, p.Cols),
		s.floats(op, "Mean", p.Mean, p.Rows), s.floats(op, "RStd", p.RStd, p.Rows), int64(p.Rows), int64(p.Cols), p.Eps,
	})
}

// LayerNormBackward implements device.Ops.
func (s *stream) LayerNormBackward(p device.LayerNormBackward) {
	const op = "gradient of layer norm"
	if !s.sized(op, p.Rows, p.Cols) {
		return
	}
	n, o := p.Rows*p.Cols, s.outputs(op, p.X)
	dy, x, mean, rstd := o.at("DY", p.DY, n), o.at("X", p.X, n), s.floats(op, "Mean", p.Mean, p.Rows), s.floats(op, "RStd", p.RStd, p.Rows)
	s.normSums(o, s.floats(op, "DGamma", p.DGamma, p.Cols), s.floats(op, "DBeta", p.DBeta, p.Cols),
		normSumsArgs{dy: dy, x: x, mean: mean, rstd: rstd, rows: int64(p.Rows), cols: int64(p.Cols), byRow: 1})
	launch(s, o.kernel("layer_norm_backward"), [3]int{min(p.Rows, mostBlocks), 1, 1}, blockThreads, struct {
		dx, dy, x, gamma, mean, rstd pointer
		rows, cols                   int64
	}{o.at("DX", p.DX, n), dy, x, s.floats(op, "Gamma", p.Gamma, p.Cols), mean, rstd, int64(p.Rows), int64(p.Cols)})
}

// BatchNorm implements device.Ops.
func (s *stream) BatchNorm(p device.BatchNorm) {
	const op = "batch norm"
	if !s.sized(op, p.Rows, p.Channels) {
		return
	}
	n, c := p.Rows*p.Channels, p.Channels
	o := s.outputs(op, p.X)
	x, mean, rstd := o.at("X", p.X, n), s.floats(op, "Mean", p.Mean, c), s.floats(op, "RStd", p.RStd, c)
	s.moment(o, mean, x, 0, p.Rows, c, 0)
	s.moment(o, rstd, x, mean, p.Rows, c, p.Eps)
	launch(s, o.kernel("batch_norm"), each(n), blockThreads, struct {
		y, x, gamma, beta, mean, rstd pointer
		rows, cols, act               int64
	}{
		o.at("Y", p.Y, n), x, s.floats(op, "Gamma", p.Gamma, c), s.floats(op, "Beta", p.Beta, c), mean, rstd,
		int64(p.Rows), int64(c), int64(p.Act),
	})
}

// moment is the mean of each column, or around a mean 1/sqrt(variance + eps).
func (s *stream) moment(o outputs, out, x, mean pointer, rows, cols int, eps float32) {
	n := ceil(rows, rowsPerPart)
	parts := s.room(roomOfParts, 4*n*cols)
	launch(s, o.kernel("moment_parts"), [3]int{ceil(n*cols, blockThreads), 1, 1}, blockThreads, struct {
		parts, x, mean pointer
		rows, cols     int64
	}{parts, x, mean, int64(rows), int64(cols)})
	var root int64
	if mean != 0 {
		root = 1
	}
	launch(s, "moment", [3]int{ceil(cols, totalColumns), 1, 1}, blockThreads, struct {
		out, parts          pointer
		n, rows, cols, rstd int64
		eps                 float32
	}{out, parts, int64(n), int64(rows), int64(cols), root, eps})
}

// BatchNormBackward implements device.Ops.
func (s *stream) BatchNormBackward(p device.BatchNormBackward) {
	const op = "gradient of batch norm"
	if !s.sized(op, p.Rows, p.Channels) {
		return
	}
	n, c := p.Rows*p.Channels, p.Channels
	o := s.outputs(op, p.X)
	dy, x, mean, rstd := o.at("DY", p.DY, n), o.at("X", p.X, n), s.floats(op, "Mean", p.Mean, c), s.floats(op, "RStd", p.RStd, c)
	dgamma, dbeta := s.floats(op, "DGamma", p.DGamma, c), s.floats(op, "DBeta", p.DBeta, c)
	s.normSums(o, dgamma, dbeta, normSumsArgs{dy: dy, x: x, mean: mean, rstd: rstd, rows: int64(p.Rows), cols: int64(c)})
	launch(s, o.kernel("batch_norm_backward"), each(n), blockThreads, struct {
		dx, dy, x, gamma, dgamma, dbeta, mean, rstd pointer
		rows, cols                                  int64
	}{o.at("DX", p.DX, n), dy, x, s.floats(op, "Gamma", p.Gamma, c), dgamma, dbeta, mean, rstd, int64(p.Rows), int64(c)})
}

// BatchNormInference implements device.Ops.
func (s *stream) BatchNormInference(p device.BatchNormInference) {
	const op = "batch norm of evaluation"
	if !s.sized(op, p.Rows, p.Channels) {
		return
	}
	n, c := p.Rows*p.Channels, p.Channels
	o := s.outputs(op, p.X)
	launch(s, o.kernel("batch_norm_inference"), each(n), blockThreads, struct {
		y, x, gamma, beta, mean, variance pointer
		rows, cols, act                   int64
		eps                               float32
	}{
		o.at("Y", p.Y, n), o.at("X", p.X, n), s.floats(op, "Gamma", p.Gamma, c), s.floats(op, "Beta", p.Beta, c),
		s.floats(op, "Mean", p.Mean, c), s.floats(op, "Variance", p.Variance, c), int64(p.Rows), int64(c), int64(p.Act), p.Eps,
	})
}
