package cuda

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

// A factor of two products that follow one another is rounded once.
func TestFactorsAreRoundedOnce(t *testing.T) {
	const n = 24
	d := newDevice(emulator(t), nil)
	d.precision = device.BF16
	s, err := d.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{TB: t, Stream: s, rng: rand.New(rand.NewPCG(1, 2))}
	dy, x, w, dw, dx := b.random(n*n), b.random(n*n), b.random(n*n), b.room(n*n), b.room(n*n)
	b.MatMul(device.MatMul{Trans: device.TN, M: n, N: n, K: n, A: dy, B: x, C: dw})
	b.MatMul(device.MatMul{Trans: device.NN, M: n, N: n, K: n, A: dy, B: w, C: dx})
	rounded := 0
	for _, c := range s.(*stream).calls {
		if strings.HasPrefix(c.kernel, "round_") {
			rounded++
		}
	}
	if rounded != 3 {
		t.Errorf("%d factors were rounded, want dy, x and w", rounded)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// And anew when it is another one by then: written by an operation, by a product, or sent by the host.
func TestFactorsThatChange(t *testing.T) {
	sameIn(t, device.BF16, 5e-3, func(b *bench) {
		const n = 24
		a, w := b.random(n*n), b.random(n*n)
		multiply := func(name string, a device.Buffer) {
			c := b.room(n * n)
			b.MatMul(device.MatMul{M: n, N: n, K: n, A: a, B: w, C: c})
			b.keep(name, c)
			b.MatMul(device.MatMul{M: n, N: n, K: n, A: a, B: w, C: c}) // the last to use it
		}
		multiply("as it was", a)
		b.Scale(a, a, n*n, -3)
		multiply("scaled", a)
		b.MatMul(device.MatMul{M: n, N: n, K: n, A: w, B: w, C: a})
		multiply("a product", a)

		p, err := b.Port(device.Float32, n*n)
		if err != nil {
			b.Fatal(err)
		}
		for _, v := range []float32{1, 2} {
			host := make([]float32, n*n)
			for i := range host {
				host[i] = v
			}
			b.Bind(p, host, device.In)
			multiply("sent", device.Whole(p))
		}
	})
}

// A product whose factors need no rounding does not make good again what an operation before it has changed.
func TestFactorsThatChangeBeforeOthers(t *testing.T) {
	inBF16(t, func(b *bench) {
		const n, odd = 24, 13
		a, w, x, first, c, d := b.outputs(n*odd), b.outputs(odd*n), b.outputs(n*n), b.output(n*n), b.output(n*n), b.output(n*n)
		p := device.MatMul{M: n, N: n, K: odd, A: a, B: w, C: first}
		b.MatMul(p)
		b.Add(a, a, a, n*odd, device.Identity)
		b.MatMul(device.MatMul{M: n, N: n, K: n, A: x, B: x, C: d})
		p.C = c
		b.MatMul(p)
		b.keep("as it was", first)
		b.keep("changed", c)
	})
}
