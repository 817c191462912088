package cuda

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

// A function of all that a product makes is made by the product itself, with the bits that the function by itself gives; it is not where it reads something else.
func TestFunctionsJoinProducts(t *testing.T) {
	const m, n, k = 70, 36, 40
	for _, c := range []struct {
		name    string
		trans   device.Trans
		library string
		k       int
		rows    int // that the function is of
		joins   bool
	}{
		{"a product", device.NT, "", k, m, true},
		{"one in parts", device.TN, "", 2100, m, true},
		{"cuBLAS's, with a bias", device.NT, "cublas-120901", k, m, true},
		{"a part of what a product makes", device.NT, "", k, m / 2, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := func(alone bool) (b *bench, applied int) {
				e := emulator(t)
				e.blas = c.library
				d := newDevice(e, nil)
				d.precision, d.library = device.BF16, c.library != ""
				opened, err := d.NewStream()
				if err != nil {
					t.Fatal(err)
				}
				s := opened.(*stream)
				s.graphs.off = alone // then no call is kept back
				b = &bench{TB: t, Stream: s, rng: rand.New(rand.NewPCG(1, 2))}
				p := device.MatMul{Trans: c.trans, M: m, N: n, K: c.k, A: b.random(m * c.k), B: b.random(c.k * n), C: b.room(m * n), Bias: b.random(n)}
				x, y, dx := b.random(m*n), b.room(m*n), b.room(m*n)
				b.MatMul(p)
				b.Apply(y, p.C, c.rows*n, device.GELU)
				b.MatMul(p)
				b.ApplyBackward(dx, p.C, x, c.rows*n, device.GELU)
				for _, call := range s.calls {
					if strings.HasPrefix(call.kernel, "apply") {
						applied++
					}
				}
				b.keep("product", p.C)
				b.keep("function", y)
				b.keep("gradient", dx)
				if err := s.Sync(); err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				return b, applied
			}
			want, apart := run(true)
			got, left := run(false)
			if apart != 2 || c.joins != (left == 0) {
				t.Errorf("%d functions by themselves, and with graphs %d", apart, left)
			}
			for i, name := range want.names {
				if err := differ(got.results[i], want.results[i], 0); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}
