package collective

import "github.com/musterml/muster/collective/vec"

// BF16 adds with half the bytes on the wire: as bf16, which has float32's range and 8 significant bits. It keeps no state:
// what is rounded away is lost, as with PyTorch's bf16_compress_hook and Horovod's compression.
//
// Each rank adds its contribution, in float32, to the bf16 that comes, and rounds the sum to nearest even. The first rank of a
// segment's way rounds its own. So an element is rounded n times by n ranks; the short way rounds each contribution
// once and adds in float32.
//
// The bound: a rounding moves a number by at most 2^-9 of the next power of two above its magnitude, so by at most 2^-8 of
// its magnitude, and each element of the result is within
//
//	n * 2^-8 * (1+2^-8)^n * (|x_1| + ... + |x_n|)
//
// of x_1 + ... + x_n. (Below 2^-126 steps are 2^-133 instead.) Round to nearest even has no bias: over many steps errors of
// both signs come alike, which is why training takes no harm (trainer's TestTrainingInEveryForm). As with float32 every
// rank holds the same bits, which depend on the world and the ring's order. Not for worlds of many dozens, where n * 2^-8 is
// no longer small.
//
// Rejected: error feedback, which this form had before. Remembering what rounding took is three more streams through memory,
// as many bytes as the form saves, for errors that have no bias.
type BF16 struct{}

func (BF16) reduce() Reduce  { return sumBF16 }
func (BF16) digest() uint32  { return 0 }
func (BF16) check(int) error { return nil }
func (BF16) words(n int) int { return vec.Words(n) }
func (BF16) plain() bool     { return false }

func (BF16) encode(_ *work, dst []int32, x []float32, _ int)   { kernels.EncodeBF16(dst, x) }
func (BF16) add(_ *work, dst, src []int32, x []float32, _ int) { kernels.AddBF16(dst, src, x) }
func (BF16) decode(_ *work, dst []float32, src []int32, _ int) { kernels.DecodeBF16(dst, src) }

// merge adds in float32: nothing is sent on.
func (BF16) merge(_ *work, dst []float32, parts [][]int32, _ int) {
	kernels.DecodeBF16(dst, parts[0])
	for _, p := range parts[1:] {
		kernels.SumBF16(dst, p)
	}
}
