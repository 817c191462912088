package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/musterml/muster/collective"
	"github.com/musterml/muster/internal/optim"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
)

// addends are made-up gradients with a block of zeros in all of them, one of tiny numbers, one of huge ones, and two that are not finite in one of them.
func (b *bench) addends(parts, n, block int) (all [][]float32) {
	for p := range parts {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(b.rng.NormFloat64() * math.Exp2(-float64(b.rng.IntN(40))))
			switch i / block {
			case 1:
				x[i] = 0
			case 2:
				x[i] = math.Float32frombits(b.rng.Uint32() & 0x800fffff) // subnormal
			case 3:
				x[i] *= 1e37
			}
		}
		if p == parts/2 && n > 6*block {
			x[4*block+1], x[6*block-1] = float32(math.Inf(-1)), float32(math.NaN())
		}
		all = append(all, x)
	}
	return all
}

// Sums on the device are those of the ring, to the bit: exponents, sums and squares.
func TestSumsAreTheRings(t *testing.T) {
	reference, err := cpu.New()
	if err != nil {
		t.Fatal(err)
	}
	devices := []device.Device{reference}
	for _, d := range gpus(t) {
		devices = append(devices, d)
	}
	for _, c := range []struct{ parts, n, block int }{{1, 1, 1}, {1, 1000, 64}, {3, 999, 33}, {8, 5000, 512}, {20, 3001, 256}} {
		for _, d := range devices {
			t.Run(fmt.Sprintf("%+v on %s", c, d.Name()), func(t *testing.T) { sumAs(t, d, c.parts, c.n, c.block) })
		}
	}
}

func sumAs(t *testing.T, d device.Device, parts, n, block int) {
	s, err := d.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := &bench{TB: t, Stream: s, rng: rand.New(rand.NewPCG(1, 2))}
	x := b.addends(parts, n, block)
	ring := collective.Exact{BlockSize: block, Shards: parts}
	exps := slices.Repeat([]int32{collective.ZeroBlock}, ring.Blocks(n))
	for _, part := range x {
		ring.Exponents(exps, part)
	}
	want := make([]float32, n)
	(&collective.ExactSum{Exact: ring, Exps: exps, Parts: x}).Alone(want)

	var on []device.Buffer
	for _, part := range x {
		on = append(on, b.floats(part))
	}
	out := func(n int) (device.Buffer, []float32) { // as they are: they are words, not numbers
		p, err := s.Port(device.Float32, n)
		if err != nil {
			t.Fatal(err)
		}
		host := make([]float32, n)
		s.Bind(p, host, device.Out)
		return device.Whole(p), host
	}
	largest, magnitudes := out(len(exps))
	sum, added := out(n)
	squares, words := out(2 * len(exps))
	b.Magnitudes(device.Magnitudes{N: n, Block: block, Parts: on, Y: largest})
	agreed := b.int32s(exps)
	b.ExactSum(device.ExactSum{N: n, Block: block, Width: ring.Width(), Parts: on, Exponents: agreed, Y: on[0]})
	b.Scale(sum, on[0], n, 1)
	b.Squares(device.Squares{N: n, Block: block, X: on[0], Y: squares})
	for _, port := range []device.Buffer{largest, sum, squares} {
		b.Flush(port)
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	found := slices.Repeat([]int32{collective.ZeroBlock}, len(exps))
	collective.Exact{BlockSize: 1, Shards: 1}.Exponents(found, magnitudes)
	if !slices.Equal(found, exps) {
		t.Errorf("exponents %v, want %v", found, exps)
	}
	for i, v := range added {
		if math.Float32bits(v) != math.Float32bits(want[i]) {
			t.Fatalf("element %d is %x, want %x", i, math.Float32bits(v), math.Float32bits(want[i]))
		}
	}
	for i := range exps {
		got := math.Float64frombits(uint64(math.Float32bits(words[2*i])) | uint64(math.Float32bits(words[2*i+1]))<<32)
		if sum := optim.SumSquares(want[i*block : min((i+1)*block, n)]); got != sum && !(math.IsNaN(got) && math.IsNaN(sum)) {
			t.Errorf("squares of block %d come to %v, want %v", i, got, sum)
		}
	}
}

// A sum that is made in several memories, of several streams, is the same to the bit.
func TestSumsInSeveralMemories(t *testing.T) {
	const parts, n, block = 21, 5000, 512
	for _, d := range gpus(t) {
		var benches []*bench
		for range 2 {
			s, err := d.NewStream()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			benches = append(benches, &bench{TB: t, Stream: s, rng: rand.New(rand.NewPCG(1, 2))})
		}
		x := benches[0].addends(parts, n, block)
		ring := collective.Exact{BlockSize: block, Shards: parts}
		exps := slices.Repeat([]int32{collective.ZeroBlock}, ring.Blocks(n))
		for _, part := range x {
			ring.Exponents(exps, part)
		}
		want := make([]float32, n)
		(&collective.ExactSum{Exact: ring, Exps: exps, Parts: x}).Alone(want)

		var words []device.Buffer // one memory for all of the first's, and ten of the second's: more than a launch adds
		for i, of := range [][][]float32{x[:10], x[10:11], x[11:12], x[12:13], x[13:14], x[14:15], x[15:16], x[16:17], x[17:18], x[18:19], x[19:]} {
			b := benches[min(i, 1)]
			var on []device.Buffer
			for _, part := range of {
				on = append(on, b.floats(part))
			}
			b.ExactSum(device.ExactSum{N: n, Block: block, Width: ring.Width(), Parts: on, Exponents: b.int32s(exps), Y: on[0], Open: true})
			words = append(words, on[0])
		}
		b := benches[0]
		for i, other := range words[1:] {
			words[1+i] = b.room(n)
			b.Fetch(words[1+i], benches[1].Stream, other)
		}
		b.ExactSum(device.ExactSum{N: n, Block: block, Width: ring.Width(), Words: words, Exponents: b.int32s(exps), Y: words[0]})
		back := benches[1].room(n)
		benches[1].Fetch(back, b.Stream, words[0])
		for i, r := range []device.Buffer{words[0], back} {
			benches[i].keep("sum", r)
			if err := benches[i].Sync(); err != nil {
				t.Fatal(err)
			}
			for j, v := range *benches[i].results[0].(*[]float32) {
				if math.Float32bits(v) != math.Float32bits(want[j]) {
					t.Fatalf("%s: element %d is %x, want %x", d.Name(), j, math.Float32bits(v), math.Float32bits(want[j]))
				}
			}
		}
	}
}
