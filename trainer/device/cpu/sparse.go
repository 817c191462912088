package cpu

import (
	"fmt"

	"github.com/musterml/muster/trainer/device"
)

// sparse is a device.Sparse whose entries have been looked at: every start and column is in range.
type sparse struct {
	starts, columns []int32
	values          []float32
}

// row is the entries of row i.
func (x *sparse) row(i int) (columns []int32, values []float32) {
	from, to := x.starts[i], x.starts[i+1]
	return x.columns[from:to], x.values[from:to]
}

// sparse checks a matrix; its faults are told with the row, counted from 0.
func (s *stream) sparse(op string, g device.Sparse, out int) (x sparse) {
	if !s.sized(op, g.Rows, g.Cols, out) {
		return x
	}
	if g.Entries < 0 || !fits(g.Entries, g.Rows*out, g.Cols*out) {
		s.fail(errTooLarge)
		return x
	}
	x.starts = s.ints(op, "Starts", g.Starts, g.Rows+1)
	if g.Entries > 0 { // else the two may be none
		x.columns = s.ints(op, "Columns", g.Columns, g.Entries)
		x.values = s.floats(op, "Values", g.Values, g.Entries)
	}
	if s.err != nil {
		return x
	}
	for i := range g.Rows {
		from, to := int(x.starts[i]), int(x.starts[i+1])
		if from < 0 || to < from || to > g.Entries {
			s.fail(fmt.Errorf("%s: row %d has entries [%d, %d), which are none of the %d", op, i, from, to, g.Entries))
			return x
		}
		for _, c := range x.columns[from:to] {
			if c < 0 || int(c) >= g.Cols {
				s.fail(fmt.Errorf("%s: column %d of row %d is not within [0, %d)", op, c, i, g.Cols))
				return x
			}
		}
	}
	return x
}

// SparseMatMul implements device.Ops. It waits for memory far more than for arithmetic, so it is plain Go, the
// same on every instruction set.
func (s *stream) SparseMatMul(p device.SparseMatMul) {
	const op = "sparse matrix product"
	x := s.sparse(op, p.X, p.Out)
	if s.err != nil {
		return
	}
	y, w := s.floats(op, "Y", p.Y, p.X.Rows*p.Out), s.floats(op, "W", p.W, p.Out*p.X.Cols)
	bias := s.optional(op, "Bias", p.Bias, p.Out)
	if s.err != nil {
		return
	}
	floor := floorOf(p.Act)
	for i := range p.X.Rows {
		columns, values := x.row(i)
		for o := range p.Out {
			row, sum := w[o*p.X.Cols:(o+1)*p.X.Cols], float32(0)
			if bias != nil {
				sum = bias[o]
			}
			for e, c := range columns {
				sum += float32(values[e] * row[c])
			}
			y[i*p.Out+o] = atLeast(floor, sum)
		}
	}
}

// SparseMatMulBackwardWeight implements device.Ops.
func (s *stream) SparseMatMulBackwardWeight(p device.SparseMatMulBackwardWeight) {
	const op = "sparse matrix product backward"
	x := s.sparse(op, p.X, p.Out)
	if s.err != nil {
		return
	}
	dw, dy := s.floats(op, "DW", p.DW, p.Out*p.X.Cols), s.floats(op, "DY", p.DY, p.X.Rows*p.Out)
	if s.err != nil {
		return
	}
	clear(dw)
	for i := range p.X.Rows {
		columns, values := x.row(i)
		for o := range p.Out {
			row, d := dw[o*p.X.Cols:(o+1)*p.X.Cols], dy[i*p.Out+o]
			for e, c := range columns {
				row[c] += float32(values[e] * d)
			}
		}
	}
}
