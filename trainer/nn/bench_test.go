package nn

import (
	"fmt"
	"testing"

	"github.com/musterml/muster/trainer/device/cpu"
)

// flops is the number of operations of forward and backward per sample, products only: what
// a GF/s counts here.
func flops(s *Spec) float64 {
	total := 0.0
	for i, l := range s.layers {
		var f float64
		switch l := l.(type) {
		case *linear:
			f = 2 * float64(l.in) * float64(l.outputs)
		case *conv:
			f = 2 * float64(l.out().size()) * float64(l.geometry.C*l.geometry.KH*l.geometry.KW)
		}
		passes := 3.0
		if i == 0 {
			passes = 2 // nobody asks for the gradient of the data
		}
		total += passes * f
	}
	return total
}

// BenchmarkGradient is one replica on one processor. On a Zen 4 machine of two cores PyTorch 1.13
// with one thread did 27,000 samples/s of mlp and 1,550 of lenet, at 128 samples per call.
func BenchmarkGradient(b *testing.B) {
	for _, c := range full {
		for _, n := range []int{16, 32, 128} {
			for _, set := range cpu.InstructionSets() {
				b.Run(fmt.Sprintf("%s/%d/%s", c.name, n, set), func(b *testing.B) {
					s := c.build(b)
					r := replica(b, s, set, n)
					w, grad := start(b, s), make([]float32, s.Params())
					x, labels := batch(s, n)
					for b.Loop() {
						if _, err := r.Gradient(w, x, labels, 1, grad); err != nil {
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
