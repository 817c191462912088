package cpu

import (
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
