package cpu

import (
	"github.com/musterml/muster/internal/samebits"
	"github.com/musterml/muster/trainer/device"
)

// rowKernels work on n elements side by side, n a positive multiple of rowBlock; nil: there are
// none. A sum has rowBlock partial sums, element i in the one numbered i mod rowBlock, which
// are then added in a fixed tree. What each does stands at the function below that calls it.
type rowKernels struct {
	rowMax         func(x *float32, n int) float32
	rowSum         func(x *float32, n int) float32
	rowSquares     func(x *float32, n int, mean float32) float32
	rowDot         func(x, y *float32, n int) float32
	rowScale       func(y, x *float32, n int, a float32)
	rowAdd         func(y, a, b *float32, n int, floor float32)
	rowExp         func(y, x *float32, n int, a, b float32) float32
	rowSoftmaxBack func(dx, dy, y *float32, n int, mean, a float32)
	rowApply       [device.Functions]func(y, x *float32, n int)
	rowApplyBack   [device.Functions]func(dx, dy, x *float32, n int)
	rowNormalise   func(y, x, gamma, beta *float32, n int, mean, rstd float32)
	rowNormSums    func(dy, gamma, x *float32, n int, mean, rstd float32) (r0, r1 float32)
	rowNormBack    func(dx, dy, gamma, x, dgamma, dbeta *float32, n int, mean, rstd, m0, m1 float32)
	rowAddSquares  func(sum, x, mean *float32, n int)
	rowAddProducts func(s0, s1, dy, x, mean *float32, n int)
	rowAffine      func(y, x, a, b *float32, n int, floor float32)
	rowAffine2     func(y, u, a, x, b, c *float32, n int)
}

// rowBlock is the same for every instruction set, so that they agree which elements are left
// to plain Go. Those may be rounded differently from their neighbours, but always in the same way.
const rowBlock = 16

// quickRow is how many of n elements the row kernels do.
func (k *kernels) quickRow(n int) int {
	if k.rowSum == nil {
		return 0
	}
	return n / rowBlock * rowBlock
}

// max is the largest of x; of NaNs nothing is promised.
func (k *kernels) max(x []float32) float32 {
	q, m := k.quickRow(len(x)), floorNone
	if q > 0 {
		m = k.rowMax(&x[0], q)
	}
	for _, v := range x[q:] {
		m = max(m, v)
	}
	return m
}

// sum is the sum of x.
func (k *kernels) sum(x []float32) (sum float32) {
	q := k.quickRow(len(x))
	if q > 0 {
		sum = k.rowSum(&x[0], q)
	}
	for _, v := range x[q:] {
		sum += v
	}
	return sum
}

// squares is the sum of (x[i]-mean)^2.
func (k *kernels) squares(x []float32, mean float32) (sum float32) {
	q := k.quickRow(len(x))
	if q > 0 {
		sum = k.rowSquares(&x[0], q, mean)
	}
	for _, v := range x[q:] {
		sum += float32((v - mean) * (v - mean))
	}
	return sum
}

// dot is the sum of x[i]*y[i].
func (k *kernels) dot(x, y []float32) (sum float32) {
	q := k.quickRow(len(x))
	if q > 0 {
		sum = k.rowDot(&x[0], &y[0], q)
	}
	for i := q; i < len(x); i++ {
		sum += float32(x[i] * y[i])
	}
	return sum
}

// scale is y = a*x; y may be x.
func (k *kernels) scale(y, x []float32, a float32) {
	q := k.quickRow(len(x))
	if q > 0 {
		k.rowScale(&y[0], &x[0], q, a)
	}
	for i := q; i < len(x); i++ {
		y[i] = a * x[i]
	}
}

// add is y = max(floor, a+b); y may be a or b.
func (k *kernels) add(y, a, b []float32, floor float32) {
	q := k.quickRow(len(y))
	if q > 0 {
		k.rowAdd(&y[0], &a[0], &b[0], q, floor)
	}
	for i := q; i < len(y); i++ {
		y[i] = atLeast(floor, a[i]+b[i])
	}
}

// exps is y = e**(a*x+b), which must not be above 1, and the sum of y; y may be x.
func (k *kernels) exps(y, x []float32, a, b float32) (sum float32) {
	q := k.quickRow(len(x))
	if q > 0 {
		sum = k.rowExp(&y[0], &x[0], q, a, b)
	}
	for i := q; i < len(x); i++ {
		y[i] = float32(samebits.Exp(float64(float32(a*x[i]) + b)))
		sum += y[i]
	}
	return sum
}

// softmaxBack is dx = a*y*(dy-mean), the gradient of a softmax y for mean = sum of dy[i]*y[i]; dx
// may be dy.
func (k *kernels) softmaxBack(dx, dy, y []float32, mean, a float32) {
	q := k.quickRow(len(y))
	if q > 0 {
		k.rowSoftmaxBack(&dx[0], &dy[0], &y[0], q, mean, a)
	}
	for i := q; i < len(y); i++ {
		dx[i] = float32(a * float32(y[i]*(dy[i]-mean)))
	}
}
