package cuda

import "github.com/musterml/muster/trainer/device"

type rowsArgs struct {
	y, index, values, x       pointer
	at                        fault
	n, fields, width, rows, c int64
}

// rowsOf are the arguments that all operations on rows of tables share.
func (s *stream) rowsOf(op string, p device.Rows) (a rowsArgs) {
	if !s.sized(op, p.N, p.Fields, p.Width, p.Rows) {
		return a
	}
	return rowsArgs{
		index: s.want(op, "Index", p.Index, p.N*p.Fields, device.Int32), at: s.mayBlame(op + ": places of rows"),
		n: int64(p.N), fields: int64(p.Fields), width: int64(p.Width), rows: int64(p.Rows),
	}
}

type rowsBackwardArgs struct {
	out, index, from                          pointer
	n, fields, width, rows, bySample, byField int64
}

// rowsBackward adds up the gradients of rows.
func (s *stream) rowsBackward(a rowsBackwardArgs) { s.rowsBackwardBy("rows_backward", a) }

// rowsBackwardBy is the same by the kernel for what the gradients are kept in.
func (s *stream) rowsBackwardBy(kernel string, a rowsBackwardArgs) {
	if s.err == nil {
		s.zero(a.out, int(4*a.rows*a.width)) // most rows of a large table are named by nobody
		launch(s, kernel, [3]int{int(min(a.n*a.fields, 1<<20)), 1, 1}, blockThreads, a)
	}
}

// columns is y (rows, cols), the first columns of x (rows, stride), by the kernel for what the two are kept in.
func (s *stream) columns(kernel string, y, x pointer, rows, cols, stride int) {
	launch(s, kernel, each(rows*cols), blockThreads, struct {
		y, x               pointer
		rows, cols, stride int64
	}{y, x, int64(rows), int64(cols), int64(stride)})
}

// ConcatRows implements device.Ops.
func (s *stream) ConcatRows(p device.ConcatRows) {
	const op = "rows side by side"
	a := s.rowsOf(op, p.Rows)
	if s.err != nil {
		return
	}
	cols := p.C + p.Fields*p.Width
	a.y, a.values, a.c = s.floats(op, "Y", p.Y, p.N*cols), s.floats(op, "Values", p.Values, p.Rows.Rows*p.Width), int64(p.C)
	if p.C > 0 {
		a.x = s.floats(op, "X", p.X, p.N*p.C)
	}
	launch(s, "concat_rows", each(p.N*cols), blockThreads, a)
}

// ConcatRowsBackward implements device.Ops.
func (s *stream) ConcatRowsBackward(p device.ConcatRowsBackward) {
	const op = "gradient of rows side by side"
	a := s.rowsOf(op, p.Rows)
	if s.err != nil {
		return
	}
	cols := p.C + p.Fields*p.Width
	dy := s.floats(op, "DY", p.DY, p.N*cols)
	if !p.DX.IsNone() && p.C > 0 {
		s.columns("columns", s.floats(op, "DX", p.DX, p.N*p.C), dy, p.N, p.C, cols)
	}
	s.rowsBackward(rowsBackwardArgs{
		s.floats(op, "DValues", p.DValues, p.Rows.Rows*p.Width), a.index, dy + pointer(4*p.C), a.n, a.fields, a.width, a.rows, int64(cols), a.width,
	})
}

// PoolRows implements device.Ops.
func (s *stream) PoolRows(p device.PoolRows) {
	const op = "sum of rows of a table"
	a := s.rowsOf(op, p.Rows)
	if s.err != nil {
		return
	}
	a.y, a.values = s.floats(op, "Y", p.Y, p.N*p.Width), s.floats(op, "Values", p.Values, p.Rows.Rows*p.Width)
	launch(s, "pool_rows", each(p.N*p.Width), blockThreads, a)
}

// PoolRowsBackward implements device.Ops.
func (s *stream) PoolRowsBackward(p device.PoolRowsBackward) {
	const op = "gradient of a sum of rows of a table"
	a := s.rowsOf(op, p.Rows)
	if s.err != nil {
		return
	}
	s.rowsBackward(rowsBackwardArgs{
		s.floats(op, "DValues", p.DValues, p.Rows.Rows*p.Width), a.index, s.floats(op, "DY", p.DY, p.N*p.Width), a.n, a.fields, a.width, a.rows, a.width, 0,
	})
}

// InteractRows implements device.Ops.
func (s *stream) InteractRows(p device.InteractRows) {
	const op = "interaction of rows"
	a := s.rowsOf(op, p.Rows)
	if s.err != nil {
		return
	}
	n := p.N * (p.Width + (p.Fields+1)*p.Fields/2)
	a.y, a.x, a.values = s.floats(op, "Y", p.Y, n), s.floats(op, "X", p.X, p.N*p.Width), s.floats(op, "Values", p.Values, p.Rows.Rows*p.Width)
	launch(s, "interact_rows", each(n), blockThreads, a)
}

// InteractRowsBackward implements device.Ops.
func (s *stream) InteractRowsBackward(p device.InteractRowsBackward) {
	const op = "gradient of the interaction of rows"
	a := s.rowsOf(op, p.Rows)
	if s.err != nil {
		return
	}
	members := (p.Fields + 1) * p.Width
	a.y, a.x, a.values = s.room(roomOfParts, 4*p.N*members), s.floats(op, "X", p.X, p.N*p.Width), s.floats(op, "Values", p.Values, p.Rows.Rows*p.Width)
	launch(s, "interact_rows_backward", each(p.N*members), blockThreads, struct {
		rowsArgs
		dy pointer
	}{a, s.floats(op, "DY", p.DY, p.N*(p.Width+(p.Fields+1)*p.Fields/2))})
	if !p.DX.IsNone() {
		s.columns("columns", s.floats(op, "DX", p.DX, p.N*p.Width), a.y, p.N, p.Width, members)
	}
	s.rowsBackward(rowsBackwardArgs{
		s.floats(op, "DValues", p.DValues, p.Rows.Rows*p.Width), a.index, a.y + pointer(4*p.Width), a.n, a.fields, a.width, a.rows, int64(members), a.width,
	})
}
