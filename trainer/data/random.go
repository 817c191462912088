package data

import "math/bits"

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable
// pseudorandom number generators", OOPSLA 2014): a bijection of 64 bits in which
// every input bit reaches every output bit. All randomness of this package goes
// through it, so it is integer arithmetic only and the same on every machine.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// golden is 2^64 divided by the golden ratio, the increment of SplitMix64.
const golden = 0x9e3779b97f4a7c15

// key hashes a few numbers into one, their order being significant.
func key(words ...uint64) uint64 {
	k := uint64(0)
	for _, w := range words {
		k = mix(k + golden ^ mix(w+golden))
	}
	return k
}

// random is a SplitMix64 stream.
type random uint64

func (r *random) next() uint64 {
	*r += golden
	return mix(uint64(*r))
}

// below is uniform in [0, n), n > 0. The bias of the multiplication is below n/2^64.
func (r *random) below(n int64) int64 {
	hi, _ := bits.Mul64(r.next(), uint64(n))
	return int64(hi)
}

// span is uniform in [lo, hi].
func (r *random) span(lo, hi int64) int64 { return lo + r.below(hi-lo+1) }

// bell is in [-amp, amp], bell-shaped round 0: the mean of three uniform numbers.
func (r *random) bell(amp int64) int64 {
	return (r.span(-amp, amp) + r.span(-amp, amp) + r.span(-amp, amp)) / 3
}

// chance is true percent times out of a hundred.
func (r *random) chance(percent int64) bool { return r.below(100) < percent }
