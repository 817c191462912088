package cpu

import "github.com/musterml/muster/trainer/device"

var rowsAVX512 = rowKernels{
	rowMax:         rowMaxAVX512,
	rowSum:         rowSumAVX512,
	rowSquares:     rowSquaresAVX512,
	rowDot:         rowDotAVX512,
	rowScale:       rowScaleAVX512,
	rowAdd:         rowAddAVX512,
	rowExp:         rowExpAVX512,
	rowSoftmaxBack: rowSoftmaxBackAVX512,
	rowNormalise:   rowNormaliseAVX512,
	rowNormSums:    rowNormSumsAVX512,
	rowNormBack:    rowNormBackAVX512,
	rowAddSquares:  rowAddSquaresAVX512,
	rowAddProducts: rowAddProductsAVX512,
	rowAffine:      rowAffineAVX512,
	rowAffine2:     rowAffine2AVX512,
	rowApply: [device.Functions]func(y, x *float32, n int){
		device.GELU:    rowGELUAVX512,
		device.SiLU:    rowSiLUAVX512,
		device.Tanh:    rowTanhAVX512,
		device.Sigmoid: rowSigmoidAVX512,
	},
	rowApplyBack: [device.Functions]func(dx, dy, x *float32, n int){
		device.GELU:    rowGELUBackAVX512,
		device.SiLU:    rowSiLUBackAVX512,
		device.Tanh:    rowTanhBackAVX512,
		device.Sigmoid: rowSigmoidBackAVX512,
	},
}

var rowsAVX2 = rowKernels{
	rowMax:         rowMaxAVX2,
	rowSum:         rowSumAVX2,
	rowSquares:     rowSquaresAVX2,
	rowDot:         rowDotAVX2,
	rowScale:       rowScaleAVX2,
	rowAdd:         rowAddAVX2,
	rowExp:         rowExpAVX2,
	rowSoftmaxBack: rowSoftmaxBackAVX2,
	rowNormalise:   rowNormaliseAVX2,
	rowNormSums:    rowNormSumsAVX2,
	rowNormBack:    rowNormBackAVX2,
	rowAddSquares:  rowAddSquaresAVX2,
	rowAddProducts: rowAddProductsAVX2,
	rowAffine:      rowAffineAVX2,
	rowAffine2:     rowAffine2AVX2,
	rowApply: [device.Functions]func(y, x *float32, n int){
		device.GELU:    rowGELUAVX2,
		device.SiLU:    rowSiLUAVX2,
		device.Tanh:    rowTanhAVX2,
		device.Sigmoid: rowSigmoidAVX2,
	},
	rowApplyBack: [device.Functions]func(dx, dy, x *float32, n int){
		device.GELU:    rowGELUBackAVX2,
		device.SiLU:    rowSiLUBackAVX2,
		device.Tanh:    rowTanhBackAVX2,
		device.Sigmoid: rowSigmoidBackAVX2,
	},
}

// The row kernels of kernels_amd64.s. See type rowKernels; the assembly checks nothing.

//go:noescape
func rowMaxAVX512(x *float32, n int) float32

//go:noescape
func rowMaxAVX2(x *float32, n int) float32

//go:noescape
func rowSumAVX512(x *float32, n int) float32

//go:noescape
func rowSumAVX2(x *float32, n int) float32

//go:noescape
func rowSquaresAVX512(x *float32, n int, mean float32) float32

//go:noescape
func rowSquaresAVX2(x *float32, n int, mean float32) float32

//go:noescape
func rowDotAVX512(x *float32, y *float32, n int) float32

//go:noescape
func rowDotAVX2(x *float32, y *float32, n int) float32

//go:noescape
func rowScaleAVX512(y *float32, x *float32, n int, a float32)

//go:noescape
func rowScaleAVX2(y *float32, x *float32, n int, a float32)

//go:noescape
func rowAddAVX512(y *float32, a *float32, b *float32, n int, floor float32)

//go:noescape
func rowAddAVX2(y *float32, a *float32, b *float32, n int, floor float32)

//go:noescape
func rowExpAVX512(y *float32, x *float32, n int, a float32, b float32) float32

//go:noescape
func rowExpAVX2(y *float32, x *float32, n int, a float32, b float32) float32

//go:noescape
func rowSoftmaxBackAVX512(dx *float32, dy *float32, y *float32, n int, mean float32, a float32)

//go:noescape
func rowSoftmaxBackAVX2(dx *float32, dy *float32, y *float32, n int, mean float32, a float32)

//go:noescape
func rowGELUAVX512(y *float32, x *float32, n int)

//go:noescape
func rowGELUAVX2(y *float32, x *float32, n int)

//go:noescape
func rowGELUBackAVX512(dx *float32, dy *float32, x *float32, n int)

//go:noescape
func rowGELUBackAVX2(dx *float32, dy *float32, x *float32, n int)

//go:noescape
func rowSiLUAVX512(y *float32, x *float32, n int)

//go:noescape
func rowSiLUAVX2(y *float32, x *float32, n int)

//go:noescape
func rowSiLUBackAVX512(dx *float32, dy *float32, x *float32, n int)

//go:noescape
func rowSiLUBackAVX2(dx *float32, dy *float32, x *float32, n int)

//go:noescape
func rowTanhAVX512(y *float32, x *float32, n int)

//go:noescape
func rowTanhAVX2(y *float32, x *float32, n int)

//go:noescape
func rowTanhBackAVX512(dx *float32, dy *float32, x *float32, n int)

//go:noescape
func rowTanhBackAVX2(dx *float32, dy *float32, x *float32, n int)

//go:noescape
func rowSigmoidAVX512(y *float32, x *float32, n int)

//go:noescape
func rowSigmoidAVX2(y *float32, x *float32, n int)

//go:noescape
func rowSigmoidBackAVX512(dx *float32, dy *float32, x *float32, n int)

//go:noescape
func rowSigmoidBackAVX2(dx *float32, dy *float32, x *float32, n int)

//go:noescape
func rowNormaliseAVX512(y *float32, x *float32, gamma *float32, beta *float32, n int, mean float32, rstd float32)

//go:noescape
func rowNormaliseAVX2(y *float32, x *float32, gamma *float32, beta *float32, n int, mean float32, rstd float32)

//go:noescape
func rowNormSumsAVX512(dy *float32, gamma *float32, x *float32, n int, mean float32, rstd float32) (r0 float32, r1 float32)

//go:noescape
func rowNormSumsAVX2(dy *float32, gamma *float32, x *float32, n int, mean float32, rstd float32) (r0 float32, r1 float32)

//go:noescape
func rowNormBackAVX512(dx *float32, dy *float32, gamma *float32, x *float32, dgamma *float32, dbeta *float32, n int, mean float32, rstd float32, m0 float32, m1 float32)

//go:noescape
func rowNormBackAVX2(dx *float32, dy *float32, gamma *float32, x *float32, dgamma *float32, dbeta *float32, n int, mean float32, rstd float32, m0 float32, m1 float32)

//go:noescape
func rowAddSquaresAVX512(sum *float32, x *float32, mean *float32, n int)

//go:noescape
func rowAddSquaresAVX2(sum *float32, x *float32, mean *float32, n int)

//go:noescape
func rowAddProductsAVX512(s0 *float32, s1 *float32, dy *float32, x *float32, mean *float32, n int)

//go:noescape
func rowAddProductsAVX2(s0 *float32, s1 *float32, dy *float32, x *float32, mean *float32, n int)

//go:noescape
func rowAffineAVX512(y *float32, x *float32, a *float32, b *float32, n int, floor float32)

//go:noescape
func rowAffineAVX2(y *float32, x *float32, a *float32, b *float32, n int, floor float32)

//go:noescape
func rowAffine2AVX512(y *float32, u *float32, a *float32, x *float32, b *float32, c *float32, n int)

//go:noescape
func rowAffine2AVX2(y *float32, u *float32, a *float32, x *float32, b *float32, c *float32, n int)
