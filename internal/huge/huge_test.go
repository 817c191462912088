package huge

import "testing"

func TestLengths(t *testing.T) {
	for _, n := range []int{0, 1, least/4 - 1, least / 4, least/4 + 1, 3*page/4 + 5} {
		f, i := Float32s(n), Int32s(n)
		if len(f) != n || len(i) != n {
			t.Fatalf("%d elements: got %d and %d", n, len(f), len(i))
		}
		for k := range f {
			if f[k] != 0 || i[k] != 0 {
				t.Fatalf("element %d of %d is not 0", k, n)
			}
			f[k], i[k] = 1, 1
		}
	}
}
