package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/trainer/device"
)

func TestPooling(t *testing.T) {
	same(t, 0, func(b *bench) {
		for i, g := range []device.PoolShape{
			{N: 2, C: 5, H: 8, W: 6, Size: 2, Stride: 2}, {N: 1, C: 3, H: 9, W: 7, Size: 3, Stride: 2}, {N: 2, C: 2, H: 7, W: 9, Size: 3, Stride: 1},
			{N: 2, C: 3, H: 9, W: 8, Size: 3, Stride: 2, Pad: 1}, {N: 1, C: 33, H: 5, W: 5, Size: 2, Stride: 3},
		} {
			image, pooled := poolSizes(g)
			x, dy, y, dx, index := b.random(image), b.random(pooled), b.room(pooled), b.room(image), b.alloc(device.Uint8, pooled)
			act := device.Activation(i % 2)
			b.MaxPool(device.MaxPool{Shape: g, Y: y, X: x, Index: index, Act: act})
			b.MaxPoolBackward(device.MaxPoolBackward{Shape: g, DX: dx, DY: dy, Y: y, Index: index, Act: act})
			b.keep(fmt.Sprintf("max %+v", g), y)
			b.keep(fmt.Sprintf("gradient of max %+v", g), dx)
			if g.Pad == 0 {
				mean, back := b.room(pooled), b.room(image)
				b.AveragePool(device.AveragePool{Shape: g, Y: mean, X: x})
				b.AveragePoolBackward(device.AveragePoolBackward{Shape: g, DX: back, DY: dy})
				b.keep(fmt.Sprintf("average %+v", g), mean)
				b.keep(fmt.Sprintf("gradient of average %+v", g), back)
			}
		}
	})
	same(t, 1e-6, func(b *bench) {
		const n, pixels, c = 3, 49, 17
		y, dx := b.room(n*c), b.room(n*pixels*c)
		b.GlobalAveragePool(y, b.random(n*pixels*c), n, pixels, c)
		b.GlobalAveragePoolBackward(dx, y, n, pixels, c)
		b.keep("global average", y)
		b.keep("its gradient", dx)
	})
}

var sizes = []int{1, 7, 31, 33, 127, 1000}

func TestElementwise(t *testing.T) {
	same(t, 0, func(b *bench) {
		for i, n := range sizes {
			x, y, dy := b.random(n), b.random(n), b.random(n)
			sum, masked, scaled := b.room(n), b.room(n), b.room(n)
			b.Add(sum, x, y, n, device.Activation(i%2))
			b.ReLUBackward(masked, dy, x, n)
			b.Scale(scaled, x, n, 0.3)
			b.keep("sum", sum)
			b.keep("mask", masked)
			b.keep("scale", scaled)
			b.Finite(x, n, b.ok())
		}
		for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			x := make([]float32, 700)
			x[699] = float32(v)
			b.Finite(b.floats(x), len(x), b.ok())
		}
		images, back := b.room(2*3*5*7), b.room(2*3*5*7)
		b.ToNHWC(images, b.random(2*3*5*7), 2, 3, 5, 7)
		b.ToNCHW(back, images, 2, 3, 5, 7)
		b.keep("NHWC", images)
		b.keep("NCHW", back)
	})
}

func TestDropout(t *testing.T) {
	same(t, 0, func(b *bench) {
		for _, n := range sizes {
			y := b.room(n)
			key := device.DropoutKey{Seed: 1 << 40, Step: 7<<32 | 5, Shard: 3, Layer: 2}
			b.Dropout(device.Dropout{N: n, Y: y, X: b.random(n), P: 0.3, Key: key})
			b.keep("dropout", y)
		}
	})
}

func TestFunctions(t *testing.T) {
	same(t, 3e-7, func(b *bench) {
		for f := range device.Functions {
			const n = 1000
			x, dy, y, dx := b.random(n), b.random(n), b.room(n), b.room(n)
			b.Apply(y, x, n, f)
			b.ApplyBackward(dx, dy, x, n, f)
			b.keep(fmt.Sprint("function ", f), y)
			b.keep(fmt.Sprint("slope ", f), dx)
		}
	})
}

func TestSumRows(t *testing.T) {
	same(t, 1e-6, func(b *bench) {
		for _, rows := range []int{1, 255, 257, 700} {
			for _, cols := range []int{1, 33, 300} {
				out := b.room(cols)
				b.SumRows(out, b.random(rows*cols), rows, cols)
				b.keep(fmt.Sprint(rows, " rows of ", cols), out)
			}
		}
	})
}

func TestLosses(t *testing.T) {
	same(t, 1e-6, func(b *bench) {
		for _, classes := range []int{1, 2, 10, 65, 1000, 2100} {
			const n = 5
			x, d := b.random(n*classes), b.room(n*classes)
			labels := b.ints(n, classes)
			p := device.SoftmaxCrossEntropy{N: n, Classes: classes, Logits: x, Labels: labels, DLogits: d, Scale: 0.5, Total: b.total()}
			b.SoftmaxCrossEntropy(p)
			p.DLogits, p.Total = x, b.total()
			b.SoftmaxCrossEntropy(p)
			b.keep("gradient of softmax", d)
			b.keep("in place", x)
		}
		for _, n := range sizes {
			x, d, e := b.random(n), b.room(n), b.room(n)
			b.BinaryCrossEntropy(device.BinaryCrossEntropy{N: n, Logits: x, Targets: b.ints(n, 2), DLogits: d, Scale: 2, Total: b.total()})
			b.SquaredError(device.SquaredError{N: n, Y: x, Targets: b.random(n), DY: e, Scale: 2, Total: b.total()})
			b.keep("gradient of the binary", d)
			b.keep("gradient of the squares", e)
		}
	})
}

// The largest logit may come late, or behind some that are -infinity; equals are told apart by their order.
func TestLossOfUnevenLogits(t *testing.T) {
	same(t, 1e-6, func(b *bench) {
		const n, classes = 3, 2300
		x, labels, d := make([]float32, n*classes), make([]int32, n), b.room(n*classes)
		for i := range x {
			switch row, j := i/classes, i%classes; {
			case row == 0:
				x[i] = float32(j) / 20
			case j < 2100:
				x[i] = float32(math.Inf(-1))
			case j%100 == 0:
				x[i] = 3
			}
			labels[i/classes] = int32([]int{classes - 1, 2100, 2200}[i/classes])
		}
		b.SoftmaxCrossEntropy(device.SoftmaxCrossEntropy{N: n, Classes: classes, Logits: b.floats(x), Labels: b.int32s(labels), DLogits: d, Scale: 0.5, Total: b.total()})
		b.keep("gradient", d)
	})
}

func TestNorms(t *testing.T) {
	same(t, 2e-6, func(b *bench) {
		for _, g := range [][2]int{{1, 7}, {3, 33}, {300, 64}, {600, 5}, {4, 1000}} {
			rows, cols := g[0], g[1]
			x, dy, gamma, beta := b.random(rows*cols), b.random(rows*cols), b.random(cols), b.random(cols)
			y, dx, dgamma, dbeta, mean, rstd := b.room(rows*cols), b.room(rows*cols), b.room(cols), b.room(cols), b.room(rows), b.room(rows)
			b.LayerNorm(device.LayerNorm{Rows: rows, Cols: cols, Y: y, X: x, Gamma: gamma, Beta: beta, Mean: mean, RStd: rstd, Eps: 1e-5})
			b.LayerNormBackward(device.LayerNormBackward{Rows: rows, Cols: cols, DX: dx, DY: dy, X: x, Gamma: gamma, DGamma: dgamma, DBeta: dbeta, Mean: mean, RStd: rstd})
			for _, m := range []device.Buffer{y, dx, dgamma, dbeta, mean, rstd} {
				b.keep(fmt.Sprint("layer norm ", g), m)
			}
			if rows < 3 {
				continue
			}
			y, dx, dgamma, dbeta, mean, rstd = b.room(rows*cols), b.room(rows*cols), b.room(cols), b.room(cols), b.room(cols), b.room(cols)
			b.BatchNorm(device.BatchNorm{Rows: rows, Channels: cols, Y: y, X: x, Gamma: gamma, Beta: beta, Mean: mean, RStd: rstd, Eps: 1e-5, Act: device.ReLU})
			b.BatchNormBackward(device.BatchNormBackward{Rows: rows, Channels: cols, DX: dx, DY: dy, X: x, Gamma: gamma, DGamma: dgamma, DBeta: dbeta, Mean: mean, RStd: rstd})
			behind := device.BatchNormBackward{Rows: rows, Channels: cols, DX: b.room(rows * cols), DY: dy, X: x, Y: y, Gamma: gamma, Beta: beta, DGamma: b.room(cols), DBeta: b.room(cols), Mean: mean, RStd: rstd, Act: device.ReLU}
			b.BatchNormBackward(behind)
			b.keep(fmt.Sprint("behind ReLU, dx ", g), behind.DX)
			b.keep(fmt.Sprint("behind ReLU, dgamma ", g), behind.DGamma)
			b.keep(fmt.Sprint("behind ReLU, dbeta ", g), behind.DBeta)
			z := b.room(rows * cols)
			b.BatchNormInference(device.BatchNormInference{Rows: rows, Channels: cols, Y: z, X: x, Gamma: gamma, Beta: beta, Mean: mean, Variance: b.positive(cols), Eps: 1e-5})
			for _, m := range []device.Buffer{y, dx, dgamma, dbeta, mean, rstd, z} {
				b.keep(fmt.Sprint("batch norm ", g), m)
			}
		}
	})
}

var attentions = []device.AttentionShape{
	{N: 1, T: 1, Heads: 1, Width: 1}, {N: 2, T: 7, Heads: 3, Width: 5, Causal: true}, {N: 1, T: 33, Heads: 2, Width: 32},
	{N: 1, T: 70, Heads: 1, Width: 33, Causal: true}, {N: 1, T: 9, Heads: 1, Width: 200},
	// Of these tensor cores have kernels: less than a tile, several tiles with odd ends, the largest width.
	{N: 1, T: 1, Heads: 1, Width: 4}, {N: 2, T: 17, Heads: 3, Width: 16, Causal: true}, {N: 1, T: 67, Heads: 1, Width: 64},
	{N: 1, T: 67, Heads: 1, Width: 128, Causal: true}, {N: 1, T: 35, Heads: 1, Width: 100},
	// These begin at multiples of 16 bytes in bf16, too; the last is more than a block has.
	{N: 1, T: 67, Heads: 2, Width: 40}, {N: 1, T: 35, Heads: 2, Width: 88, Causal: true}, {N: 1, T: 131, Heads: 1, Width: 64, Causal: true},
}

// On the emulator all of them take long.
var fewAttentions = map[device.Precision]int{device.FP32: 5, device.TF32: 10, device.BF16: 13}

// attentionBounds is how far results of attention are from the CPU's, where its factors have no more bits than a precision keeps: what
// is left is that probabilities, and gradients of scores, are rounded as factors of the next product. docs/gpu.md names these.
var attentionBounds = map[device.Precision]float64{device.FP32: 2e-6, device.TF32: 5e-4, device.BF16: 5e-3}

func TestAttention(t *testing.T) {
	for precision, bound := range attentionBounds {
		attentions := attentions[:fewAttentions[precision]]
		t.Run(string(precision), func(t *testing.T) {
			// The logarithms of sums are as exact as in float32: the product that they come from is the first.
			sameIn(t, precision, 2e-6, func(b *bench) {
				for _, g := range attentions {
					n := g.N * g.T * g.Heads * g.Width
					lse := b.room(g.N * g.Heads * g.T)
					b.Attention(device.Attention{Shape: g, Y: b.room(n), QKV: b.random(3 * n), LSE: lse})
					b.keep(fmt.Sprintf("lse %+v", g), lse)
				}
			})
			sameIn(t, precision, bound, func(b *bench) {
				for _, g := range attentions {
					n := g.N * g.T * g.Heads * g.Width
					qkv, dy, y, lse, dqkv := b.random(3*n), b.random(n), b.room(n), b.room(g.N*g.Heads*g.T), b.room(3*n)
					b.Attention(device.Attention{Shape: g, Y: y, QKV: qkv, LSE: lse})
					b.AttentionBackward(device.AttentionBackward{Shape: g, DQKV: dqkv, QKV: qkv, DY: dy, Y: y, LSE: lse})
					b.keep(fmt.Sprintf("attention %+v", g), y)
					b.keep(fmt.Sprintf("gradient %+v", g), dqkv)
				}
			})
		})
	}
}

// More heads than begin together (Head in kernels/attention_tensor.cuh).
func TestAttentionOfManyHeads(t *testing.T) {
	inBF16(t, func(b *bench) {
		g := device.AttentionShape{N: 2, T: 1, Heads: 390, Width: 8}
		n := g.N * g.Heads * g.Width
		y := b.output(n)
		b.Attention(device.Attention{Shape: g, Y: y, QKV: b.outputs(3 * n), LSE: b.room(g.N * g.Heads)})
		b.keep("attention", y)
	})
}

// What comes of a sample does not depend on how many there are.
func TestSamplesOfAttentionAreIndependent(t *testing.T) {
	g := device.AttentionShape{N: 3, T: 67, Heads: 2, Width: 16, Causal: true}
	for _, d := range gpus(t) {
		d.precision = device.BF16
		s, err := d.NewStream()
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{TB: t, Stream: s, rng: rand.New(rand.NewPCG(1, 2)), halves: true}
		one, rows := g.T*g.Heads*g.Width, g.T*g.Heads
		qkv, dy := b.outputs(3*g.N*one), b.outputs(g.N*one)
		attend := func(g device.AttentionShape, qkv, dy device.Buffer) {
			y, dqkv, lse := b.output(g.N*one), b.output(3*g.N*one), b.room(g.N*rows)
			b.Attention(device.Attention{Shape: g, Y: y, QKV: qkv, LSE: lse})
			b.AttentionBackward(device.AttentionBackward{Shape: g, DQKV: dqkv, QKV: qkv, DY: dy, Y: y, LSE: lse})
			b.keep("attention", y.Range((g.N-1)*one, one))
			b.keep("gradient", dqkv.Range(3*(g.N-1)*one, 3*one))
		}
		attend(g, qkv, dy)
		last := g.N - 1
		g.N = 1
		attend(g, qkv.Range(3*last*one, 3*one), dy.Range(last*one, one))
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			if err := differ(b.results[2+i], b.results[i], 0); err != nil {
				t.Errorf("%s: %s: %v", d.Name(), b.names[i], err)
			}
		}
		_ = s.Close()
	}
}

func TestEmbeddingAndSparse(t *testing.T) {
	same(t, 1e-6, func(b *bench) {
		const n, length, width, vocab, context = 3, 50, 33, 11, 60
		tokens, y, dtable, dpositions := b.ints(n*length, vocab), b.room(n*length*width), b.room(vocab*width), b.room(context*width)
		b.Embedding(device.Embedding{N: n, T: length, Width: width, Vocab: vocab, Context: context, Y: y, Tokens: tokens, Table: b.random(vocab * width), Positions: b.random(context * width)})
		b.EmbeddingBackward(device.EmbeddingBackward{N: n, T: length, Width: width, Vocab: vocab, Context: context, DY: y, Tokens: tokens, DTable: dtable, DPositions: dpositions})
		b.keep("embedding", y)
		b.keep("table", dtable)
		b.keep("positions", dpositions)

		const rows, cols, entries, outs = 5, 40, 12, 3
		x := device.Sparse{Rows: rows, Cols: cols, Entries: entries, Starts: b.int32s([]int32{0, 3, 3, 7, 11, 12}), Columns: b.ints(entries, cols), Values: b.random(entries)}
		z, dw := b.room(rows*outs), b.room(outs*cols)
		b.SparseMatMul(device.SparseMatMul{X: x, Out: outs, Y: z, W: b.random(outs * cols), Bias: b.random(outs)})
		b.SparseMatMulBackwardWeight(device.SparseMatMulBackwardWeight{X: x, Out: outs, DW: dw, DY: z})
		b.keep("sparse", z)
		b.keep("gradient of sparse", dw)
	})
}

// An update has the same bits as on the host: servers and GPUs may share a run.
func TestUpdates(t *testing.T) {
	same(t, 0, func(b *bench) {
		for kind := range optim.Kinds {
			n := 1000
			if kind == optim.LAMB {
				n = 2*optim.NormBlock + 1001
			}
			r := optim.Rule{
				Kind: kind, LR: 0.01, Decay: 0.1, Shrink: 0.99, Momentum: 0.9, Keep1: 0.1, Beta2: 0.99, Keep2: 0.01, Bias1: 0.5, Root: 0.7, Eps: 1e-6,
				L1: 0.01, L2: 0.1, Beta: 1,
			}
			p := device.Update{N: n, Rule: r, W: b.random(n), Grad: b.random(n)}
			for i := range kind.Slots() {
				p.Slots[i] = b.positive(n)
			}
			b.Update(p)
			b.keep(fmt.Sprint("weights of rule ", kind), p.W)
			for i := range kind.Slots() {
				b.keep(fmt.Sprint("slot of rule ", kind), p.Slots[i])
			}
		}
	})
}

func TestRowsOfTables(t *testing.T) {
	same(t, 0, func(b *bench) {
		const n, fields, width, rows, c = 9, 5, 7, 40, 3
		g := device.Rows{N: n, Fields: fields, Width: width, Rows: rows, Index: b.ints(n*fields, rows), Values: b.random(rows * width)}
		x, narrow := b.random(n*width), b.random(n*c)
		const side, pairs = c + fields*width, width + (fields+1)*fields/2
		y, pooled, inter := b.room(n*side), b.room(n*width), b.room(n*pairs)
		b.ConcatRows(device.ConcatRows{Rows: g, C: c, X: narrow, Y: y})
		b.PoolRows(device.PoolRows{Rows: g, Y: pooled})
		b.InteractRows(device.InteractRows{Rows: g, X: x, Y: inter})
		for _, m := range []device.Buffer{y, pooled, inter} {
			b.keep("rows", m)
		}
		dx, dvalues := b.room(n*c), b.room(rows*width)
		b.ConcatRowsBackward(device.ConcatRowsBackward{Rows: g, C: c, DX: dx, DValues: dvalues, DY: b.random(n * side)})
		b.keep("dx of rows side by side", dx)
		b.keep("gradient of rows side by side", dvalues)
		dvalues = b.room(rows * width)
		b.PoolRowsBackward(device.PoolRowsBackward{Rows: g, DValues: dvalues, DY: b.random(n * width)})
		b.keep("gradient of their sum", dvalues)
		dx, dvalues = b.room(n*width), b.room(rows*width)
		b.InteractRowsBackward(device.InteractRowsBackward{Rows: g, X: x, DX: dx, DValues: dvalues, DY: b.random(n * pairs)})
		b.keep("dx of the interaction", dx)
		b.keep("gradient of the interaction", dvalues)
	})
}
