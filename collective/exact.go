package collective

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
)

// Exact adds float32 vectors so that the sum does not depend on the order, on the number of trainers, or on anything
// but the numbers (shared/design/architecture.md, section 6).
//
// For each block of BlockSize elements all ranks agree on one exponent e: the smallest with |x| <= 2^e for every
// element x of the block in every contribution. A maximum is the same in any order, so e is a function of the data. Each
// contribution is rounded, to nearest even, to a multiple of the quantum
//
//	q = 2^(e - (30 - c)),   c = ceil(log2(Shards)),
//
// and the multiples, at most 2^(30-c) in magnitude, are added as int32: Shards <= 2^c of them come to at most 2^30, so
// nothing overflows, integer addition is associative and commutative, and all orders give the same bits. The
// arithmetic is a product with a power of two and one addition in float64, exact but for the rounding that is meant:
// a fused multiply-add gives the same, and so does every CPU.
//
// The error: let m be the block's largest magnitude, over all contributions. 2^e < 2m, so rounding moves each
// contribution by at most
//
//	q/2 = 2^(e-31+c) < m * 2^(c-30),
//
// which for 8 shards is m * 2^-27, one eighth of the rounding of a single float32 of size m. Shards contributions
// together are off by less than Shards * m * 2^(c-30), and Value rounds once more, to float32. The bound is
// relative to the block's largest magnitude, not to each element: elements below q/2 count as zero.
//
// What is measured is exact where the data allow it: contributions that are multiples of q add up without any error.
type Exact struct {
	BlockSize int // elements per block; the last block of a vector may be shorter
	Shards    int // contributions that are added: the job's logical shards, however many ranks compute them
}

// Exponents that are none. They lie at the ends of int32, so that max over ranks does the right thing: any exponent
// replaces ZeroBlock, and NonFinite replaces any.
const (
	ZeroBlock = math.MinInt32 // nothing but zeros so far
	NonFinite = math.MaxInt32 // an infinity or a NaN: the block's sum is NaN
)

// maxShards leaves 14 bits for the largest contribution.
const maxShards = 1 << 16

// Check says what is wrong with the parameters.
func (e Exact) Check() error {
	var errs []error
	if e.BlockSize < 1 {
		errs = append(errs, fmt.Errorf("%w: Exact.BlockSize: %d is less than 1", ErrArgument, e.BlockSize))
	}
	if e.Shards < 1 || e.Shards > maxShards {
		errs = append(errs, fmt.Errorf("%w: Exact.Shards: %d, need 1 to %d", ErrArgument, e.Shards, maxShards))
	}
	return errors.Join(errs...)
}

// Blocks is the number of blocks of a vector of n elements.
func (e Exact) Blocks(n int) int { return (n + e.BlockSize - 1) / e.BlockSize }

// width is the number of bits of the largest contribution.
func (e Exact) width() int { return 30 - bits.Len(uint(e.Shards-1)) }

// Exponents raises dst[b] to the exponent of block b of grad. Start from ZeroBlock everywhere, call it for every
// contribution, and take the maximum over the ranks.
func (e Exact) Exponents(dst []int32, grad []float32) {
	for b := 0; len(grad) > 0; b++ {
		block := grad[:min(e.BlockSize, len(grad))]
		grad = grad[len(block):]
		dst[b] = max(dst[b], exponent(largest(block)))
	}
}

// largest is the bit pattern of the largest magnitude. Without their sign, patterns order like magnitudes, and
// infinities and NaNs come last. Four maxima at a time, so that one need not wait for the other.
func largest(x []float32) uint32 {
	var m0, m1, m2, m3 uint32
	for len(x) >= 8 {
		v := (*[8]float32)(x)
		m0 = max(m0, math.Float32bits(v[0])<<1)
		m1 = max(m1, math.Float32bits(v[1])<<1)
		m2 = max(m2, math.Float32bits(v[2])<<1)
		m3 = max(m3, math.Float32bits(v[3])<<1)
		m0 = max(m0, math.Float32bits(v[4])<<1)
		m1 = max(m1, math.Float32bits(v[5])<<1)
		m2 = max(m2, math.Float32bits(v[6])<<1)
		m3 = max(m3, math.Float32bits(v[7])<<1)
		x = x[8:]
	}
	for _, v := range x {
		m0 = max(m0, math.Float32bits(v)<<1)
	}
	return max(m0, m1, m2, m3) >> 1
}

// exponent is the smallest e with value(m) <= 2^e, of the bit pattern of a magnitude.
func exponent(m uint32) int32 {
	const mantissa = 23
	switch {
	case m == 0:
		return ZeroBlock
	case m >= 0xff<<mantissa:
		return NonFinite
	case m < 1<<mantissa: // subnormal: m * 2^-149
		return int32(bits.Len32(m-1)) - 149
	}
	e := int32(m>>mantissa) - 127
	if m&(1<<mantissa-1) != 0 {
		e++
	}
	return e
}

// roundMagic: adding 1.5 * 2^52 to a float64 of magnitude below 2^51 leaves its nearest integer (ties to even) in the
// low bits of the pattern, in two's complement.
const roundMagic = 3 << 51

// Add rounds grad to multiples of its blocks' quanta and adds them to sum. exps must cover every contribution that is
// added (Exponents of each, and their maximum); at most Shards contributions go into one sum. Blocks without a finite
// exponent are left alone.
func (e Exact) Add(sum []int32, grad []float32, exps []int32) {
	sum = sum[:len(grad)]
	for b := 0; len(grad) > 0; b++ {
		n := min(e.BlockSize, len(grad))
		if exps[b] != ZeroBlock && exps[b] != NonFinite {
			addRounded(sum[:n], grad[:n], math.Ldexp(1, e.width()-int(exps[b])))
		}
		sum, grad = sum[n:], grad[n:]
	}
}

func round(x float32, scale float64) int32 {
	// The product is exact: 24 bits and a power of two, far from float64's limits (scale is 2^-114 to 2^179).
	return int32(math.Float64bits(float64(float64(x)*scale) + roundMagic))
}

func addRounded(sum []int32, grad []float32, scale float64) {
	sum = sum[:len(grad)]
	for len(grad) >= 8 {
		s, g := (*[8]int32)(sum), (*[8]float32)(grad)
		s[0] += round(g[0], scale)
		s[1] += round(g[1], scale)
		s[2] += round(g[2], scale)
		s[3] += round(g[3], scale)
		s[4] += round(g[4], scale)
		s[5] += round(g[5], scale)
		s[6] += round(g[6], scale)
		s[7] += round(g[7], scale)
		sum, grad = sum[8:], grad[8:]
	}
	for i, g := range grad {
		sum[i] += round(g, scale)
	}
}

// Value turns sums into float32, with one rounding. A block of zeros gives zeros, a block that is not finite NaNs: a
// training run that blows up must be seen to, on every rank alike. A sum beyond float32 gives an infinity.
func (e Exact) Value(dst []float32, sum []int32, exps []int32) {
	dst = dst[:len(sum)]
	for b := 0; len(sum) > 0; b++ {
		n := min(e.BlockSize, len(sum))
		switch exps[b] {
		case ZeroBlock:
			clear(dst[:n])
		case NonFinite:
			for i := range dst[:n] {
				dst[i] = math.Float32frombits(0x7fc00000) // the same NaN everywhere
			}
		default:
			unscale(dst[:n], sum[:n], math.Ldexp(1, int(exps[b])-e.width()))
		}
		sum, dst = sum[n:], dst[n:]
	}
}

func unscale(dst []float32, sum []int32, quantum float64) {
	dst = dst[:len(sum)]
	for len(sum) >= 4 {
		d, s := (*[4]float32)(dst), (*[4]int32)(sum)
		d[0] = float32(float64(s[0]) * quantum)
		d[1] = float32(float64(s[1]) * quantum)
		d[2] = float32(float64(s[2]) * quantum)
		d[3] = float32(float64(s[3]) * quantum)
		dst, sum = dst[4:], sum[4:]
	}
	for i, s := range sum {
		dst[i] = float32(float64(s) * quantum)
	}
}
