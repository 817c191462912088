package data

import "cmp"

// split decides which rows of a file are held out, where there is no file of them: each by a
// hash of the seed and of its number, so they are spread over the file whatever its order.
type split struct {
	seed  uint64
	share float64 // of rows held out; 0: none
}

// defaultHeldOut is the share of rows that is held out where the job does not say.
const defaultHeldOut = 0.2

// splitOf is the split of the files under Source.Path.
func splitOf(s Source) split {
	if s.TestPath != "" {
		return split{}
	}
	return split{seed: s.Seed, share: cmp.Or(s.HeldOut, defaultHeldOut)}
}

// holdsOut tells of a row, numbered from 0 over all files, whether it is held out.
func (s split) holdsOut(row int) bool {
	return float64(key(s.seed, uint64(row))>>11) < s.share*(1<<53)
}
