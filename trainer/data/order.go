package data

import "math/bits"

// Permutation orders the n samples of a data set anew in every pass, without ever
// holding the order: a keyed Feistel network is a permutation of a power of two of
// numbers, and walking its cycle until a number below n comes up makes it a permutation of
// [0, n) (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002,
// section 3). A shuffled list would need 8n bytes and a pass over them at the start of
// every pass, and a trainer that joins in the middle would have to make it first.
type Permutation struct {
	seed uint64
	n    int

	// The network works on numbers of left+right bits; the halves differ by one bit at most,
	// so the power of two is below 2n (or 2^minBits) and a walk takes two steps on average.
	left, right uint
}

const (
	rounds = 8
	// minBits widens the network for small n, where few bits would permit few orders.
	minBits = 6
)

// Order gives the permutations of n samples under a seed. n is at least 1.
func Order(seed uint64, n int) Permutation {
	w := uint(max(bits.Len64(uint64(n-1)), minBits))
	return Permutation{seed: seed, n: n, left: w / 2, right: w - w/2}
}

// Len is the number of samples in a pass.
func (p Permutation) Len() int { return p.n }

// At is the index of the sample at a position, in [0, n), of a pass.
func (p Permutation) At(pass uint64, position int) int {
	if p.n == 1 {
		return 0
	}
	k := key(p.seed, pass)
	maskL, maskR := uint64(1)<<p.left-1, uint64(1)<<p.right-1
	x := uint64(position)
	for {
		l, r := x>>p.right, x&maskR
		for i := uint64(0); i < rounds; i += 2 {
			l ^= mix(k+i*golden+r) & maskL
			r ^= mix(k+(i+1)*golden+l) & maskR
		}
		x = l<<p.right | r
		if x < uint64(p.n) {
			return int(x)
		}
	}
}
