package table

import "github.com/musterml/muster/internal/huge"

// index finds places of keys by their hashes: open addressing with linear probing (Knuth, The Art of Computer Programming,
// volume 3, 6.4, algorithms L and R). An entry is the low half of a hash and a place, so that a search looks at one line of memory
// and, but for one in thousands, at no key but the right one; 0 is no entry.
type index struct {
	entries []uint64 // a power of two of them, at most half in use
	n       int
}

func newIndex() index { return index{entries: make([]uint64, 64)} }

// at is the entry that a search for a hash looks at i-th.
func (x *index) at(hash, i uint64) uint64 { return x.entries[(hash+i)&uint64(len(x.entries)-1)] }

// candidate goes on with a search that is at its i-th entry e to the first that may be of the hash; 0 if there is none.
func (x *index) candidate(hash, i, e uint64) (place uint32, at uint64) {
	for e != 0 && uint32(e>>32) != uint32(hash) {
		i++
		e = x.at(hash, i)
	}
	return uint32(e), i
}

// add enters the place of a key that has none.
func (x *index) add(hash uint64, place uint32) {
	if 2*(x.n+1) > len(x.entries) {
		old := x.entries
		x.entries = huge.Make[uint64](2 * len(old))
		for _, e := range old {
			if e != 0 {
				x.put(e)
			}
		}
	}
	x.put(hash<<32 | uint64(place))
	x.n++
}

func (x *index) put(e uint64) {
	mask := uint64(len(x.entries) - 1)
	i := e >> 32 & mask
	for x.entries[i] != 0 {
		i = (i + 1) & mask
	}
	x.entries[i] = e
}

// remove takes out what was added. What a search for another key would have passed over it to find moves up.
func (x *index) remove(hash uint64, place uint32) {
	mask := uint64(len(x.entries) - 1)
	gap := hash & mask
	for uint32(x.entries[gap]) != place {
		gap = (gap + 1) & mask
	}
	for i := (gap + 1) & mask; x.entries[i] != 0; i = (i + 1) & mask {
		if home := x.entries[i] >> 32 & mask; (i-home)&mask >= (i-gap)&mask {
			x.entries[gap], gap = x.entries[i], i
		}
	}
	x.entries[gap] = 0
	x.n--
}

func (x *index) bytes() int64 { return 8 * int64(len(x.entries)) }
