package cpu

import (
	"math"
	"slices"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

// Forms of operations that their own tests do not take: in place, without what is optional.

func TestSoftmaxForms(t *testing.T) {
	eachSet(t, func(b *bench) (all []float32) {
		const n = 7
		for _, classes := range allSizes {
			_, x := b.random(n * classes)
			labels := b.int32s(make([]int32, n))
			var first, only, inPlace device.Total
			d := b.room(n * classes)
			p := device.SoftmaxCrossEntropy{N: n, Classes: classes, Logits: x, Labels: labels, DLogits: d, Scale: 2, Total: &first}
			b.s.SoftmaxCrossEntropy(p)
			p.DLogits, p.Total = device.Buffer{}, &only
			b.s.SoftmaxCrossEntropy(p)
			p.DLogits, p.Total = x, &inPlace
			b.s.SoftmaxCrossEntropy(p)
			sameBits(t, "in place", b.result(x), b.result(d))
			if only != first || inPlace != first {
				b.Fatalf("%d classes: totals %+v, without a gradient %+v, in place %+v", classes, first, only, inPlace)
			}
			all = append(all, b.result(d)...)
		}
		return all
	})
}

func TestBatchNormForms(t *testing.T) {
	eachSet(t, func(b *bench) (all []float32) {
		const rows = 31
		for _, n := range allSizes {
			xv, x := b.random(rows * n)
			gv, gamma := b.random(n)
			bv, beta := b.random(n)
			_, dy := b.random(rows * n)
			y, dx, dgamma, dbeta, mean, rstd := b.room(rows*n), b.room(rows*n), b.room(n), b.room(n), b.room(n), b.room(n)
			b.s.BatchNorm(device.BatchNorm{Rows: rows, Channels: n, Y: y, X: x, Gamma: gamma, Beta: beta, Mean: mean, RStd: rstd, Eps: 1e-5})
			b.close("without activation", b.result(y), naiveNorm(wide(xv), wide(gv), wide(bv), rows, n, false), 1e-5)
			p := device.BatchNormBackward{Rows: rows, Channels: n, DX: dx, DY: dy, X: x, Gamma: gamma, DGamma: dgamma, DBeta: dbeta, Mean: mean, RStd: rstd}
			b.s.BatchNormBackward(p)
			p.DX = dy
			b.s.BatchNormBackward(p)
			sameBits(t, "in place", b.result(dy), b.result(dx))
			all = slices.Concat(all, b.result(y), b.result(dx))
		}
		return all
	})
}

func TestAddForms(t *testing.T) {
	eachSet(t, func(b *bench) (all []float32) {
		for i, n := range allSizes {
			av, a := b.random(n)
			bv, bb := b.random(n)
			act := device.Activation(i % 2)
			y, want := b.room(n), make([]float64, n)
			for i := range want {
				want[i] = activate(act, float64(av[i])+float64(bv[i]))
			}
			b.s.Add(y, a, bb, n, act)
			b.near("sum", b.result(y), want, 1)
			b.s.Add(a, a, bb, n, act)
			sameBits(t, "in place of the one", b.result(a), b.result(y))
			a = b.buffer(av)
			b.s.Add(bb, a, bb, n, act)
			sameBits(t, "in place of the other", b.result(bb), b.result(y))
			all = append(all, b.result(y)...)
		}
		return all
	})
}

func TestFinite(t *testing.T) {
	for _, set := range InstructionSets() {
		b := newBench(t, set)
		for _, n := range allSizes {
			for _, v := range []float32{1e38, float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
				for _, at := range []int{0, n / 2, n - 1} {
					xv, _ := b.random(n)
					xv[at] = v
					ok := v != 1e38
					b.s.Finite(b.buffer(xv), n, &ok)
					if err := b.s.Sync(); err != nil || ok != (v == 1e38) {
						t.Fatalf("%s: finite of %d with %v at %d is %v, %v", set, n, v, at, ok, err)
					}
				}
			}
		}
	}
}

func TestEmbeddingWithoutPositions(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		tv, table := b.random(3 * 33)
		dyv, dy := b.random(4 * 33)
		ids := []int32{2, 0, 2, 1}
		tokens, y, dt := b.int32s(ids), b.room(4*33), b.room(3*33)
		b.s.Embedding(device.Embedding{N: 2, T: 2, Width: 33, Vocab: 3, Y: y, Tokens: tokens, Table: table})
		b.s.EmbeddingBackward(device.EmbeddingBackward{N: 2, T: 2, Width: 33, Vocab: 3, DY: dy, Tokens: tokens, DTable: dt})
		wantY, wantT := make([]float64, len(dyv)), make([]float64, len(tv))
		for i := range dyv {
			at := int(ids[i/33])*33 + i%33
			wantY[i] = float64(tv[at])
			wantT[at] += float64(dyv[i])
		}
		b.near("rows", b.result(y), wantY, 1)
		b.near("table", b.result(dt), wantT, 2)
		return slices.Concat(b.result(y), b.result(dt))
	})
}

// TestNoAllocation: once a shape has been seen, no operation of this file allocates.
func TestNoAllocation(t *testing.T) {
	for _, set := range InstructionSets() {
		b := newBench(t, set)
		const n, classes = 64, 100
		_, x := b.random(n * classes)
		_, w := b.random(classes * classes)
		y, small := b.room(n*classes), b.room(classes)
		labels, total := b.int32s(make([]int32, n)), device.Total{}
		sparse := device.Sparse{Rows: 2, Cols: classes, Entries: 2, Starts: b.int32s([]int32{0, 1, 2}), Columns: b.int32s([]int32{5, 99}), Values: small}
		pool := device.PoolShape{N: 1, C: classes, H: 8, W: 8, Size: 3, Stride: 2}
		for name, f := range map[string]func(){
			"product": func() {
				b.s.MatMul(device.MatMul{Trans: device.NT, M: n, N: classes, K: classes, A: x, B: w, C: y})
			},
			"softmax": func() {
				b.s.SoftmaxCrossEntropy(device.SoftmaxCrossEntropy{N: n, Classes: classes, Logits: x, Labels: labels, DLogits: y, Total: &total})
			},
			"binary cross-entropy": func() {
				b.s.BinaryCrossEntropy(device.BinaryCrossEntropy{N: n, Logits: x, Targets: labels, DLogits: y, Total: &total})
			},
			"squared error": func() {
				b.s.SquaredError(device.SquaredError{N: n, Y: x, Targets: y, Total: &total})
			},
			"sparse product": func() { b.s.SparseMatMul(device.SparseMatMul{X: sparse, Out: 1, Y: y, W: w}) },
			"sparse weights": func() {
				b.s.SparseMatMulBackwardWeight(device.SparseMatMulBackwardWeight{X: sparse, Out: 1, DW: y, DY: x})
			},
			"dropout": func() { b.s.Dropout(device.Dropout{N: n, Y: y, X: x, P: 0.5}) },
			"average": func() { b.s.AveragePool(device.AveragePool{Shape: pool, Y: y, X: x}) },
			"spread":  func() { b.s.AveragePoolBackward(device.AveragePoolBackward{Shape: pool, DX: y, DY: x}) },
			"inference": func() {
				b.s.BatchNormInference(device.BatchNormInference{Rows: n, Channels: classes, Y: y, X: x, Gamma: w, Beta: w, Mean: w, Variance: w, Eps: 1})
			},
		} {
			f()
			if err := b.s.Sync(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if a := testing.AllocsPerRun(5, f); a != 0 {
				t.Errorf("%s, %s: %v allocations", set, name, a)
			}
		}
	}
}
