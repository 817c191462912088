package cuda

import (
	"fmt"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

// output is room for what a layer puts out, in the kind in which the device keeps that.
func (b *bench) output(n int) device.Buffer {
	if b.halves {
		return b.alloc(device.BFloat16, n)
	}
	return b.room(n)
}

// outputs is random ones. Every kind can hold them.
func (b *bench) outputs(n int) device.Buffer {
	x := b.random(n)
	if !b.halves {
		return x
	}
	y := b.output(n)
	b.ToNHWC(y, x, 1, 1, 1, n)
	return y
}

// bf16Bound is how far results of operations whose outputs are kept in bf16 may be from the CPU's, whose are not: one rounding of each, which may be the other way
// where the CPU's sum lies between two, and what follows from it in a gradient that reads an output.
const bf16Bound = 8e-3

// inBF16 runs f on the CPU and in bf16 on every GPU.
func inBF16(t *testing.T, f func(b *bench)) {
	t.Helper()
	sameIn(t, device.BF16, bf16Bound, f)
}

func TestElementwiseInBF16(t *testing.T) {
	inBF16(t, func(b *bench) {
		for i, n := range sizes {
			x, y, dy := b.outputs(n), b.outputs(n), b.outputs(n)
			named := map[string]device.Buffer{}
			room := func(name string) device.Buffer {
				named[name] = b.output(n)
				return named[name]
			}
			b.Add(room("sum"), x, y, n, device.Activation(i%2))
			b.ReLUBackward(room("mask"), dy, x, n)
			b.Apply(room("function"), x, n, device.Function(i)%device.Functions)
			b.ApplyBackward(room("slope"), dy, x, n, device.Function(i)%device.Functions)
			b.Dropout(device.Dropout{N: n, Y: room("dropout"), X: x, P: 0.3, Key: device.DropoutKey{Seed: 9, Layer: 2}})
			b.Finite(x, n, b.ok())
			for _, name := range []string{"sum", "mask", "function", "slope", "dropout"} {
				b.keep(fmt.Sprint(name, " of ", n), named[name])
			}
		}
		images, back := b.output(2*3*5*7), b.output(2*3*5*7)
		b.ToNHWC(images, b.random(2*3*5*7), 2, 3, 5, 7) // samples are float32
		b.ToNCHW(back, images, 2, 3, 5, 7)
		b.keep("NHWC", images)
		b.keep("NCHW", back)
		for _, rows := range []int{1, 257, 700} {
			out := b.room(33)
			b.SumRows(out, b.outputs(rows*33), rows, 33)
			b.keep(fmt.Sprint(rows, " rows"), out)
		}
	})
}

func TestLossesInBF16(t *testing.T) {
	inBF16(t, func(b *bench) {
		for _, classes := range []int{2, 10, 1000, 2100} {
			const n = 5
			x, d := b.outputs(n*classes), b.output(n*classes)
			p := device.SoftmaxCrossEntropy{N: n, Classes: classes, Logits: x, Labels: b.ints(n, classes), DLogits: d, Scale: 0.5, Total: b.total()}
			b.SoftmaxCrossEntropy(p)
			p.DLogits, p.Total = x, b.total()
			b.SoftmaxCrossEntropy(p)
			b.keep("gradient of softmax", d)
			b.keep("in place", x)
		}
		x, d, e := b.outputs(100), b.output(100), b.output(100)
		b.BinaryCrossEntropy(device.BinaryCrossEntropy{N: 100, Logits: x, Targets: b.ints(100, 2), DLogits: d, Scale: 2, Total: b.total()})
		b.SquaredError(device.SquaredError{N: 100, Y: x, Targets: b.random(100), DY: e, Scale: 2, Total: b.total()})
		b.keep("gradient of the binary", d)
		b.keep("gradient of the squares", e)
	})
}

func TestNormsInBF16(t *testing.T) {
	inBF16(t, func(b *bench) {
		for _, g := range [][2]int{{3, 33}, {300, 64}, {600, 5}, {4, 1000}} {
			rows, cols := g[0], g[1]
			n := rows * cols
			x, dy, gamma, beta := b.outputs(n), b.outputs(n), b.random(cols), b.random(cols)
			y, dx, dgamma, dbeta, mean, rstd := b.output(n), b.output(n), b.room(cols), b.room(cols), b.room(rows), b.room(rows)
			b.LayerNorm(device.LayerNorm{Rows: rows, Cols: cols, Y: y, X: x, Gamma: gamma, Beta: beta, Mean: mean, RStd: rstd, Eps: 1e-5})
			b.LayerNormBackward(device.LayerNormBackward{Rows: rows, Cols: cols, DX: dx, DY: dy, X: x, Gamma: gamma, DGamma: dgamma, DBeta: dbeta, Mean: mean, RStd: rstd})
			for _, m := range []device.Buffer{y, dx, dgamma, dbeta, mean, rstd} {
				b.keep(fmt.Sprint("layer norm ", g), m)
			}
			y, dx, dgamma, dbeta, mean, rstd = b.output(n), b.output(n), b.room(cols), b.room(cols), b.room(cols), b.room(cols)
			z := b.output(n)
			b.BatchNorm(device.BatchNorm{Rows: rows, Channels: cols, Y: y, X: x, Gamma: gamma, Beta: beta, Mean: mean, RStd: rstd, Eps: 1e-5, Act: device.ReLU})
			b.BatchNormBackward(device.BatchNormBackward{Rows: rows, Channels: cols, DX: dx, DY: dy, X: x, Gamma: gamma, DGamma: dgamma, DBeta: dbeta, Mean: mean, RStd: rstd})
			behind := device.BatchNormBackward{Rows: rows, Channels: cols, DX: b.output(n), DY: dy, X: x, Y: y, Gamma: gamma, Beta: beta, DGamma: b.room(cols), DBeta: b.room(cols), Mean: mean, RStd: rstd, Act: device.ReLU}
			b.BatchNormBackward(behind)
			b.keep(fmt.Sprint("behind ReLU, dx ", g), behind.DX)
			b.keep(fmt.Sprint("behind ReLU, dgamma ", g), behind.DGamma)
			b.BatchNormInference(device.BatchNormInference{Rows: rows, Channels: cols, Y: z, X: x, Gamma: gamma, Beta: beta, Mean: mean, Variance: b.positive(cols), Eps: 1e-5})
			for _, m := range []device.Buffer{y, dx, dgamma, dbeta, mean, rstd, z} {
				b.keep(fmt.Sprint("batch norm ", g), m)
			}
		}
	})
}

func TestPoolingInBF16(t *testing.T) {
	inBF16(t, func(b *bench) {
		for i, g := range []device.PoolShape{{N: 2, C: 5, H: 8, W: 6, Size: 2, Stride: 2}, {N: 2, C: 3, H: 9, W: 8, Size: 3, Stride: 2, Pad: 1}} {
			image, pooled := poolSizes(g)
			x, dy, y, dx, index := b.outputs(image), b.outputs(pooled), b.output(pooled), b.output(image), b.alloc(device.Uint8, pooled)
			b.MaxPool(device.MaxPool{Shape: g, Y: y, X: x, Index: index, Act: device.Activation(i % 2)})
			b.MaxPoolBackward(device.MaxPoolBackward{Shape: g, DX: dx, DY: dy, Y: y, Index: index, Act: device.Activation(i % 2)})
			b.keep(fmt.Sprintf("max %+v", g), y)
			b.keep(fmt.Sprintf("gradient of max %+v", g), dx)
		}
		g := device.PoolShape{N: 1, C: 33, H: 5, W: 5, Size: 2, Stride: 3}
		image, pooled := poolSizes(g)
		y, dx := b.output(pooled), b.output(image)
		b.AveragePool(device.AveragePool{Shape: g, Y: y, X: b.outputs(image)})
		b.AveragePoolBackward(device.AveragePoolBackward{Shape: g, DX: dx, DY: b.outputs(pooled)})
		b.keep("average", y)
		b.keep("gradient of average", dx)
		const n, pixels, c = 3, 49, 17
		z, dz := b.output(n*c), b.output(n*pixels*c)
		b.GlobalAveragePool(z, b.outputs(n*pixels*c), n, pixels, c)
		b.GlobalAveragePoolBackward(dz, b.outputs(n*c), n, pixels, c)
		b.keep("global average", z)
		b.keep("its gradient", dz)
	})
}

func TestSequencesInBF16(t *testing.T) {
	inBF16(t, func(b *bench) {
		for _, g := range attentions[1:] {
			n := g.N * g.T * g.Heads * g.Width
			qkv, dy, y, lse, dqkv := b.outputs(3*n), b.outputs(n), b.output(n), b.room(g.N*g.Heads*g.T), b.output(3*n)
			b.Attention(device.Attention{Shape: g, Y: y, QKV: qkv, LSE: lse})
			b.AttentionBackward(device.AttentionBackward{Shape: g, DQKV: dqkv, QKV: qkv, DY: dy, Y: y, LSE: lse})
			b.keep(fmt.Sprintf("attention %+v", g), y)
			b.keep(fmt.Sprintf("lse %+v", g), lse)
			b.keep(fmt.Sprintf("gradient %+v", g), dqkv)
		}
		const n, length, width, vocab, context = 3, 50, 33, 11, 60
		tokens, y, dtable, dpositions := b.ints(n*length, vocab), b.output(n*length*width), b.room(vocab*width), b.room(context*width)
		b.Embedding(device.Embedding{N: n, T: length, Width: width, Vocab: vocab, Context: context, Y: y, Tokens: tokens, Table: b.random(vocab * width), Positions: b.random(context * width)})
		b.EmbeddingBackward(device.EmbeddingBackward{N: n, T: length, Width: width, Vocab: vocab, Context: context, DY: b.outputs(n * length * width), Tokens: tokens, DTable: dtable, DPositions: dpositions})
		b.keep("embedding", y)
		b.keep("table", dtable)
		b.keep("positions", dpositions)
	})
}

// Factors are read as they are kept where their lines are whole chunks, and filled up where not; the gradients of weights are float32.
func TestProductsInBF16(t *testing.T) {
	inBF16(t, func(b *bench) {
		for i, g := range [][3]int{{1, 1, 1}, {33, 7, 127}, {128, 16, 64}, {152, 140, 52}, {136, 264, 72}} {
			m, n, k := g[0], g[1], g[2]
			x, w, bias, dy, y, z, dw, dx := b.outputs(m*k), b.random(n*k), b.random(n), b.outputs(m*n), b.output(m*n), b.output(m*n), b.room(n*k), b.output(m*k)
			b.MatMul(device.MatMul{Trans: device.NT, M: m, N: n, K: k, A: x, B: w, C: y, Bias: bias, Act: device.Activation(i % 2)})
			b.Apply(z, y, m*n, device.GELU) // within the product
			b.MatMul(device.MatMul{Trans: device.TN, M: n, N: k, K: m, A: dy, B: x, C: dw})
			b.MatMul(device.MatMul{Trans: device.NN, M: m, N: k, K: n, A: dy, B: w, C: dx})
			for j, r := range []device.Buffer{y, z, dw, dx} {
				b.keep(fmt.Sprint(g, " number ", j), r)
			}
			first := b.output(m * n)
			b.MatMul(device.MatMul{Trans: device.NT, M: m, N: n, K: k, A: b.random(m * k), B: w, C: first}) // of samples
			b.keep(fmt.Sprint(g, " of samples"), first)
		}
		for _, g := range []device.ConvShape{
			{N: 2, C: 3, H: 9, W: 7, Out: 5, KH: 3, KW: 3, Stride: 2, Pad: 1}, {N: 2, C: 8, H: 8, W: 6, Out: 16, KH: 3, KW: 3, Stride: 1, Pad: 1},
			{N: 1, C: 16, H: 5, W: 5, Out: 24, KH: 1, KW: 1, Stride: 2},
		} {
			image, out, weights := g.N*g.H*g.W*g.C, g.N*g.OutH()*g.OutW()*g.Out, g.Out*g.C*g.KH*g.KW
			x, w, dy, y, dx, dw, dw0 := b.outputs(image), b.random(weights), b.outputs(out), b.output(out), b.output(image), b.room(weights), b.room(weights)
			b.Conv2D(device.Conv2D{Shape: g, Y: y, X: x, W: w, Bias: b.random(g.Out), Act: device.ReLU})
			b.Conv2DBackwardData(device.Conv2DBackwardData{Shape: g, DX: dx, DY: dy, W: w})
			b.Conv2DBackwardWeight(device.Conv2DBackwardWeight{Shape: g, DW: dw, X: x, DY: dy})
			b.Conv2DBackwardWeight(device.Conv2DBackwardWeight{Shape: g, DW: dw0, X: b.random(image), DY: dy}) // of samples
			for j, r := range []device.Buffer{y, dx, dw, dw0} {
				b.keep(fmt.Sprintf("%+v number %d", g, j), r)
			}
		}
	})
}
