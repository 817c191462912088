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

// philox is the four words that come out for one counter.
func philox(c [4]uint32, k0, k1 uint32) [4]uint32 {
	for range philoxRounds {
		h0, l0 := bits.Mul32(philoxM0, c[0])
		h1, l1 := bits.Mul32(philoxM1, c[2])
		c = [4]uint32{h1 ^ c[1] ^ k0, l1, h0 ^ c[3] ^ k1, l0}
		k0, k1 = k0+philoxW0, k1+philoxW1
	}
	return c
}

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
	limit := uint64(math.RoundToEven(float64(p.P) * (1 << 32))) // exact but for the rounding
	scale := 1 / (1 - p.P)
	k, c := p.Key, [4]uint32{1: uint32(p.Key.Layer)<<16 | uint32(p.Key.Shard), 2: uint32(p.Key.Step), 3: uint32(p.Key.Step >> 32)}
	for i := 0; i < p.N; i += dropoutBlock {
		block := min(dropoutBlock, p.N-i)
		for l := range min(dropoutLanes, block) {
			c[0] = uint32(i/4 + l)
			for w, r := range philox(c, uint32(k.Seed), uint32(k.Seed>>32)) {
				if j := w*dropoutLanes + l; j < block {
					y[i+j] = drop(x[i+j], uint64(r) < limit, scale)
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
