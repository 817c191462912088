package cpu

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

// lossCase is one of the losses over n predictions and n targets.
type lossCase struct {
	name   string
	run    func(b *bench, n int, y, targets, dy device.Buffer, scale float32, total *device.Total)
	target func(b *bench) float32
	naive  func(y, t float64) float64
}

var lossCases = []lossCase{
	{
		name: "binary cross-entropy",
		run: func(b *bench, n int, y, targets, dy device.Buffer, scale float32, total *device.Total) {
			b.s.BinaryCrossEntropy(device.BinaryCrossEntropy{N: n, Logits: y, Targets: targets, DLogits: dy, Scale: scale, Total: total})
		},
		target: func(b *bench) float32 { return b.r.Float32() },
		naive: func(y, t float64) float64 {
			return -t*math.Log(1/(1+math.Exp(-y))) - (1-t)*math.Log(1/(1+math.Exp(y)))
		},
	},
	{
		name: "squared error",
		run: func(b *bench, n int, y, targets, dy device.Buffer, scale float32, total *device.Total) {
			b.s.SquaredError(device.SquaredError{N: n, Y: y, Targets: targets, DY: dy, Scale: scale, Total: total})
		},
		target: func(b *bench) float32 { return 10 * b.r.Float32() },
		naive:  func(y, t float64) float64 { return (y - t) * (y - t) },
	},
}

func TestLosses(t *testing.T) {
	for _, c := range lossCases {
		t.Run(c.name, func(t *testing.T) {
			eachSet(t, func(b *bench) (all []float32) {
				for _, n := range allSizes {
					all = append(all, b.loss(c, n)...)
				}
				return all
			})
		})
	}
}

// loss checks value and gradient and returns the gradient.
func (b *bench) loss(c lossCase, n int) []float32 {
	b.Helper()
	const scale = 0.25
	yv, tv := make([]float32, n), make([]float32, n)
	for i := range yv {
		yv[i], tv[i] = b.r.Float32()*16-8, c.target(b)
	}
	losses := func(y []float64) []float64 {
		l := make([]float64, n)
		for i := range l {
			l[i] = c.naive(y[i], float64(tv[i]))
		}
		return l
	}
	want := 0.0
	for _, l := range losses(wide(yv)) {
		want += l
	}
	var total, only device.Total
	y, targets, dy := b.buffer(yv), b.buffer(tv), b.room(n)
	c.run(b, n, y, targets, dy, scale, &total)
	c.run(b, n, y, targets, device.Buffer{}, scale, &only)
	got := b.result(dy)
	if math.Abs(total.Loss-want) > 1e-12*want || only != total {
		b.Fatalf("%s of %d: %+v, without a gradient %+v, want %v", c.name, n, total, only, want)
	}
	b.close(fmt.Sprintf("gradient of %s", c.name), got, gradientOf(losses, wide(yv), slices.Repeat([]float64{scale}, n), 50), 1e-6)
	c.run(b, n, y, targets, y, scale, &total)
	for i, v := range b.result(y) {
		if v != got[i] {
			b.Fatalf("%s in place: element %d is %v, want %v", c.name, i, v, got[i])
		}
	}
	return got
}

// TestBinaryLabels: targets may be int32, predictions are counted, and extreme logits cost what they should.
func TestBinaryLabels(t *testing.T) {
	b := newBench(t, "")
	logits := b.buffer([]float32{2, -2, 3, 0, -200, 200, -40})
	var total device.Total
	b.s.BinaryCrossEntropy(device.BinaryCrossEntropy{N: 7, Logits: logits, Targets: b.int32s([]int32{1, 1, 0, 0, 1, 1, 0}), Total: &total})
	if err := b.s.Sync(); err != nil {
		t.Fatal(err)
	}
	want := math.Log1p(math.Exp(-2)) + 2 + math.Log1p(math.Exp(-2)) + 3 + math.Log1p(math.Exp(-3)) + math.Ln2 + 200
	if math.Abs(total.Loss-want) > 1e-12*want || total.Correct != 4 {
		t.Fatalf("%+v, want a loss of %v and 4 correct", total, want)
	}
	for e := 1.0; e > 1e-30; e *= 0.93 {
		if got, want := logOnePlus(e), math.Log1p(e); math.Abs(got-want) > 1e-14*want {
			t.Fatalf("logOnePlus(%v) is %v, want %v", e, got, want)
		}
	}
}

func TestLossFaults(t *testing.T) {
	b := newBench(t, "")
	_, x := b.random(8)
	var total device.Total
	nan := b.buffer([]float32{0, 0, 0, float32(math.NaN())})
	for want, f := range map[string]func(){
		"target 2 at place 1 is not within [0, 1]": func() {
			b.s.BinaryCrossEntropy(device.BinaryCrossEntropy{N: 2, Logits: x, Targets: b.int32s([]int32{0, 2}), Total: &total})
		},
		"target NaN at place 3": func() {
			b.s.BinaryCrossEntropy(device.BinaryCrossEntropy{N: 4, Logits: x, Targets: nan, Total: &total})
		},
		"operand Targets has 4 elements": func() {
			b.s.BinaryCrossEntropy(device.BinaryCrossEntropy{N: 5, Logits: x, Targets: nan, Total: &total})
		},
		"operand Targets is not a memory": func() {
			b.s.BinaryCrossEntropy(device.BinaryCrossEntropy{N: 5, Logits: x, Total: &total})
		},
		"binary cross-entropy: no place": func() {
			b.s.BinaryCrossEntropy(device.BinaryCrossEntropy{N: 1, Logits: x, Targets: nan})
		},
		"squared error: no place": func() { b.s.SquaredError(device.SquaredError{N: 1, Y: x, Targets: nan}) },
		"squared error: sizes":    func() { b.s.SquaredError(device.SquaredError{Y: x, Targets: nan, Total: &total}) },
	} {
		f()
		if err := b.s.Sync(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}
