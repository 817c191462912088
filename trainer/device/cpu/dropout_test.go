package cpu

import (
	"fmt"
	"math"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

// TestPhilox has the known answers of Random123 (kat_vectors, philox4x32 10).
func TestPhilox(t *testing.T) {
	for _, c := range []struct {
		counter [4]uint32
		k0, k1  uint32
		want    [4]uint32
	}{
		{want: [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{
			[4]uint32{math.MaxUint32, math.MaxUint32, math.MaxUint32, math.MaxUint32}, math.MaxUint32, math.MaxUint32,
			[4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
		},
		{
			[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0,
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
		},
	} {
		var d dropout
		d.set(device.DropoutKey{Seed: uint64(c.k1)<<32 | uint64(c.k0)})
		if got := d.philox(c.counter); got != c.want {
			t.Errorf("philox(%x) is %x, want %x", c.counter, got, c.want)
		}
	}
}

// TestDropout: each element is decided as device.Dropout says, on its own, and backward as forward.
func TestDropout(t *testing.T) {
	key := device.DropoutKey{Seed: 0x123456789abcdef, Step: 1 << 33, Shard: 5, Layer: 3}
	var d dropout
	d.set(device.DropoutKey{Seed: key.Seed})
	eachSet(t, func(b *bench) (all []float32) {
		for _, n := range append([]int{64, 65, 80}, allSizes...) {
			xv, x := b.random(n)
			y := b.room(n)
			p := device.Dropout{N: n, Y: y, X: x, P: 0.3, Key: key}
			b.s.Dropout(p)
			want := make([]float64, n)
			for i, v := range xv {
				words := d.philox([4]uint32{uint32(i/64*16 + i%16), 3<<16 + 5, 0, 2})
				if float64(words[i/16%4]) >= 0.3*(1<<32) {
					want[i] = float64(v) / 0.7
				}
			}
			b.near(fmt.Sprint(n, " elements"), b.result(y), want, 1)
			p.Y = x
			b.s.Dropout(p)
			sameBits(t, "in place", b.result(x), b.result(y))
			all = append(all, b.result(y)...)
		}
		return all
	})
}

// TestDropoutRate: the share of what is dropped is P, the mean stays, and another key drops others.
func TestDropoutRate(t *testing.T) {
	b := newBench(t, "")
	const n = 100000
	ones := make([]float32, n)
	for i := range ones {
		ones[i] = 1
	}
	x := b.buffer(ones)
	seen := map[string]device.DropoutKey{}
	for _, key := range []device.DropoutKey{{}, {Seed: 1}, {Seed: 1 << 32}, {Step: 1}, {Step: 1 << 32}, {Shard: 1}, {Layer: 1}} {
		for _, p := range []float32{0, 0.1, 0.5, 0.99} {
			y := b.room(n)
			b.s.Dropout(device.Dropout{N: n, Y: y, X: x, P: p, Key: key})
			dropped := 0
			for _, v := range b.result(y) {
				if v == 0 {
					dropped++
				} else if v != 1/(1-p) {
					t.Fatalf("P %v: 1 becomes %v", p, v)
				}
			}
			deviation := math.Sqrt(n * float64(p) * float64(1-p))
			if math.Abs(float64(dropped)-n*float64(p)) > 5*deviation {
				t.Errorf("P %v, key %+v: %d of %d are dropped", p, key, dropped, n)
			}
			if p == 0.5 {
				pattern := fmt.Sprint(b.result(y)[:200])
				if other, ok := seen[pattern]; ok {
					t.Errorf("keys %+v and %+v drop the same", key, other)
				}
				seen[pattern] = key
			}
		}
	}
	for _, p := range []float32{-0.1, 1, float32(math.NaN())} {
		b.s.Dropout(device.Dropout{N: 1, Y: x, X: x, P: p})
		if err := b.s.Sync(); err == nil {
			t.Errorf("probability %v was taken", p)
		}
	}
}
