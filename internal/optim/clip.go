package optim

import "math"

// SumSquares is the sum of the squares of x in float64, in the order of vec.Partials: the same bits everywhere.
func SumSquares(x []float32) float64 { return kernels.SumSquares(x) }

// Scale multiplies x by a.
func Scale(x []float32, a float32) { kernels.Scale(x, a) }

// ClipFactor is what a gradient whose squares come to sum is multiplied by, so that its norm is at most limit: at
// most 1, and NaN where the sum is. PyTorch's clip_grad_norm_.
func ClipFactor(sum, limit float64) float32 {
	return float32(min(1, limit/(math.Sqrt(sum)+1e-6)))
}
