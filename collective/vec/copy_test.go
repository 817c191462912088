package vec

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestShare(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	src := make([]byte, 16<<10)
	for i := range src {
		src[i] = byte(rng.Uint32())
	}
	for _, n := range []int{0, 1, 63, 64, 2047, 2048, 2049, 4096, 8191, 10000} {
		for range 5 {
			at, to := rng.IntN(100), rng.IntN(100)
			dst := make([]byte, 12<<10)
			want := make([]byte, len(dst))
			copy(want[to:to+n], src[at:])
			if k := Share(dst[to:to+n], src[at:]); k != n || !bytes.Equal(dst, want) {
				t.Fatalf("%d bytes from %d to %d: %d are said to be copied, and they are wrong, or others are", n, at, to, k)
			}
		}
	}
}
