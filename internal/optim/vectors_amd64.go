package optim

import "golang.org/x/sys/cpu"

//go:generate sh -c "cd asm && go run . -out ../vectors_amd64.s"

// available lists what this processor has and the operating system supports too, the best first.
func available() []*vectors {
	var all []*vectors
	if cpu.X86.HasAVX2 && cpu.X86.HasAVX512F {
		all = append(all, &vectors{
			name: "avx512", lanes: 16,
			plainDecay: plainDecayAVX512, momentum: momentumAVX512, momentumDecay: momentumDecayAVX512, adam: adamAVX512, adamDecay: adamDecayAVX512,
		})
	}
	if cpu.X86.HasAVX2 {
		all = append(all, &vectors{
			name: "avx2", lanes: 8,
			plainDecay: plainDecayAVX2, momentum: momentumAVX2, momentumDecay: momentumDecayAVX2, adam: adamAVX2, adamDecay: adamDecayAVX2,
		})
	}
	return append(all, &vectors{name: "go"})
}

// The functions of vectors_amd64.s. See type vectors; the assembly checks nothing.

//go:noescape
func plainDecayAVX512(dw, w, grad *float32, n int, lr, decay float32)

//go:noescape
func plainDecayAVX2(dw, w, grad *float32, n int, lr, decay float32)

//go:noescape
func momentumAVX512(dw, dm, w, grad, m *float32, n int, lr, momentum float32)

//go:noescape
func momentumAVX2(dw, dm, w, grad, m *float32, n int, lr, momentum float32)

//go:noescape
func momentumDecayAVX512(dw, dm, w, grad, m *float32, n int, lr, momentum, decay float32)

//go:noescape
func momentumDecayAVX2(dw, dm, w, grad, m *float32, n int, lr, momentum, decay float32)

//go:noescape
func adamAVX512(dw, dm, dv, w, grad, m, v *float32, n int, keep1, beta2, keep2, root, eps, factor float32)

//go:noescape
func adamAVX2(dw, dm, dv, w, grad, m, v *float32, n int, keep1, beta2, keep2, root, eps, factor float32)

//go:noescape
func adamDecayAVX512(dw, dm, dv, w, grad, m, v *float32, n int, keep1, beta2, keep2, root, eps, factor, decay float32)

//go:noescape
func adamDecayAVX2(dw, dm, dv, w, grad, m, v *float32, n int, keep1, beta2, keep2, root, eps, factor, decay float32)
