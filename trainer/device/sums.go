package device

import "math"

// How gradients that stay on a device are added up: the arithmetic of collective.Exact, in parts that can be asked for by themselves, as
// exponents are agreed between the first and the second. All of it gives the same bits on every device.

// Magnitudes is y[b] = the largest magnitude of elements [b*Block, (b+1)*Block) of all parts, N elements each: the largest bit pattern
// without its sign, so that infinities and NaNs are larger than any number.
type Magnitudes struct {
	N, Block int
	Parts    []Buffer
	Y        Buffer // (ceil(N/Block))
}

// Exponents of blocks that have no sum, as collective's of the same names.
const (
	ZeroBlock = math.MinInt32 // nothing but zeros: the sum is 0
	NonFinite = math.MaxInt32 // an infinity or a NaN: the sum is NaN
)

// ExactSum is y = the sum of parts, N elements each: with e the exponent of its block, each element is rounded, to nearest even, to a multiple of
// 2**(e-Width), the multiples are added as int32, and their sum is rounded once to float32 (collective.ExactSum). Y may be the first of Parts, or of Words where
// there are no Parts.
//
// A sum may be made in several memories: Open leaves the sum of multiples as it is, an int32 in the place of each float32, and Words are such sums.
type ExactSum struct {
	N, Block  int
	Width     int // bits of the largest multiple: collective.Exact.Width
	Parts     []Buffer
	Words     []Buffer
	Exponents Buffer // (ceil(N/Block)), Int32: no element of the block is larger than 2**e
	Y         Buffer
	Open      bool
}

// Squares is y[b] = the sum of the squares of elements [b*Block, (b+1)*Block) of x, a float64 in two words (the low one first), in the
// order of SumSquares.
type Squares struct {
	N, Block int
	X        Buffer
	Y        Buffer // (2 * ceil(N/Block))
}
