package cuda

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

// ofLogits are the shapes of a gradient of logits (n, classes) whose lines are no whole chunks, and of the linear layer before it.
const ofLogits, classesOfLogits, inputsOfLogits = 6, 13, 24

// gradientOfLogits asks for one in parts, for between, and for the products that it is a factor of; then it keeps what after says. It counts the copies that were made.
func gradientOfLogits(t *testing.T, plain bool, parts int, between, after func(b *bench, d device.Buffer) device.Buffer) (b *bench, copies int) {
	const n, classes, k = ofLogits, classesOfLogits, inputsOfLogits
	d := newDevice(emulator(t), nil)
	d.precision = device.BF16
	opened, err := d.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	s := opened.(*stream)
	b = &bench{TB: t, Stream: s, rng: rand.New(rand.NewPCG(1, 2)), coarse: true, halves: true}
	logits, x, w, dx := b.outputs(n*classes), b.outputs(n*k), b.outputs(classes*k), b.output(n*k)
	rows := n / parts
	for i := range parts {
		part := logits.Range(i*rows*classes, rows*classes)
		b.SoftmaxCrossEntropy(device.SoftmaxCrossEntropy{N: rows, Classes: classes, Logits: part, Labels: b.ints(n, classes), DLogits: part, Scale: 0.5, Total: b.total()})
		if plain {
			s.bringBack()
		}
	}
	between(b, logits)
	for i := range parts {
		dw := b.room(classes * k)
		b.MatMul(device.MatMul{Trans: device.TN, M: classes, N: k, K: rows, A: logits.Range(i*rows*classes, rows*classes), B: x.Range(i*rows*k, rows*k), C: dw})
		b.keep("dw", dw)
	}
	b.MatMul(device.MatMul{Trans: device.NN, M: n, N: k, K: classes, A: logits, B: w, C: dx})
	b.keep("dx", dx)
	b.keep("gradient of logits", after(b, logits))
	for _, call := range s.calls {
		if strings.HasPrefix(call.kernel, "round_") || strings.HasPrefix(call.kernel, "columns") {
			copies++
		}
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return b, copies
}

// Products read a gradient of logits where the loss has written it filled up, whatever part of it they take; anything else finds it where it belongs.
func TestGradientsOfLogitsAreFilledUp(t *testing.T) {
	const n, classes = ofLogits, classesOfLogits
	none := func(_ *bench, d device.Buffer) device.Buffer { return d }
	overwrite := func(rows int) func(b *bench, d device.Buffer) device.Buffer {
		return func(b *bench, d device.Buffer) device.Buffer {
			b.MatMul(device.MatMul{Trans: device.NT, M: rows, N: classes, K: 8, A: b.outputs(8 * n), B: b.outputs(8 * classes), C: d})
			return d
		}
	}
	for _, c := range []struct {
		name           string
		parts          int
		between, after func(b *bench, d device.Buffer) device.Buffer
		copies         int
	}{
		{"overwritten", 1, none, overwrite(n), 0},
		{"of parts, overwritten", 3, none, overwrite(n), 0},
		{"overwritten in part", 1, none, overwrite(n - 1), 1},
		{"read behind the products", 2, none, none, 1},
		{"read in part", 1, none, func(_ *bench, d device.Buffer) device.Buffer { return d.Range(classes+2, 5) }, 1},
		{"read before the products", 3, func(b *bench, d device.Buffer) device.Buffer {
			b.SumRows(b.room(classes), d, n, classes)
			return d
		}, none, 1 + 3 + 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, _ := gradientOfLogits(t, true, c.parts, c.between, c.after)
			got, copies := gradientOfLogits(t, false, c.parts, c.between, c.after)
			if copies != c.copies {
				t.Errorf("%d copies were made, %d were to be expected", copies, c.copies)
			}
			for i, name := range want.names {
				if err := differ(got.results[i], want.results[i], 0); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}
