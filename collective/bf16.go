package collective

import (
	"context"
	"fmt"

	"github.com/musterml/muster/collective/vec"
)

// BF16 adds float32 vectors with half the bytes on the wire: as bf16, which has float32's range and 8 significant bits.
//
// Each rank rounds its contribution once, to nearest even, and keeps what the rounding took, to add it to its next
// contribution (error feedback: Seide et al. 2014, "1-bit SGD"; Karimireddy et al. 2019): over many steps nothing of a
// gradient is lost, small elements only come later. On the way round the ring partial sums are rounded to bf16 again,
// and that is not fed back.
//
// The bound, for n ranks whose rounded contributions are q_1 ... q_n: a rounding moves a number by at most 2^-8 of its
// magnitude, and there are n-1 of them, of partial sums, so each element of the result is within
//
//	(n-1) * 2^-8 * (1+2^-8)^(n-1) * (|q_1| + ... + |q_n|)
//
// of q_1 + ... + q_n, and each q_i within 2^-8 of its magnitude of what was to be sent. As with float32 every rank holds
// the same bits, which depend on the world and the ring's order. Not for worlds of many dozens, where (n-1) * 2^-8 is
// no longer small.
type BF16 struct {
	words      []int32
	rest, next []float32
}

// NewBF16 is for vectors of n elements, always of the same parameters: it remembers what was not sent of each.
func NewBF16(n int) *BF16 {
	return &BF16{words: make([]int32, vec.Words(n)), rest: make([]float32, n), next: make([]float32, n)}
}

// AllReduce adds x over all ranks, in place. After an error x and what is remembered are what they were, so the call
// can be made again under another view.
func (b *BF16) AllReduce(ctx context.Context, r *Ring, op Op, x []float32) error {
	if len(x) != len(b.rest) {
		return fmt.Errorf("%w: a vector of %d elements, BF16 is for %d", ErrArgument, len(x), len(b.rest))
	}
	kernels.EncodeBF16(b.words, x, b.rest, b.next)
	v := Int32s(b.words)
	v.half = true
	if err := r.AllReduce(ctx, op, v, SumBF16); err != nil {
		return err
	}
	b.rest, b.next = b.next, b.rest
	kernels.DecodeBF16(x, b.words)
	return nil
}

// Reset forgets what has not been sent yet, when the parameters are replaced.
func (b *BF16) Reset() { clear(b.rest) }
