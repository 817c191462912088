package cpu

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/musterml/muster/trainer/device"
)

// Constants of Philox4x32-10: multipliers, and what the key grows by each round.
const (
	philoxM0, philoxM1 = 0xD2511F53, 0xCD9E8D57
	philoxW0, philoxW1 = 0x9E3779B9, 0xBB67AE85
	philoxRounds       = 10
)

const (
	dropoutLanes = 16               // counters side by side
	dropoutBlock = 4 * dropoutLanes // elements that they serve
)

// Dropout implements device.Ops.
func (s *stream) Dropout(p device.Dropout) {
	const op = "dropout"
	if !s.sized(op, p.N) {
		return
	}
	if !(p.P >= 0 && p.P < 1) || p.N > 1<<34 {
		s.fail(fmt.Errorf("%s of %d elements with probability %v: it must be in [0, 1), and elements at most 2^34", op, p.N, p.P))
		return
	}
	y, x := s.floats(op, "Y", p.Y, p.N), s.floats(op, "X", p.X, p.N)
	if s.err != nil {
		return
	}
	d := &s.dropout
	d.set(p.Key)
	limit := uint32(math.RoundToEven(float64(p.P) * (1 << 32))) // P is at most 1 - 2**-24
	scale := 1 / (1 - p.P)
	quick := 0
	if s.k.dropout != nil && p.N >= dropoutBlock {
		quick = p.N / dropoutBlock * dropoutBlock
		s.k.dropout(&y[0], &x[0], quick, &d.counter, &d.keys, limit, scale)
	}
	d.rest(y, x, quick, limit, scale)
}

// dropout is a generator: the counter of the first element and the keys of all rounds.
type dropout struct {
	counter [4]uint32
	keys    [2 * philoxRounds]uint32
}

func (d *dropout) set(k device.DropoutKey) {
	d.counter = [4]uint32{1: uint32(k.Layer)<<16 | uint32(k.Shard), 2: uint32(k.Step), 3: uint32(k.Step >> 32)}
	k0, k1 := uint32(k.Seed), uint32(k.Seed>>32)
	for r := range philoxRounds {
		d.keys[2*r], d.keys[2*r+1] = k0, k1
		k0, k1 = k0+philoxW0, k1+philoxW1
	}
}

// rest does the elements from first on, which begins a block.
func (d *dropout) rest(y, x []float32, first int, limit uint32, scale float32) {
	for i := first; i < len(x); i += dropoutBlock {
		block := min(dropoutBlock, len(x)-i)
		for l := range min(dropoutLanes, block) {
			c := d.counter
			c[0] = uint32(i/4 + l)
			for w, r := range d.philox(c) {
				if j := w*dropoutLanes + l; j < block {
					y[i+j] = drop(x[i+j], r < limit, scale)
				}
			}
		}
	}
}

func drop(x float32, dropped bool, scale float32) float32 {
	if dropped {
		return 0
	}
	return x * scale
}

// philox is the four words that come out for a counter.
func (d *dropout) philox(c [4]uint32) [4]uint32 {
	for r := range philoxRounds {
		h0, l0 := bits.Mul32(philoxM0, c[0])
		h1, l1 := bits.Mul32(philoxM1, c[2])
		c = [4]uint32{h1 ^ c[1] ^ d.keys[2*r], l1, h0 ^ c[3] ^ d.keys[2*r+1], l0}
	}
	return c
}
