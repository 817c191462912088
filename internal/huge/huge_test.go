package huge

import "testing"

func TestLengths(t *testing.T) {
	for _, n := range []int{0, 1, least/4 - 1, least / 4, least/4 + 1, 3*page/4 + 5} {
		f := Float32s(n)
		if len(f) != n {
			t.Fatalf("%d elements: got %d", n, len(f))
		}
		for k := range f {
			if f[k] != 0 {
				t.Fatalf("element %d of %d is not 0", k, n)
			}
			f[k] = 1
		}
	}
}
