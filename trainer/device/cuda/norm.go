package cuda

import "github.com/musterml/muster/trainer/device"

type normSumsArgs struct {
	parts, dy, x, mean, rstd, gamma, beta pointer
	rows, cols, byRow                     int64
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
	args := layerNormArgs{
		y: o.at("Y", p.Y, n), x: o.at("X", p.X, n), gamma: s.floats(op, "Gamma", p.Gamma, p.Cols), beta: s.floats(op, "Beta", p.Beta, p.Cols),
		mean: s.floats(op, "Mean", p.Mean, p.Rows), rstd: s.floats(op, "RStd", p.RStd, p.Rows), rows: int64(p.Rows), cols: int64(p.Cols), eps: p.Eps,
	}
	s.takesSum(&args)
	launch(s, o.kernel("layer_norm"), [3]int{min(p.Rows, mostBlocks), 1, 1}, blockThreads, args)
}

type layerNormArgs struct {
	y, x, a, b, gamma, beta, mean, rstd pointer
	rows, cols                          int64
	eps                                 float32
}

type layerNormBackwardArgs struct {
	dx, dy, x, plus, gamma, mean, rstd pointer
	rows, cols                         int64
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
	launch(s, o.kernel("layer_norm_backward"), [3]int{min(p.Rows, mostBlocks), 1, 1}, blockThreads, layerNormBackwardArgs{
		dx: o.at("DX", p.DX, n), dy: dy, x: x, gamma: s.floats(op, "Gamma", p.Gamma, p.Cols), mean: mean, rstd: rstd, rows: int64(p.Rows), cols: int64(p.Cols),
	})
}

type batchNormArgs struct {
	y, x, plus, gamma, beta, mean, rstd pointer
	rows, cols, act                     int64
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
	parts := ceil(p.Rows, rowsPerPart)
	sums := s.room(roomOfParts, 8*parts*c)
	launch(s, o.kernel("moment_parts"), [3]int{ceil(parts*c, blockThreads), 1, 1}, blockThreads, struct {
		parts, x   pointer
		rows, cols int64
	}{sums, x, int64(p.Rows), int64(c)})
	launch(s, "moment", [3]int{ceil(c, totalColumns), 1, 1}, blockThreads, struct {
		mean, rstd, parts pointer
		n, rows, cols     int64
		eps               float32
	}{mean, rstd, sums, int64(parts), int64(p.Rows), int64(c), p.Eps})
	launch(s, o.kernel("batch_norm"), each(n), blockThreads, batchNormArgs{
		y: o.at("Y", p.Y, n), x: x, gamma: s.floats(op, "Gamma", p.Gamma, c), beta: s.floats(op, "Beta", p.Beta, c), mean: mean, rstd: rstd,
		rows: int64(p.Rows), cols: int64(c), act: int64(p.Act),
	})
}

// BatchNormBackward implements device.Ops. Where the ReLU has put out 0 is found again from x: that reads less than its output.
func (s *stream) BatchNormBackward(p device.BatchNormBackward) {
	const op = "gradient of batch norm"
	if !s.sized(op, p.Rows, p.Channels) {
		return
	}
	n, c := p.Rows*p.Channels, p.Channels
	o := s.outputs(op, p.X)
	dy, x, mean, rstd := o.at("DY", p.DY, n), o.at("X", p.X, n), s.floats(op, "Mean", p.Mean, c), s.floats(op, "RStd", p.RStd, c)
	dgamma, dbeta, gamma := s.floats(op, "DGamma", p.DGamma, c), s.floats(op, "DBeta", p.DBeta, c), s.floats(op, "Gamma", p.Gamma, c)
	sums := normSumsArgs{dy: dy, x: x, mean: mean, rstd: rstd, rows: int64(p.Rows), cols: int64(c)}
	if p.Act == device.ReLU {
		sums.gamma, sums.beta = gamma, s.floats(op, "Beta", p.Beta, c)
	}
	s.normSums(o, dgamma, dbeta, sums)
	launch(s, o.kernel("batch_norm_backward"), each(n), blockThreads, struct {
		dx, dy, x, gamma, beta, dgamma, dbeta, mean, rstd pointer
		rows, cols                                        int64
	}{o.at("DX", p.DX, n), dy, x, gamma, sums.beta, dgamma, dbeta, mean, rstd, int64(p.Rows), int64(c)})
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
