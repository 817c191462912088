package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

// bench is a stream with shortcuts for tests.
type bench struct {
	testing.TB
	s *stream
	r *rand.Rand
}

func newBench(t testing.TB, set string) *bench {
	t.Helper()
	d, err := NewFor(set)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{TB: t, s: newStream(d.k), r: rand.New(rand.NewPCG(1, 2))}
}

// buffer is a memory that holds v, with values before it that must not change and, where the
// system can do that, nothing behind it.
func (b *bench) buffer(v []float32) device.Buffer {
	b.Helper()
	f := atBorder(b, guard+len(v))
	for i := range guard {
		f[i] = guardValue
	}
	copy(f[guard:], v)
	m := &memory{owner: b.s, kind: device.Float32, n: len(f), f: f}
	return device.Buffer{Mem: m, Off: guard, Len: len(v)}
}

const (
	guard      = 40 // more than a row of any tile
	guardValue = -12345
)

func (b *bench) random(n int) ([]float32, device.Buffer) {
	b.Helper()
	v := make([]float32, n)
	for i := range v {
		v[i] = b.r.Float32()*2 - 1
	}
	return v, b.buffer(v)
}

func (b *bench) room(n int) device.Buffer {
	b.Helper()
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(math.NaN()) // outputs must be overwritten, not added to
	}
	return b.buffer(v)
}

// result is the contents of a buffer, after checking its surroundings.
func (b *bench) result(buf device.Buffer) []float32 {
	b.Helper()
	if err := b.s.Sync(); err != nil {
		b.Fatal(err)
	}
	f := buf.Mem.(*memory).f
	for i, v := range f[:guard] {
		if v != guardValue {
			b.Fatalf("element %d outside the result was written", i-guard)
		}
	}
	return f[buf.Off : buf.Off+buf.Len]
}

// near compares with an oracle; size is the number of products per element.
func (b *bench) near(what string, got []float32, want []float64, size int) {
	b.Helper()
	if len(got) != len(want) {
		b.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
	}
	tol := 1e-6 * math.Sqrt(float64(size)) * 4
	for i, v := range got {
		if !(math.Abs(float64(v)-want[i]) <= tol*(1+math.Abs(want[i]))) {
			b.Fatalf("%s: element %d is %v, want %v", what, i, v, want[i])
		}
	}
}

// eachSet runs f for every instruction set, and checks that those of one class return the same bits.
func eachSet(t *testing.T, f func(b *bench) []float32) {
	t.Helper()
	first := map[string][]float32{}
	for _, set := range InstructionSets() {
		var got []float32
		ok := t.Run(set, func(t *testing.T) { got = f(newBench(t, set)) })
		if !ok {
			continue
		}
		d, _ := NewFor(set)
		if want, seen := first[d.Arithmetic()]; seen {
			sameBits(t, set, got, want)
		} else {
			first[d.Arithmetic()] = got
		}
	}
}

func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
	}
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: element %d is %v, the other instruction set gives %v", what, i, got[i], want[i])
		}
	}
}

var oddSizes = []int{1, 7, 31, 33, 127}

func TestMatMul(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		var all []float32
		for _, m := range oddSizes {
			for _, n := range append([]int{32, 64}, oddSizes...) {
				for _, k := range []int{1, 7, 33, 127, 300, 513} {
					if k > 127 && (m > 33 || n > 64) {
						continue
					}
					for trans := device.NN; trans <= device.TN; trans++ {
						p := device.MatMul{Trans: trans, M: m, N: n, K: k, Act: device.Activation((m + k) % 2)}
						av, a := b.random(m * k)
						bv, bb := b.random(k * n)
						p.A, p.B, p.C = a, bb, b.room(m*n)
						var bias []float32
						if n%2 == 1 {
							bias, p.Bias = b.random(n)
						}
						b.s.MatMul(p)
						got := b.result(p.C)
						b.near(fmt.Sprintf("%v %dx%dx%d", trans, m, n, k), got, naiveMatMul(p, av, bv, bias), k)
						all = append(all, got...)
					}
				}
			}
		}
		return all
	})
}

// TestMatMulBlocks has more than one block of everything: rows, columns, k, and k so far apart that A is brought
// together. The oracle looks at some elements only.
func TestMatMulBlocks(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		m, n, k := 523, 517, 1031
		if strings.HasSuffix(b.Name(), "/go") {
			m, n = 131, 133 // it takes its time, and the way there is the same
		}
		var all []float32
		for trans := device.NN; trans <= device.TN; trans++ {
			av, a := b.random(m * k)
			bv, bb := b.random(k * n)
			bias, biasB := b.random(n)
			p := device.MatMul{Trans: trans, M: m, N: n, K: k, A: a, B: bb, C: b.room(m * n), Bias: biasB}
			b.s.MatMul(p)
			got := b.result(p.C)
			all = append(all, got...)
			for range 500 {
				i, j := b.r.IntN(m), b.r.IntN(n)
				row, column := make([]float32, k), make([]float32, k)
				for q := range k {
					row[q], column[q] = av[i*k+q], bv[q*n+j]
					if trans == device.TN {
						row[q] = av[q*m+i]
					}
					if trans == device.NT {
						column[q] = bv[j*k+q]
					}
				}
				want := naiveMatMul(device.MatMul{Trans: device.NT, M: 1, N: 1, K: k}, row, column, bias[j:j+1])
				b.near(fmt.Sprintf("%v, element %d,%d", trans, i, j), got[i*n+j:i*n+j+1], want, k)
			}
		}
		return all
	})
}

// TestRandomShapes tries shapes nobody thought of.
func TestRandomShapes(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		var all []float32
		for range 100 {
			p := device.MatMul{Trans: device.Trans(b.r.IntN(3)), M: 1 + b.r.IntN(70), N: 1 + b.r.IntN(70), K: 1 + b.r.IntN(70), Act: device.Activation(b.r.IntN(2))}
			av, a := b.random(p.M * p.K)
			bv, bb := b.random(p.K * p.N)
			p.A, p.B, p.C = a, bb, b.room(p.M*p.N)
			b.s.MatMul(p)
			b.near(fmt.Sprintf("%v %dx%dx%d", p.Trans, p.M, p.N, p.K), b.result(p.C), naiveMatMul(p, av, bv, nil), p.K)
			all = append(all, b.result(p.C)...)

			g := device.ConvShape{N: 1 + b.r.IntN(3), C: 1 + b.r.IntN(20), H: 1 + b.r.IntN(12), W: 1 + b.r.IntN(12), Out: 1 + b.r.IntN(40),
				KH: 1 + b.r.IntN(4), KW: 1 + b.r.IntN(4), Stride: 1 + b.r.IntN(3)}
			g.Pad = b.r.IntN(min(g.KH, g.KW))
			if g.Validate() == nil {
				all = append(all, b.convolve(g, device.Identity, false)...)
			}
		}
		return all
	})
}

// convolve checks the three operations of one geometry and returns their results.
func (b *bench) convolve(g device.ConvShape, act device.Activation, withBias bool) []float32 {
	b.Helper()
	what := fmt.Sprintf("%+v", g)
	pixels, k := g.OutH()*g.OutW(), g.KH*g.KW*g.C
	xv, x := b.random(g.N * g.H * g.W * g.C)
	wv, w := b.random(g.Out * k)
	dyv, dy := b.random(g.N * pixels * g.Out)
	p := device.Conv2D{Shape: g, Y: b.room(g.N * pixels * g.Out), X: x, W: w, Act: act}
	var bias []float32
	if withBias {
		bias, p.Bias = b.random(g.Out)
	}
	dx, dw := b.room(len(xv)), b.room(len(wv))
	for range 2 { // the second time with scratch that has been used
		b.s.Conv2D(p)
		b.s.Conv2DBackwardData(device.Conv2DBackwardData{Shape: g, DX: dx, DY: dy, W: w})
		b.s.Conv2DBackwardWeight(device.Conv2DBackwardWeight{Shape: g, DW: dw, X: x, DY: dy})
		b.near(what, b.result(p.Y), naiveConv(g, xv, wv, bias, act), k)
		b.near(what+" data", b.result(dx), naiveConvData(g, wv, dyv), g.KH*g.KW*g.Out)
		b.near(what+" weights", b.result(dw), naiveConvWeight(g, xv, dyv), g.N*pixels)
	}
	return slices.Concat(b.result(p.Y), b.result(dx), b.result(dw))
}

// TestMatMulChain checks the promised order of additions in plain Go, where a naive loop gives
// the same bits, and that the result for a row does not depend on how many rows there are.
func TestMatMulChain(t *testing.T) {
	b := newBench(t, "go")
	const m, n, k = 9, 35, 700
	av, a := b.random(m * k)
	bv, bb := b.random(n * k)
	bias, biasB := b.random(n)
	c := b.room(m * n)
	b.s.MatMul(device.MatMul{Trans: device.NT, M: m, N: n, K: k, A: a, B: bb, C: c, Bias: biasB})
	got := b.result(c)
	for i := range m {
		for j := range n {
			sum := bias[j]
			for p := range k {
				sum += float32(av[i*k+p] * bv[j*k+p])
			}
			if sum != got[i*n+j] {
				t.Fatalf("element %d,%d is %v, the chain gives %v", i, j, got[i*n+j], sum)
			}
		}
	}
	for _, set := range InstructionSets() {
		b.s.k = newBench(t, set).s.k
		b.s.chosen = chosen{}
		whole := b.room(m * n)
		b.s.MatMul(device.MatMul{Trans: device.NT, M: m, N: n, K: k, A: a, B: bb, C: whole, Bias: biasB})
		for _, rows := range []int{1, 4} {
			part := b.room(rows * n)
			b.s.MatMul(device.MatMul{Trans: device.NT, M: rows, N: n, K: k, A: a, B: bb, C: part, Bias: biasB})
			sameBits(t, fmt.Sprintf("%s, %d rows", set, rows), b.result(part), b.result(whole)[:rows*n])
		}
	}
}

var convShapes = []device.ConvShape{
	{N: 2, C: 1, H: 28, W: 28, Out: 32, KH: 3, KW: 3, Stride: 1, Pad: 1},
	{N: 3, C: 32, H: 14, W: 14, Out: 64, KH: 3, KW: 3, Stride: 1, Pad: 1},
	{N: 2, C: 3, H: 7, W: 9, Out: 5, KH: 3, KW: 2, Stride: 1, Pad: 0},
	{N: 1, C: 33, H: 5, W: 4, Out: 31, KH: 1, KW: 1, Stride: 1, Pad: 0},
	{N: 2, C: 2, H: 31, W: 33, Out: 7, KH: 5, KW: 5, Stride: 1, Pad: 4},
	{N: 2, C: 4, H: 11, W: 8, Out: 33, KH: 3, KW: 3, Stride: 2, Pad: 1},
	{N: 1, C: 3, H: 17, W: 16, Out: 8, KH: 2, KW: 4, Stride: 3, Pad: 1},
	{N: 5, C: 1, H: 1, W: 1, Out: 1, KH: 1, KW: 1, Stride: 1, Pad: 0},
	{N: 37, C: 67, H: 4, W: 4, Out: 39, KH: 3, KW: 3, Stride: 1, Pad: 1}, // groups of images, and of fewer at the end
	{N: 9, C: 40, H: 8, W: 8, Out: 70, KH: 3, KW: 3, Stride: 2, Pad: 1},
	{N: 9, C: 40, H: 8, W: 8, Out: 70, KH: 1, KW: 1, Stride: 2, Pad: 0},
}

func TestConv2D(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		var all []float32
		for i, g := range convShapes {
			all = append(all, b.convolve(g, device.Activation(i%2), i%3 != 2)...)
		}
		return all
	})
}

var poolShapes = []device.PoolShape{
	{N: 2, C: 32, H: 28, W: 28, Size: 2, Stride: 2},
	{N: 2, C: 64, H: 7, W: 9, Size: 2, Stride: 2},
	{N: 2, C: 33, H: 6, W: 4, Size: 2, Stride: 2},
	{N: 1, C: 7, H: 31, W: 33, Size: 2, Stride: 2},
	{N: 3, C: 5, H: 9, W: 8, Size: 3, Stride: 2}, // overlapping
	{N: 1, C: 127, H: 3, W: 3, Size: 3, Stride: 1},
	{N: 2, C: 1, H: 10, W: 11, Size: 2, Stride: 3}, // gaps
}

// paddedShapes are for the maximum alone.
var paddedShapes = []device.PoolShape{
	{N: 2, C: 33, H: 12, W: 11, Size: 3, Stride: 2, Pad: 1}, // the stem of ResNet
	{N: 1, C: 7, H: 1, W: 1, Size: 3, Stride: 1, Pad: 1},
	{N: 1, C: 16, H: 4, W: 5, Size: 2, Stride: 2, Pad: 1},
	{N: 1, C: 2, H: 9, W: 3, Size: 5, Stride: 3, Pad: 2},
}

func TestMaxPool(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		var all []float32
		for i, g := range append(slices.Clone(poolShapes), paddedShapes...) {
			all = append(all, b.maxPool(g, device.Activation(i%2))...)
		}
		return all
	})
}

// maxPool checks the two operations of one geometry.
func (b *bench) maxPool(g device.PoolShape, act device.Activation) []float32 {
	b.Helper()
	what := fmt.Sprintf("%+v", g)
	xv := make([]float32, g.N*g.H*g.W*g.C)
	for i := range xv {
		xv[i] = float32(b.r.IntN(9) - 4) // many equal values
	}
	x := b.buffer(xv)
	n := g.N * g.OutH() * g.OutW() * g.C
	index, err := b.s.Alloc(device.Uint8, n)
	if err != nil {
		b.Fatal(err)
	}
	y, dx := b.room(n), b.room(len(xv))
	dyv, dy := b.random(n)
	b.s.MaxPool(device.MaxPool{Shape: g, Y: y, X: x, Index: device.Whole(index), Act: act})
	b.s.MaxPoolBackward(device.MaxPoolBackward{Shape: g, DX: dx, DY: dy, Y: y, Index: device.Whole(index), Act: act})
	want, from := naivePool(g, xv, act)
	wantDX := make([]float64, len(xv))
	for i, k := range from {
		if act == device.Identity || want[i] > 0 {
			wantDX[k] += float64(dyv[i])
		}
	}
	b.near(what, b.result(y), want, 1)
	b.near(what+" backward", b.result(dx), wantDX, 1)
	return slices.Concat(b.result(y), b.result(dx))
}

func TestElementwise(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		var all []float32
		for _, n := range []int{1, 7, 31, 33, 64, 127, 1000} {
			yv, y := b.random(n)
			for i := range yv {
				y.Mem.(*memory).f[y.Off+i] = max(0, yv[i])
			}
			dyv, dy := b.random(n)
			want := make([]float64, n)
			for i, v := range dyv {
				if yv[i] > 0 {
					want[i] = float64(v)
				}
			}
			dx := b.room(n)
			b.s.ReLUBackward(dx, dy, y, n)
			b.near("relu backward", b.result(dx), want, 1)
			b.s.ReLUBackward(dy, dy, y, n)
			b.near("relu backward in place", b.result(dy), want, 1)
			all = append(all, b.result(dx)...)
			for _, rows := range oddSizes {
				xv, x := b.random(rows * n)
				sums := make([]float64, n)
				for i, v := range xv {
					sums[i%n] += float64(v)
				}
				out := b.room(n)
				b.s.SumRows(out, x, rows, n)
				b.near("sum of rows", b.result(out), sums, rows)
				all = append(all, b.result(out)...)
			}
		}
		return all
	})
}

func TestLayouts(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		for _, g := range [][4]int{{1, 1, 1, 1}, {2, 64, 7, 7}, {3, 7, 31, 2}, {2, 33, 4, 8}} {
			n, c, h, w := g[0], g[1], g[2], g[3]
			xv, x := b.random(n * c * h * w)
			y, z := b.room(len(xv)), b.room(len(xv))
			b.s.ToNHWC(y, x, n, c, h, w)
			b.s.ToNCHW(z, y, n, c, h, w)
			for i, v := range b.result(y) {
				in, rest := i/(c*h*w), i%(c*h*w)
				if want := xv[(in*c+rest%c)*h*w+rest/c]; v != want {
					b.Fatalf("%v: element %d is %v, want %v", g, i, v, want)
				}
			}
			sameBits(t, "there and back", b.result(z), xv)
		}
		return nil
	})
}

func TestSoftmaxCrossEntropy(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		var all []float32
		for _, classes := range []int{2, 7, 10, 127, 128, 200, 1000} {
			all = append(all, b.softmax(33, classes)...)
		}
		return all
	})
}

// softmax checks the loss of n rows and its gradient.
func (b *bench) softmax(n, classes int) []float32 {
	b.Helper()
	xv, x := b.random(n * classes)
	for i := range xv {
		xv[i] *= 20
		x.Mem.(*memory).f[x.Off+i] = xv[i]
	}
	labels, err := b.s.Alloc(device.Int32, n)
	if err != nil {
		b.Fatal(err)
	}
	lv := labels.(*memory).i
	for i := range lv {
		lv[i] = int32(b.r.IntN(classes))
	}
	loss, correct, grad := naiveSoftmax(n, classes, xv, lv, 0.25)
	var total device.Total
	d := b.room(len(xv))
	b.s.SoftmaxCrossEntropy(device.SoftmaxCrossEntropy{N: n, Classes: classes, Logits: x, Labels: device.Whole(labels), DLogits: d, Scale: 0.25, Total: &total})
	b.near("gradient", b.result(d), grad, 1)
	if tol := map[bool]float64{true: 1e-9, false: 1e-6}[classes < manyClasses]; math.Abs(total.Loss-loss) > tol*loss || total.Correct != correct {
		b.Fatalf("total is %+v, want %v and %d", total, loss, correct)
	}
	return b.result(d)
}

// TestNaN: a NaN must not be hidden by an activation or a maximum, the step has to be refused.
func TestNaN(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		nan := float32(math.NaN())
		x := b.buffer(slices.Repeat([]float32{1, nan, 3, 4}, 16)) // (1, 2, 2, 16), one NaN in each window
		for i := range 64 {
			x.Mem.(*memory).f[guard+i] = []float32{1, nan, 3, 4}[i/16]
		}
		index, _ := b.s.Alloc(device.Uint8, 16)
		y := b.room(16)
		b.s.MaxPool(device.MaxPool{Shape: device.PoolShape{N: 1, C: 16, H: 2, W: 2, Size: 2, Stride: 2}, Y: y, X: x, Index: device.Whole(index), Act: device.ReLU})
		for i, v := range b.result(y) {
			if v == v {
				b.Fatalf("max pooling of a NaN: element %d is %v", i, v)
			}
		}
		one := b.buffer([]float32{1})
		c := b.room(64)
		b.s.MatMul(device.MatMul{M: 1, N: 64, K: 1, A: one, B: x, C: c, Act: device.ReLU})
		if v := b.result(c); v[20] == v[20] {
			b.Fatalf("ReLU of a NaN is %v", v[20])
		}
		return nil
	})
}

func TestFaultsAreErrors(t *testing.T) {
	b := newBench(t, "")
	_, x := b.random(100)
	other := newBench(t, "")
	_, foreign := other.random(100)
	labels, _ := b.s.Alloc(device.Int32, 4)
	port, _ := b.s.Port(device.Float32, 10)
	labels.(*memory).i[2] = 9
	for want, f := range map[string]func(){
		"sizes must be at least 1":   func() { b.s.MatMul(device.MatMul{M: 0, N: 1, K: 1, A: x, B: x, C: x}) },
		"operand C has 100 elements": func() { b.s.MatMul(device.MatMul{M: 50, N: 50, K: 1, A: x, B: x, C: x}) },
		"operand A is not a memory":  func() { b.s.MatMul(device.MatMul{M: 1, N: 1, K: 1, A: foreign, B: x, C: x}) },
		"operand B is [140, 240)":    func() { b.s.MatMul(device.MatMul{M: 1, N: 1, K: 1, A: x, B: x.Range(100, 100), C: x}) },
		"operand X holds int32":      func() { b.s.SumRows(x, device.Whole(labels), 1, 1) },
		"the kernel is larger": func() {
			b.s.Conv2D(device.Conv2D{Shape: device.ConvShape{N: 1, C: 1, H: 1, W: 1, Out: 1, KH: 3, KW: 3, Stride: 1}})
		},
		"the window is larger": func() {
			b.s.MaxPool(device.MaxPool{Shape: device.PoolShape{N: 1, C: 1, H: 1, W: 1, Size: 2, Stride: 2}})
		},
		"11 elements given to a port":    func() { b.s.Bind(port, make([]float32, 11), device.In) },
		"outside what its port is bound": func() { b.s.SumRows(x, device.Whole(port), 1, 10) },
		"label 9 of row 2": func() {
			b.s.SoftmaxCrossEntropy(device.SoftmaxCrossEntropy{N: 4, Classes: 5, Logits: x, Labels: device.Whole(labels), Total: new(device.Total)})
		},
		"more than 2^31 elements":          func() { b.s.MatMul(device.MatMul{M: 1 << 20, N: 1 << 20, K: 1, A: x, B: x, C: x}) },
		"not a float32 port of this strea": func() { b.s.Bind(labels, nil, device.In) },
	} {
		f()
		if err := b.s.Sync(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func TestChoice(t *testing.T) {
	t.Setenv(Variable, "go")
	d, err := New()
	if err != nil || d.Name() != "cpu go" || d.Arithmetic() != classGo {
		t.Fatalf("device %v, error %v", d, err)
	}
	t.Setenv(Variable, "mmx")
	if _, err := New(); err == nil || !strings.Contains(err.Error(), Variable) || !strings.Contains(err.Error(), "available: ") {
		t.Fatalf("error %v", err)
	}
	t.Setenv(Variable, "")
	if _, err := New(); err != nil {
		t.Fatal(err)
	}
	if runtime.GOARCH != "amd64" && !slices.Equal(InstructionSets(), []string{"go"}) {
		t.Fatalf("instruction sets %v", InstructionSets())
	}
}
