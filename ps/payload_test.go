package ps

import "testing"

// A log that fills and is cut again and again needs no new buffers, and what only a burst needed is given up.
func TestBuffersComeBack(t *testing.T) {
	p := newPayloads(1, 1000)
	use := func(n int) {
		var all []*payload
		for range n {
			all = append(all, p.get(poolGrain))
		}
		for _, x := range all {
			p.discard(x)
		}
	}
	const one = 4 * poolGrain
	use(10) // a burst
	if p.freeBytes != 10*one {
		t.Fatalf("%d bytes free after a burst, want %d", p.freeBytes, 10*one)
	}
	p.trim()
	if allocs := testing.AllocsPerRun(10, func() { p.discard(p.get(poolGrain)) }); allocs != 0 {
		t.Errorf("%v allocations for a buffer that is there", allocs)
	}
	use(4)
	p.trim()
	if p.freeBytes != 4*one {
		t.Errorf("%d bytes free after the trim, want the %d that were needed", p.freeBytes, 4*one)
	}
	use(4)
	p.trim()
	if p.freeBytes != 4*one {
		t.Errorf("%d bytes free, want the %d that are needed", p.freeBytes, 4*one)
	}
	p.trim()
	if p.freeBytes != 0 {
		t.Errorf("%d bytes free, and nobody needed any", p.freeBytes)
	}
}
