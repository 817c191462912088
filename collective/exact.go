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
// arithmetic is a product with a power of two, exact but for the rounding that is meant, so every CPU and every
// instruction set gives the same (package vec).
//
// The error: let m be the block's largest magnitude, over all contributions. 2^e < 2m, so rounding moves each
// contribution by at most
//
//	q/2 = 2^(e-31+c) < m * 2^(c-30),
//
// which for 8 shards is m * 2^-27, one eighth of the rounding of a single float32 of size m. Shards contributions
// together are off by less than Shards * m * 2^(c-30), and the result is rounded once more, to float32. The bound is
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

// Width is the number of bits of the largest contribution.
func (e Exact) Width() int { return 30 - bits.Len(uint(e.Shards-1)) }

// Exponents raises dst[b] to the exponent of block b of grad. Start from ZeroBlock everywhere, call it for every
// contribution, and take the maximum over the ranks.
func (e Exact) Exponents(dst []int32, grad []float32) {
	for b := 0; len(grad) > 0; b++ {
		block := grad[:min(e.BlockSize, len(grad))]
		grad = grad[len(block):]
		dst[b] = max(dst[b], exponent(kernels.Largest(block)))
	}
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

// ExactSum is the form of a sum of a vector whose blocks' exponents all ranks have agreed on (Exponents, and an AllReduce
// of them with MaxInt32). What is added travels as int32, the sum as float32. A block of zeros gives zeros, a block that is not finite NaNs: a training
// run that blows up must be seen to, on every rank alike. A sum beyond float32 gives an infinity.
type ExactSum struct {
	Exact
	Exps []int32 // of the vector's blocks, the first of which begins where the vector does
	// Parts are this rank's contributions, each as long as the vector; there may be none. A single one may be the vector
	// itself; otherwise they are only read.
	Parts [][]float32
	// Words, where they are given, are the sum of this rank's contributions, made already: multiples of the quantum, zeros in blocks that have none. They are
	// only read, and there are no Parts.
	Words []int32
}

func (s *ExactSum) reduce() Reduce  { return sumExact }
func (s *ExactSum) digest() uint32  { return uint32(s.BlockSize)*31 + uint32(s.Shards) }
func (s *ExactSum) words(n int) int { return n }
func (s *ExactSum) plain() bool     { return true }

func (s *ExactSum) check(n int) error {
	if err := s.Check(); err != nil {
		return err
	}
	if len(s.Exps) != s.Blocks(n) || len(s.Parts) > s.Shards {
		return fmt.Errorf("%w: %d exponents and %d parts for %d blocks and %d shards", ErrArgument, len(s.Exps), len(s.Parts), s.Blocks(n), s.Shards)
	}
	if s.Words != nil && (len(s.Words) != n || len(s.Parts) > 0) {
		return fmt.Errorf("%w: %d words beside %d parts of a vector of %d", ErrArgument, len(s.Words), len(s.Parts), n)
	}
	for _, p := range s.Parts {
		if len(p) != n {
			return fmt.Errorf("%w: a part of %d elements of a vector of %d", ErrArgument, len(p), n)
		}
	}
	return nil
}

// block is the exponent at element lo, and how many of n elements from there on are in its block.
func (s *ExactSum) block(lo, n int) (exp int32, k int) {
	b := lo / s.BlockSize
	return s.Exps[b], min(n, (b+1)*s.BlockSize-lo)
}

func (s *ExactSum) encode(_ *work, dst []int32, _ []float32, lo int) {
	if s.Words != nil {
		copy(dst, s.Words[lo:])
		return
	}
	for len(dst) > 0 {
		exp, n := s.block(lo, len(dst))
		if exp == ZeroBlock || exp == NonFinite || len(s.Parts) == 0 {
			clear(dst[:n])
		} else {
			kernels.Round(dst[:n], s.Parts[0][lo:lo+n], s.Width()-int(exp))
			s.addParts(dst[:n], s.Parts[1:], lo, exp)
		}
		dst, lo = dst[n:], lo+n
	}
}

func (s *ExactSum) add(_ *work, dst, src []int32, _ []float32, lo int) {
	if s.Words != nil {
		copy(dst, src[:len(dst)])
		kernels.AddInt32(dst, s.Words[lo:lo+len(dst)])
		return
	}
	for len(dst) > 0 {
		exp, n := s.block(lo, len(dst))
		if exp == ZeroBlock || exp == NonFinite || len(s.Parts) == 0 {
			copy(dst[:n], src)
		} else {
			kernels.AddRounded(dst[:n], src[:n], s.Parts[0][lo:lo+n], s.Width()-int(exp))
			s.addParts(dst[:n], s.Parts[1:], lo, exp)
		}
		dst, src, lo = dst[n:], src[n:], lo+n
	}
}

func (s *ExactSum) addParts(dst []int32, parts [][]float32, lo int, exp int32) {
	for _, p := range parts {
		kernels.AddRounded(dst, dst, p[lo:lo+len(dst)], s.Width()-int(exp))
	}
}

// Alone makes of the parts what Sum would make of them in a world of one, for a caller that has them in the cache: dst has
// as many elements as each.
func (s *ExactSum) Alone(dst []float32) {
	words := asInt32(Float32s(dst).raw)
	s.encode(nil, words, nil, 0)
	s.decode(nil, dst, words, 0)
}

// decode rounds once, to float32.
func (s *ExactSum) decode(_ *work, dst []float32, src []int32, lo int) {
	for len(dst) > 0 {
		exp, n := s.block(lo, len(dst))
		switch exp {
		case ZeroBlock:
			clear(dst[:n])
		case NonFinite:
			for i := range dst[:n] {
				dst[i] = math.Float32frombits(0x7fc00000) // the same NaN everywhere
			}
		default:
			kernels.Unscale(dst[:n], src[:n], int(exp)-s.Width())
		}
		dst, src, lo = dst[n:], src[n:], lo+n
	}
}

func (s *ExactSum) merge(w *work, dst []float32, parts [][]int32, lo int) {
	for _, p := range parts[1:] {
		kernels.AddInt32(parts[0], p)
	}
	s.decode(w, dst, parts[0], lo)
}
