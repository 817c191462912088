package device

import "fmt"

// Ops are the kernels of a stream. Shapes are given as (rows, columns), row-major.
type Ops interface {
	MatMul(MatMul)
	Conv2D(Conv2D)
	Conv2DBackwardData(Conv2DBackwardData)
	Conv2DBackwardWeight(Conv2DBackwardWeight)
	MaxPool(MaxPool)
	MaxPoolBackward(MaxPoolBackward)
	// ReLUBackward is dx[i] = 0 where y[i] <= 0, else dy[i] (so at NaN too, as in PyTorch); y is
	// the output of the ReLU. All have n elements; dx may be dy.
	ReLUBackward(dx, dy, y Buffer, n int)
	// SumRows is out[j] = sum over i of x[i][j], x (rows, cols), added in the order of i
	// from 0: the gradient of a bias.
	SumRows(out, x Buffer, rows, cols int)
	// Add is y[i] = act(a[i] + b[i]), n elements each; y may be a or b.
	Add(y, a, b Buffer, n int, act Activation)
	// Finite sets ok, after Sync, to whether none of n elements is NaN or infinite.
	Finite(x Buffer, n int, ok *bool)
	// Apply is y[i] = f(x[i]), n elements each.
	Apply(y, x Buffer, n int, f Function)
	// ApplyBackward is dx[i] = dy[i] * f'(x[i]), n elements each; dx may be dy.
	ApplyBackward(dx, dy, x Buffer, n int, f Function)
	// Scale is y[i] = a * x[i], n elements each; y may be x.
	Scale(y, x Buffer, n int, a float32)
	Magnitudes(Magnitudes)
	ExactSum(ExactSum)
	Squares(Squares)
	AveragePool(AveragePool)
	AveragePoolBackward(AveragePoolBackward)
	// GlobalAveragePool is y (n, c) = the mean over the pixels of x (n, pixels, c), added by pixel.
	GlobalAveragePool(y, x Buffer, n, pixels, c int)
	// GlobalAveragePoolBackward is dx (n, pixels, c) = dy (n, c) / pixels, the same for each pixel.
	GlobalAveragePoolBackward(dx, dy Buffer, n, pixels, c int)
	LayerNorm(LayerNorm)
	LayerNormBackward(LayerNormBackward)
	BatchNorm(BatchNorm)
	BatchNormBackward(BatchNormBackward)
	BatchNormInference(BatchNormInference)
	Dropout(Dropout)
	Attention(Attention)
	AttentionBackward(AttentionBackward)
	Embedding(Embedding)
	EmbeddingBackward(EmbeddingBackward)
	SparseMatMul(SparseMatMul)
	SparseMatMulBackwardWeight(SparseMatMulBackwardWeight)
	ConcatRows(ConcatRows)
	ConcatRowsBackward(ConcatRowsBackward)
	PoolRows(PoolRows)
	PoolRowsBackward(PoolRowsBackward)
	InteractRows(InteractRows)
	InteractRowsBackward(InteractRowsBackward)
	SoftmaxCrossEntropy(SoftmaxCrossEntropy)
	BinaryCrossEntropy(BinaryCrossEntropy)
	SquaredError(SquaredError)
	Update(Update)
	// ToNHWC is y (n, h, w, c) = x (n, c, h, w).
	ToNHWC(y, x Buffer, n, c, h, w int)
	// ToNCHW is y (n, c, h, w) = x (n, h, w, c).
	ToNCHW(y, x Buffer, n, c, h, w int)
}

// Activation is what an epilogue applies to each element: what costs nothing there, and whose slope its
// value tells. GELU and the other functions are none: their slopes need what they were applied to, so it has to be
// written anyway, and an epilogue would save no more than reading it once. A device that gains by that may do an Apply that follows
// together with the product before it (package cuda does).
type Activation uint8

const (
	// Identity leaves the element as it is.
	Identity Activation = iota
	// ReLU is max(0, x); NaN stays NaN.
	ReLU
)

// Function is what Apply applies.
type Function uint8

const (
	// GELU is x * Phi(x), with the distribution of the normal law itself (by erf, PyTorch's default).
	GELU Function = iota
	// SiLU is x * sigmoid(x).
	SiLU
	// Tanh is the hyperbolic tangent.
	Tanh
	// Sigmoid is 1/(1+e**-x).
	Sigmoid
	// Rectifier is the activation ReLU where no operation before it can take it as an epilogue. Its slope
	// at 0 is 0, at NaN 1, as in PyTorch.
	Rectifier

	// Functions is how many there are.
	Functions
)

// Trans says which operand of a matrix product is stored transposed.
type Trans uint8

const (
	NN Trans = iota // A (M, K), B (K, N)
	NT              // A (M, K), B (N, K)
	TN              // A (K, M), B (K, N)
)

func (t Trans) String() string { return [...]string{"NN", "NT", "TN"}[t%3] }

// MatMul is C (M, N) = act(op(A) op(B) + bias), C overwritten.
//
// Order: each element starts as its bias (or 0) and adds its K products from k = 0
// upwards, in one chain; so it does not depend on M, N, or how the work is tiled.
type MatMul struct {
	Trans   Trans
	M, N, K int
	A, B, C Buffer
	Bias    Buffer // (N), optional
	Act     Activation
}

// ConvShape is the geometry of a two-dimensional convolution (a cross-correlation, as
// in PyTorch).
type ConvShape struct {
	N           int // samples
	C, H, W     int // input channels, height, width
	Out         int // output channels
	KH, KW      int // kernel
	Stride, Pad int // the same in both directions; Pad < KH and Pad < KW
}

// OutH is the height of the output.
func (s ConvShape) OutH() int { return (s.H+2*s.Pad-s.KH)/s.Stride + 1 }

// OutW is the width of the output.
func (s ConvShape) OutW() int { return (s.W+2*s.Pad-s.KW)/s.Stride + 1 }

// Validate tells what is wrong with the geometry.
func (s ConvShape) Validate() error {
	switch {
	case s.N < 1 || s.C < 1 || s.H < 1 || s.W < 1 || s.Out < 1 || s.KH < 1 || s.KW < 1 || s.Stride < 1:
		return fmt.Errorf("convolution %+v: sizes and stride must be at least 1", s)
	case s.Pad < 0 || s.Pad >= s.KH || s.Pad >= s.KW:
		return fmt.Errorf("convolution %+v: the padding must be at least 0 and smaller than the kernel", s)
	case s.H+2*s.Pad < s.KH || s.W+2*s.Pad < s.KW:
		return fmt.Errorf("convolution %+v: the kernel is larger than the padded image", s)
	}
	return nil
}

// Conv2D is y (N, OutH, OutW, Out) = act(x (N, H, W, C) * w (Out, C, KH, KW) + bias).
//
// Order: each element starts as its bias (or 0) and adds its products in the order
// (kh, kw, c), in one chain; products with padding count as zeros.
type Conv2D struct {
	Shape ConvShape
	Y, X  Buffer
	W     Buffer
	Bias  Buffer // (Out), optional
	Act   Activation
}

// Conv2DBackwardData is dx (N, H, W, C), the gradient of the input, from
// dy (N, OutH, OutW, Out) and w (Out, C, KH, KW). Order: (KH-1-kh, KW-1-kw, out).
type Conv2DBackwardData struct {
	Shape  ConvShape
	DX, DY Buffer
	W      Buffer
}

// Conv2DBackwardWeight is dw (Out, C, KH, KW), the gradient of the weights, from
// x (N, H, W, C) and dy (N, OutH, OutW, Out). Order: sample, then output pixel in row-major order.
type Conv2DBackwardWeight struct {
	Shape ConvShape
	DW    Buffer
	X, DY Buffer
}
