package vec

import "golang.org/x/sys/cpu"

//go:generate sh -c "cd asm && go run . -out ../vec_amd64.s"

var (
	setAVX512 = Set{
		name: "avx512", asm: true, sgd: sgdAVX512, momentum: momentumAVX512, nesterov: nesterovAVX512, adam: adamAVX512,
		adagrad: adagradAVX512, rmsprop: rmspropAVX512, rmspropMomentum: rmspropMomentumAVX512,
		scale: scaleAVX512, sumSquares: sumSquaresAVX512,
	}
	setAVX2 = Set{
		name: "avx2", asm: true, sgd: sgdAVX2, momentum: momentumAVX2, nesterov: nesterovAVX2, adam: adamAVX2,
		adagrad: adagradAVX2, rmsprop: rmspropAVX2, rmspropMomentum: rmspropMomentumAVX2,
		scale: scaleAVX2, sumSquares: sumSquaresAVX2,
	}
	setGo = Set{name: "go"}
)

// available lists the sets of this processor that the operating system supports too, the best first.
func available() []*Set {
	var all []*Set
	if cpu.X86.HasAVX2 && cpu.X86.HasAVX512F {
		all = append(all, &setAVX512)
	}
	if cpu.X86.HasAVX2 {
		all = append(all, &setAVX2)
	}
	return append(all, &setGo)
}

// The functions of vec_amd64.s. See type Set; the assembly checks nothing.

//go:noescape
func sgdAVX512(dw, w, grad *float32, n int, lr, decay float32)

//go:noescape
func sgdAVX2(dw, w, grad *float32, n int, lr, decay float32)

//go:noescape
func momentumAVX512(dw, dm, w, grad, m *float32, n int, lr, momentum, decay float32)

//go:noescape
func momentumAVX2(dw, dm, w, grad, m *float32, n int, lr, momentum, decay float32)

//go:noescape
func nesterovAVX512(dw, dm, w, grad, m *float32, n int, lr, momentum, decay float32)

//go:noescape
func nesterovAVX2(dw, dm, w, grad, m *float32, n int, lr, momentum, decay float32)

//go:noescape
func adagradAVX512(dw, dm, w, grad, m *float32, n int, lr, decay, eps float32)

//go:noescape
func adagradAVX2(dw, dm, w, grad, m *float32, n int, lr, decay, eps float32)

//go:noescape
func rmspropAVX512(dw, dm, w, grad, m *float32, n int, lr, decay, beta2, keep2, eps float32)

//go:noescape
func rmspropAVX2(dw, dm, w, grad, m *float32, n int, lr, decay, beta2, keep2, eps float32)

//go:noescape
func rmspropMomentumAVX512(dw, dm, dv, w, grad, m, v *float32, n int, lr, momentum, decay, beta2, keep2, eps float32)

//go:noescape
func rmspropMomentumAVX2(dw, dm, dv, w, grad, m, v *float32, n int, lr, momentum, decay, beta2, keep2, eps float32)

//go:noescape
func adamAVX512(dw, dm, dv, w, grad, m, v *float32, n int, decay, shrink, keep1, beta2, keep2, root, eps, factor float32)

//go:noescape
func adamAVX2(dw, dm, dv, w, grad, m, v *float32, n int, decay, shrink, keep1, beta2, keep2, root, eps, factor float32)

//go:noescape
func scaleAVX512(x *float32, n int, a float32)

//go:noescape
func scaleAVX2(x *float32, n int, a float32)

//go:noescape
func sumSquaresAVX512(x *float32, n int) (sums [16]float64)

//go:noescape
func sumSquaresAVX2(x *float32, n int) (sums [16]float64)
