package nn

import (
	"fmt"
	"testing"

	"github.com/musterml/muster/trainer/device/cpu"
)

// flops is the number of operations of forward and backward per sample, products only: what
// a GF/s counts here.
func flops(s *Spec) float64 {
	return 3*products(s.layers) - first(s.layers)
}

// products is the number of operations of the products of one forward pass.
func products(layers []layer) (f float64) {
	for _, l := range layers {
		switch l := l.(type) {
		case *linear:
			f += 2 * float64(l.in) * float64(l.to.size())
		case *conv:
			f += 2 * float64(l.out().size()) * float64(l.geometry.C*l.geometry.KH*l.geometry.KW)
		case *attention:
			f += 2 * float64(l.out().size()) * float64(l.geometry.T)
		case *residual:
			f += products(l.body) + products(l.shortcut)
		}
	}
	return f
}

// first is that of the first layer with parameters: nobody asks for the gradient of the data.
func first(layers []layer) float64 {
	for i := range layers {
		if f := products(layers[i : i+1]); f > 0 {
			return f
		}
	}
	return 0
}

// BenchmarkGradient is one replica on one processor. By processor time, on one core of a busy Zen 5 machine with
// AVX-512: 51 samples/s of gpt (16 per call), 62 of resnet18 (32 per call), where PyTorch 1.13 with one thread did 46 of
// resnet18 (64 per call; its gpt was no match, Debian's PyTorch having had no BLAS but the reference one).
// On a Zen 4 machine of two cores it did 27,000 samples/s of mlp and 1,550 of lenet, at 128 samples per call.
func BenchmarkGradient(b *testing.B) {
	for _, c := range full {
		for _, n := range []int{16, 32, 128} {
			for _, set := range cpu.InstructionSets() {
				if set == "go" && (c.name == "gpt" || c.name == "resnet18") {
					continue
				}
				b.Run(fmt.Sprintf("%s/%d/%s", c.name, n, set), func(b *testing.B) {
					s := c.build(b)
					r := replica(b, s, set, n)
					w, grad := start(b, s), make([]float32, s.Params())
					in := batch(s, n)
					for b.Loop() {
						if _, err := r.Gradient(w, in, key, 1, grad); err != nil {
							b.Fatal(err)
						}
					}
					samples := float64(n) * float64(b.N) / b.Elapsed().Seconds()
					b.ReportMetric(samples, "samples/s")
					b.ReportMetric(samples*flops(s)/1e9, "GF/s")
				})
			}
		}
	}
}
