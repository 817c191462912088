package cuda

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
)

// bench gives one stream made-up operands, the same to every stream, and keeps what comes out.
type bench struct {
	testing.TB
	device.Stream
	rng     *rand.Rand
	coarse  bool // random numbers are whole in every precision
	names   []string
	results []any // *[]float32, *device.Total, *float64, *bool
}

func (b *bench) alloc(k device.Kind, n int) device.Buffer {
	m, err := b.Alloc(k, n)
	if err != nil {
		b.Fatal(err)
	}
	return device.Whole(m)
}

func (b *bench) room(n int) device.Buffer { return b.alloc(device.Float32, n) }

func (b *bench) floats(v []float32) device.Buffer {
	p, err := b.Port(device.Float32, len(v))
	if err != nil {
		b.Fatal(err)
	}
	b.Bind(p, v, device.In)
	m := b.room(len(v))
	b.Scale(m, device.Whole(p), len(v), 1)
	return m
}

func (b *bench) random(n int) device.Buffer {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(b.rng.NormFloat64())
		if b.coarse {
			v[i] = math.Float32frombits(math.Float32bits(v[i]) &^ 0xffff)
		}
	}
	return b.floats(v)
}

func (b *bench) positive(n int) device.Buffer {
	v := make([]float32, n)
	for i := range v {
		v[i] = b.rng.Float32() + 0.1
	}
	return b.floats(v)
}

// ints are numbers below limit; they stay bound until the end.
func (b *bench) ints(n, limit int) device.Buffer {
	v := make([]int32, n)
	for i := range v {
		v[i] = int32(b.rng.IntN(limit))
	}
	return b.int32s(v)
}

func (b *bench) int32s(v []int32) device.Buffer {
	p, err := b.Port(device.Int32, len(v))
	if err != nil {
		b.Fatal(err)
	}
	b.BindInt32(p, v)
	return device.Whole(p)
}

// keep takes the contents of a memory at the end.
func (b *bench) keep(name string, m device.Buffer) {
	p, err := b.Port(device.Float32, m.Len)
	if err != nil {
		b.Fatal(err)
	}
	host := make([]float32, m.Len)
	b.Bind(p, host, device.Out)
	b.Scale(device.Whole(p), m, m.Len, 1)
	b.Flush(device.Whole(p))
	b.names, b.results = append(b.names, name), append(b.results, &host)
}

func (b *bench) total() *device.Total {
	t := new(device.Total)
	b.names, b.results = append(b.names, "total"), append(b.results, t)
	return t
}

func (b *bench) sum() *float64 {
	v := new(float64)
	b.names, b.results = append(b.names, "sum"), append(b.results, v)
	return v
}

func (b *bench) ok() *bool {
	v := new(bool)
	b.names, b.results = append(b.names, "ok"), append(b.results, v)
	return v
}

// gpus are the emulator, and the GPU of this machine where the binary can reach one. With MUSTER_GPU_ONLY in the environment, it alone.
func gpus(t testing.TB) []*Device {
	if os.Getenv("MUSTER_GPU_ONLY") != "" {
		d, err := Open(0, nil)
		if err != nil {
			t.Fatal(err)
		}
		return []*Device{d}
	}
	all := []*Device{newDevice(emulator(t), nil)}
	if d, err := Open(0, nil); err == nil {
		all = append(all, d)
	} else {
		t.Logf("on no GPU: %v", err)
	}
	return all
}

// same runs f on the CPU and on every GPU, and compares all that it keeps. tolerance is relative to the largest magnitude of
// a result; 0 means the same bits.
func same(t *testing.T, tolerance float64, f func(b *bench)) {
	t.Helper()
	sameIn(t, device.FP32, tolerance, f)
}

// sameIn is same with products in a precision, of numbers that have no more bits than any precision keeps: so they are as exact as in float32.
func sameIn(t *testing.T, precision device.Precision, tolerance float64, f func(b *bench)) {
	t.Helper()
	run := func(d device.Device) *bench {
		s, err := d.NewStream()
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{TB: t, Stream: s, rng: rand.New(rand.NewPCG(1, 2)), coarse: precision != device.FP32}
		f(b)
		if err := s.Sync(); err != nil {
			t.Fatalf("%s: %v", d.Name(), err)
		}
		if err := s.Close(); err != nil {
			t.Fatalf("%s: %v", d.Name(), err)
		}
		return b
	}
	reference, err := cpu.NewFor("go")
	if err != nil {
		t.Fatal(err)
	}
	want := run(reference)
	for _, d := range gpus(t) {
		d.precision = precision
		got := run(d)
		for i, name := range want.names {
			if err := differ(got.results[i], want.results[i], tolerance); err != nil {
				t.Errorf("%s: %s: %v", d.Name(), name, err)
			}
		}
	}
}

func differ(got, want any, tolerance float64) error {
	switch w := want.(type) {
	case *[]float32:
		largest := 0.0
		for _, v := range *w {
			largest = max(largest, math.Abs(float64(v)))
		}
		for i, v := range *w {
			g := (*got.(*[]float32))[i]
			if d := math.Abs(float64(g) - float64(v)); !(d <= tolerance*largest) && !(math.IsNaN(float64(g)) && math.IsNaN(float64(v))) {
				return fmt.Errorf("element %d of %d is %v, want %v (off by %.2g of the largest)", i, len(*w), g, v, d/largest)
			}
		}
	case *device.Total:
		g := got.(*device.Total)
		if g.Correct != w.Correct || math.Abs(g.Loss-w.Loss) > 1e-5*math.Abs(w.Loss) {
			return fmt.Errorf("%+v, want %+v", *g, *w)
		}
	case *float64:
		if g := *got.(*float64); g != *w {
			return fmt.Errorf("%v, want the same bits as %v", g, *w)
		}
	case *bool:
		if g := *got.(*bool); g != *w {
			return fmt.Errorf("%v, want %v", g, *w)
		}
	}
	return nil
}

var products = [][3]int{{1, 1, 1}, {7, 31, 33}, {33, 7, 127}, {128, 10, 64}, {1, 100, 9}, {152, 140, 52}, {31, 33, 2100}}

func TestMatMul(t *testing.T) {
	for trans := device.NN; trans <= device.TN; trans++ {
		eachPrecision(t, trans.String(), 3e-6, func(b *bench) {
			for i, g := range products {
				m, n, k := g[0], g[1], g[2]
				p := device.MatMul{Trans: trans, M: m, N: n, K: k, A: b.random(m * k), B: b.random(k * n), C: b.room(m * n), Act: device.Activation(i % 2)}
				if i%3 != 0 {
					p.Bias = b.random(n)
				}
				b.MatMul(p)
				b.keep(fmt.Sprint(g), p.C)
			}
		})
	}
}

// eachPrecision runs sameIn in all of them.
func eachPrecision(t *testing.T, name string, tolerance float64, f func(b *bench)) {
	for _, precision := range device.Precisions() {
		t.Run(name+"/"+string(precision), func(t *testing.T) { sameIn(t, precision, tolerance, f) })
	}
}

// A row does not depend on how many rows there are.
func TestRowsAreIndependent(t *testing.T) {
	const m, n, k = 131, 70, 300
	for _, d := range gpus(t) {
		s, err := d.NewStream()
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{TB: t, Stream: s, rng: rand.New(rand.NewPCG(1, 2))}
		x, w, all, single := b.random(m*k), b.random(k*n), b.room(m*n), b.room(n)
		b.MatMul(device.MatMul{M: m, N: n, K: k, A: x, B: w, C: all})
		b.MatMul(device.MatMul{M: 1, N: n, K: k, A: x.Range(129*k, k), B: w, C: single})
		b.keep("row of many", all.Range(129*n, n))
		b.keep("row alone", single)
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := differ(b.results[1], b.results[0], 0); err != nil {
			t.Errorf("%s: %v", d.Name(), err)
		}
		_ = s.Close()
	}
}

var convolutions = []device.ConvShape{
	{N: 2, C: 1, H: 8, W: 7, Out: 3, KH: 5, KW: 5, Stride: 1, Pad: 0},
	{N: 3, C: 5, H: 9, W: 8, Out: 7, KH: 3, KW: 3, Stride: 1, Pad: 1},
	{N: 2, C: 4, H: 11, W: 9, Out: 6, KH: 3, KW: 3, Stride: 2, Pad: 1},
	{N: 2, C: 3, H: 8, W: 8, Out: 33, KH: 1, KW: 1, Stride: 2, Pad: 0},
	{N: 1, C: 3, H: 15, W: 14, Out: 2, KH: 7, KW: 7, Stride: 2, Pad: 3},
	{N: 2, C: 8, H: 9, W: 7, Out: 12, KH: 3, KW: 2, Stride: 2, Pad: 1},  // 4 channels at once
	{N: 9, C: 2, H: 16, W: 16, Out: 3, KH: 3, KW: 3, Stride: 1, Pad: 1}, // the gradient of its weights is cut
}

func TestConvolutions(t *testing.T) {
	eachPrecision(t, "", 3e-6, func(b *bench) {
		for i, g := range convolutions {
			image, pooled, weights := g.N*g.H*g.W*g.C, g.N*g.OutH()*g.OutW()*g.Out, g.Out*g.C*g.KH*g.KW
			x, w, dy, y, dx, dw := b.random(image), b.random(weights), b.random(pooled), b.room(pooled), b.room(image), b.room(weights)
			b.Conv2D(device.Conv2D{Shape: g, Y: y, X: x, W: w, Bias: b.random(g.Out), Act: device.Activation(i % 2)})
			b.Conv2DBackwardData(device.Conv2DBackwardData{Shape: g, DX: dx, DY: dy, W: w})
			b.Conv2DBackwardWeight(device.Conv2DBackwardWeight{Shape: g, DW: dw, X: x, DY: dy})
			b.keep(fmt.Sprintf("y %+v", g), y)
			b.keep(fmt.Sprintf("dx %+v", g), dx)
			b.keep(fmt.Sprintf("dw %+v", g), dw)
		}
	})
}

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
			sum, product, masked, scaled := b.room(n), b.room(n), b.room(n), b.room(n)
			b.Add(sum, x, y, n, device.Activation(i%2))
			b.Multiply(product, x, y, n)
			b.ReLUBackward(masked, dy, x, n)
			b.Scale(scaled, x, n, 0.3)
			b.keep("sum", sum)
			b.keep("product", product)
			b.keep("mask", masked)
			b.keep("scale", scaled)
			b.Sum(x, n, b.sum())
			b.SumSquares(x, n, b.sum())
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
		for _, classes := range []int{1, 2, 10, 65, 1000} {
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
			z := b.room(rows * cols)
			b.BatchNormInference(device.BatchNormInference{Rows: rows, Channels: cols, Y: z, X: x, Gamma: gamma, Beta: beta, Mean: mean, Variance: b.positive(cols), Eps: 1e-5})
			for _, m := range []device.Buffer{y, dx, dgamma, dbeta, mean, rstd, z} {
				b.keep(fmt.Sprint("batch norm ", g), m)
			}
		}
	})
}

func TestAttention(t *testing.T) {
	same(t, 2e-6, func(b *bench) {
		for _, g := range []device.AttentionShape{
			{N: 1, T: 1, Heads: 1, Width: 1}, {N: 2, T: 7, Heads: 3, Width: 5, Causal: true}, {N: 1, T: 33, Heads: 2, Width: 32},
			{N: 1, T: 70, Heads: 1, Width: 33, Causal: true}, {N: 1, T: 9, Heads: 1, Width: 200},
		} {
			n := g.N * g.T * g.Heads * g.Width
			qkv, dy, y, lse, dqkv := b.random(3*n), b.random(n), b.room(n), b.room(g.N*g.Heads*g.T), b.room(3*n)
			b.Attention(device.Attention{Shape: g, Y: y, QKV: qkv, LSE: lse})
			b.AttentionBackward(device.AttentionBackward{Shape: g, DQKV: dqkv, QKV: qkv, DY: dy, LSE: lse})
			b.keep(fmt.Sprintf("attention %+v", g), y)
			b.keep(fmt.Sprintf("lse %+v", g), lse)
			b.keep(fmt.Sprintf("gradient %+v", g), dqkv)
		}
	})
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
			const n = 1000
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

// What only the data show is named at Sync, and the stream goes on afterwards.
func TestFaultsInData(t *testing.T) {
	for _, d := range gpus(t) {
		s, err := d.NewStream()
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{TB: t, Stream: s, rng: rand.New(rand.NewPCG(1, 2))}
		for _, labels := range [][]int32{{0, 3, 7, 1}, {0, -1, 9, 1}} {
			var total device.Total
			s.SoftmaxCrossEntropy(device.SoftmaxCrossEntropy{N: 4, Classes: 4, Logits: b.random(16), Labels: b.int32s(labels), Total: &total})
			s.SoftmaxCrossEntropy(device.SoftmaxCrossEntropy{N: 4, Classes: 4, Logits: b.random(16), Labels: b.int32s([]int32{9, 9, 9, 9}), Total: &total})
			place := 1
			if labels[1] == 3 {
				place = 2
			}
			if err := s.Sync(); err == nil || err.Error() != fmt.Sprintf("softmax cross-entropy: labels: what is at place %d is out of range", place) {
				t.Errorf("%s: labels %v: %v", d.Name(), labels, err)
			}
			if err := s.Sync(); err != nil {
				t.Errorf("%s: afterwards: %v", d.Name(), err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A driver that fails at any of its calls gives an error, and nothing is kept.
func TestEveryDriverFault(t *testing.T) {
	errLost := errors.New("device lost")
	for at := 1; ; at++ {
		e := emulator(t)
		calls, failed := 0, false
		e.fault = func(string) error {
			if calls++; calls == at {
				failed = true
				return errLost
			}
			return nil
		}
		err := step(newDevice(e, nil))
		if failed != (err != nil) || err != nil && !errors.Is(err, errLost) {
			t.Fatalf("call %d: %v", at, err)
		}
		if e.allocated != 0 || e.pinnedBytes != 0 {
			t.Fatalf("call %d: %d bytes of the GPU's and %d of the host's are never given back", at, e.allocated, e.pinnedBytes)
		}
		if !failed {
			return
		}
	}
}

// step is a little of everything that a step of training does.
func step(d *Device) (err error) {
	s, err := d.NewStream()
	if err != nil {
		return err
	}
	defer func() {
		if e := s.Close(); err == nil {
			err = e
		}
	}()
	in, err := s.Port(device.Float32, 64)
	if err != nil {
		return err
	}
	out, err := s.Port(device.Float32, 64)
	if err != nil {
		return err
	}
	w, err := s.Alloc(device.Float32, 64)
	if err != nil {
		return err
	}
	host := make([]float32, 64)
	s.Bind(in, host, device.In)
	s.Bind(out, host, device.Out)
	s.MatMul(device.MatMul{M: 8, N: 8, K: 8, A: device.Whole(in), B: device.Whole(in), C: device.Whole(w)})
	var total device.Total
	s.SquaredError(device.SquaredError{N: 64, Y: device.Whole(w), Targets: device.Whole(in), DY: device.Whole(out), Scale: 1, Total: &total})
	s.Flush(device.Whole(out))
	return s.Sync()
}
