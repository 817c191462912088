package collective

import (
	"fmt"
	"math"

	"github.com/musterml/muster/collective/vec"
	"github.com/musterml/muster/internal/huge"
)

// Int8 adds with about a quarter of the bytes on the wire: each block of 256 elements is one float32, the scale, and as many
// integers from -127 to 127. What rounding takes is not lost, but remembered and added to the contribution of the next step
// (error feedback: Seide et al. 2014, "1-bit SGD"; Karimireddy et al. 2019).
//
// Each rank decodes what comes, adds its contribution in float32, and rounds the sum to a scale of its own: the sum's
// largest magnitude in the block over 127. Every rank does that once with every element, be it the first, in between or
// the last on a segment's way, and so each remembers, in one vector, all that it has rounded away: of its own
// contribution and of the partial sums that passed.
//
// The bound: let M be the largest magnitude in a block over the partial sums on the way, contributions included. A
// rounding moves an element by at most (1+2^-14) * M/254, so in one step the result of n ranks is within
//
//	n * (1+2^-14) * M / 254
//
// of the sum of what was to be sent, and what is remembered by all ranks together is no more than that. And for any number
// of steps, whatever the gradients were,
//
//	what was given to the optimizer in all steps + what is remembered now = the sum of all gradients
//
// but for the rounding of float32: nothing of a gradient is lost, small elements only come later. (Where blocks hold
// an infinity or a NaN the result is NaN on every rank alike, and nothing is remembered. A magnitude below 2^-100 is
// kept for later.) As with float32 every rank holds the same bits, which depend on the world and the ring's order, and
// here on the steps before as well.
//
// When a step is made again: what is remembered changes only with Commit, which is called when the step is complete; until
// then a sum may be repeated, under another view, and finds what it found the first time. When membership changes: a trainer
// that is gone takes along what it remembered, at most one rounding of each element; one that joins, or fetches a state that
// it did not make itself, begins with nothing (Reset). No trainer's result depends on what it remembers alone: the
// words that travel are what all decode.
//
// Rejected: one scale for all, agreed like the exponents of Exact, so that integers add up: with n ranks each has only
// +-127/n steps, four bits with 8 of them, where each rounding here has eight.
//
// An Int8 is for one operation at a time.
type Int8 struct {
	rest, next []float32
	summed     bool // next is made
}

const (
	int8Block = 256
	int8Words = 1 + int8Block/4
)

// NewInt8 is for vectors of n elements, always of the same parameters: it remembers what was not sent of each.
func NewInt8(n int) *Int8 { return &Int8{rest: huge.Float32s(n), next: huge.Float32s(n)} }

// Commit makes what the last sum rounded away part of the next one. Without a sum since the last Commit it does nothing.
func (b *Int8) Commit() {
	if b.summed {
		b.rest, b.next, b.summed = b.next, b.rest, false
	}
}

// Reset forgets what has not been sent yet, when the parameters are replaced.
func (b *Int8) Reset() {
	clear(b.rest)
	b.summed = false
}

func (b *Int8) reduce() Reduce { return sumInt8 }
func (b *Int8) digest() uint32 { return 0 }

func (b *Int8) check(n int) error {
	if n != len(b.rest) {
		return fmt.Errorf("%w: a vector of %d elements, Int8 is for %d", ErrArgument, n, len(b.rest))
	}
	b.summed = true
	return nil
}

func (b *Int8) plain() bool { return false }

// words: a block that is left with a single element sends it as it is.
func (b *Int8) words(n int) int {
	full, tail := n/int8Block, n%int8Block
	if tail > 1 {
		tail = 1 + vec.Quarter(tail)
	}
	return full*int8Words + tail
}

func (b *Int8) encode(w *work, dst []int32, x []float32, lo int) {
	for len(x) > 0 {
		n := min(int8Block, len(x))
		k := b.words(n)
		b.encodeBlock(dst[:k], b.due(w, x[:n], lo), lo)
		dst, x, lo = dst[k:], x[n:], lo+n
	}
}

// add: a block is read before its words are written, which are fewer than its elements, so dst may begin where x does.
func (b *Int8) add(w *work, dst, src []int32, x []float32, lo int) {
	for len(x) > 0 {
		n := min(int8Block, len(x))
		k, p := b.words(n), b.due(w, x[:n], lo)
		addBlock(p, src[:k])
		b.encodeBlock(dst[:k], p, lo)
		dst, src, x, lo = dst[k:], src[k:], x[n:], lo+n
	}
}

// due is what this rank has to contribute: x and what it remembers.
func (b *Int8) due(w *work, x []float32, lo int) []float32 {
	p := w.block[:len(x)]
	copy(p, x)
	kernels.AddFloat32(p, b.rest[lo:lo+len(x)])
	return p
}

func (b *Int8) encodeBlock(dst []int32, p []float32, lo int) {
	next := b.next[lo : lo+len(p)]
	if len(p) == 1 {
		dst[0], next[0] = int32(math.Float32bits(p[0])), 0
		return
	}
	inverse, scale := vec.Scale(kernels.Largest(p))
	dst[0] = int32(math.Float32bits(scale))
	switch {
	case scale != scale:
		clear(dst[1:])
		clear(next)
	case scale == 0:
		clear(dst[1:])
		copy(next, p)
	default:
		kernels.EncodeInt8(dst[1:], p, next, inverse, scale)
	}
}

// decode goes from the last block to the first: elements take more memory than their words, which may lie in it.
func (b *Int8) decode(w *work, dst []float32, src []int32, _ int) {
	for len(dst) > 0 {
		n := (len(dst)-1)%int8Block + 1
		k := b.words(n)
		p, words := dst[len(dst)-n:], w.words[:k]
		copy(words, src[len(src)-k:])
		scale := math.Float32frombits(uint32(words[0]))
		if n == 1 {
			p[0] = scale
		} else {
			kernels.DecodeInt8(p, words[1:], scale)
		}
		dst, src = dst[:len(dst)-n], src[:len(src)-k]
	}
}

// merge adds in float32: nothing is sent on.
func (b *Int8) merge(w *work, dst []float32, parts [][]int32, lo int) {
	b.decode(w, dst, parts[0], lo)
	for _, p := range parts[1:] {
		for x := dst; len(x) > 0; {
			n := min(int8Block, len(x))
			k := b.words(n)
			addBlock(x[:n], p[:k])
			x, p = x[n:], p[k:]
		}
	}
}

// addBlock adds the elements of a block's words to x.
func addBlock(x []float32, words []int32) {
	scale := math.Float32frombits(uint32(words[0]))
	if len(x) == 1 {
		x[0] += scale
		return
	}
	kernels.AddInt8(x, words[1:], scale)
}
