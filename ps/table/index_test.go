package table

import (
	"math/rand/v2"
	"testing"
)

// Entries that crowd, are the same in half of their hashes, come and go: a search finds what a map has, and only that.
func TestIndexAgainstMap(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	x, want := newIndex(), map[uint64]uint32{}
	for i := range 20000 {
		h := uint64(r.IntN(200))*uint64(1+r.IntN(3)<<31) + 1<<16*uint64(r.IntN(3))
		if at, ok := want[h]; ok && r.IntN(3) > 0 {
			x.remove(h, at)
			delete(want, h)
		} else if !ok {
			want[h] = uint32(i + 1)
			x.add(h, want[h])
		}
		if i%100 > 0 {
			continue
		}
		if x.n != len(want) {
			t.Fatalf("%d entries, must be %d", x.n, len(want))
		}
		for h, at := range want {
			place, j := x.candidate(h, 0, x.at(h, 0))
			for place != 0 && place != at { // of another hash with the same half
				place, j = x.candidate(h, j+1, x.at(h, j+1))
			}
			if place != at {
				t.Fatalf("the place of %x is lost", h)
			}
		}
	}
}
