package cpu

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

// sparse makes a matrix with empty rows, columns out of order and some that come twice; dense is the same.
func (b *bench) sparse(rows, cols int) (x device.Sparse, dense []float32) {
	b.Helper()
	starts, columns, values := []int32{0}, []int32{}, []float32{}
	dense = make([]float32, rows*cols)
	for i := range rows {
		for range b.r.IntN(2 * min(cols, 40)) {
			c, v := b.r.IntN(cols), b.r.Float32()*2-1
			columns, values = append(columns, int32(c)), append(values, v)
			dense[i*cols+c] += v
		}
		starts = append(starts, int32(len(columns)))
	}
	x = device.Sparse{Rows: rows, Cols: cols, Entries: len(columns), Starts: b.int32s(starts)}
	if len(columns) > 0 {
		x.Columns, x.Values = b.int32s(columns), b.buffer(values)
	}
	return x, dense
}

func TestSparseMatMul(t *testing.T) {
	eachSet(t, func(b *bench) (all []float32) {
		for i, rows := range allSizes {
			for j, cols := range allSizes {
				all = append(all, b.sparseProduct(rows, cols, []int{1, 2, 7, 33}[(i+j)%4])...)
			}
		}
		return all
	})
}

// sparseProduct checks both operations against products with the dense matrix. A product is linear in each
// operand, so that is also what finite differences would give.
func (b *bench) sparseProduct(rows, cols, out int) []float32 {
	b.Helper()
	what := fmt.Sprintf("%dx%d to %d", rows, cols, out)
	x, dense := b.sparse(rows, cols)
	wv, w := b.random(out * cols)
	dyv, dy := b.random(rows * out)
	p := device.SparseMatMul{X: x, Out: out, Y: b.room(rows * out), W: w, Act: device.Activation(rows % 2)}
	var bias []float32
	if cols%2 == 1 {
		bias, p.Bias = b.random(out)
	}
	dw := b.room(out * cols)
	b.s.SparseMatMul(p)
	b.s.SparseMatMulBackwardWeight(device.SparseMatMulBackwardWeight{X: x, Out: out, DW: dw, DY: dy})
	forward := device.MatMul{Trans: device.NT, M: rows, N: out, K: cols, Act: p.Act}
	b.near(what, b.result(p.Y), naiveMatMul(forward, dense, wv, bias), 80)
	backward := device.MatMul{Trans: device.TN, M: out, N: cols, K: rows}
	b.near(what+", weights", b.result(dw), naiveMatMul(backward, dyv, dense, nil), rows)
	return slices.Concat(b.result(p.Y), b.result(dw))
}

// TestSparseGradient is the finite difference, once, through forward and backward of the operations themselves.
func TestSparseGradient(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		const rows, cols, out, h = 7, 33, 3, 1.0 / 64
		x, _ := b.sparse(rows, cols)
		wv, _ := b.random(out * cols)
		dyv, dy := b.random(rows * out)
		dw := b.room(out * cols)
		b.s.SparseMatMulBackwardWeight(device.SparseMatMulBackwardWeight{X: x, Out: out, DW: dw, DY: dy})
		at := func(i int, by float32) (sum float64) {
			moved := slices.Clone(wv)
			moved[i] += by
			y := b.room(rows * out)
			b.s.SparseMatMul(device.SparseMatMul{X: x, Out: out, Y: y, W: b.buffer(moved)})
			for j, v := range b.result(y) {
				sum += float64(v) * float64(dyv[j])
			}
			return sum
		}
		want := make([]float64, out*cols)
		for i := range want {
			want[i] = (at(i, h) - at(i, -h)) / (2 * h)
		}
		b.close("gradient", b.result(dw), want, 2e-5)
		return slices.Clone(b.result(dw))
	})
}

func TestSparseFaults(t *testing.T) {
	b := newBench(t, "")
	_, v := b.random(100)
	good := device.Sparse{Rows: 2, Cols: 5, Entries: 3, Starts: b.int32s([]int32{0, 1, 3}), Columns: b.int32s([]int32{4, 0, 2}), Values: v}
	with := func(f func(x *device.Sparse)) device.Sparse {
		x := good
		f(&x)
		return x
	}
	for want, x := range map[string]device.Sparse{
		"column 5 of row 1 is not within [0, 5)": with(func(x *device.Sparse) { x.Columns = b.int32s([]int32{4, 0, 5}) }),
		"column -1 of row 0":                     with(func(x *device.Sparse) { x.Columns = b.int32s([]int32{-1, 0, 2}) }),
		"row 1 has entries [3, 1)":               with(func(x *device.Sparse) { x.Starts = b.int32s([]int32{0, 3, 1}) }),
		"row 0 has entries [-1, 1)":              with(func(x *device.Sparse) { x.Starts = b.int32s([]int32{-1, 1, 3}) }),
		"row 1 has entries [1, 4), which are":    with(func(x *device.Sparse) { x.Starts = b.int32s([]int32{0, 1, 4}) }),
		"operand Starts has 3 elements":          with(func(x *device.Sparse) { x.Rows = 3 }),
		"operand Values is not a memory":         with(func(x *device.Sparse) { x.Values = device.Buffer{} }),
		"sizes must be at least 1":               with(func(x *device.Sparse) { x.Cols = 0 }),
		"more than 2^31":                         with(func(x *device.Sparse) { x.Entries = -1 }),
	} {
		b.s.SparseMatMul(device.SparseMatMul{X: x, Out: 2, Y: v, W: v})
		forward := b.s.Sync()
		b.s.SparseMatMulBackwardWeight(device.SparseMatMulBackwardWeight{X: x, Out: 2, DW: v, DY: v})
		for _, err := range []error{forward, b.s.Sync()} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want one with %q", err, want)
			}
		}
	}
}
