package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
)

// bench gives one stream made-up operands, the same to every stream, and keeps what comes out.
type bench struct {
	testing.TB
	device.Stream
	rng     *rand.Rand
	coarse  bool // random numbers are whole in every precision
	halves  bool // outputs are kept in bf16
	names   []string
	results []any // *[]float32, *device.Total, *float64, *bool
}

func (b *bench) alloc(k device.Kind, n int) device.Buffer {
	m, err := b.Alloc(k, n)
	if err != nil {
		b.Fatal(err)
	}
	return device.Whole(m)
}

func (b *bench) room(n int) device.Buffer { return b.alloc(device.Float32, n) }

func (b *bench) floats(v []float32) device.Buffer {
	p, err := b.Port(device.Float32, len(v))
	if err != nil {
		b.Fatal(err)
	}
	b.Bind(p, v, device.In)
	m := b.room(len(v))
	b.Scale(m, device.Whole(p), len(v), 1)
	return m
}

func (b *bench) random(n int) device.Buffer {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(b.rng.NormFloat64())
		if b.coarse {
			v[i] = math.Float32frombits(math.Float32bits(v[i]) &^ 0xffff)
		}
	}
	return b.floats(v)
}

func (b *bench) positive(n int) device.Buffer {
	v := make([]float32, n)
	for i := range v {
		v[i] = b.rng.Float32() + 0.1
	}
	return b.floats(v)
}

// ints are numbers below limit; they stay bound until the end.
func (b *bench) ints(n, limit int) device.Buffer {
	v := make([]int32, n)
	for i := range v {
		v[i] = int32(b.rng.IntN(limit))
	}
	return b.int32s(v)
}

func (b *bench) int32s(v []int32) device.Buffer {
	p, err := b.Port(device.Int32, len(v))
	if err != nil {
		b.Fatal(err)
	}
	b.BindInt32(p, v)
	return device.Whole(p)
}

// keep takes the contents of a memory at the end.
func (b *bench) keep(name string, m device.Buffer) {
	p, err := b.Port(device.Float32, m.Len)
	if err != nil {
		b.Fatal(err)
	}
	host := make([]float32, m.Len)
	b.Bind(p, host, device.Out)
	b.Scale(device.Whole(p), m, m.Len, 1)
	b.Flush(device.Whole(p))
	b.names, b.results = append(b.names, name), append(b.results, &host)
}

func (b *bench) total() *device.Total {
	t := new(device.Total)
	b.names, b.results = append(b.names, "total"), append(b.results, t)
	return t
}

func (b *bench) ok() *bool {
	v := new(bool)
	b.names, b.results = append(b.names, "ok"), append(b.results, v)
	return v
}

// gpuOnly is the environment's variable with which this machine's GPU runs the tests, and the emulator none.
const gpuOnly = "MUSTER_GPU_ONLY"

// theGPU is this machine's, opened once.
var theGPU = sync.OnceValues(func() (*Device, error) { return Open(0, nil) })

// gpus are the emulator, and the GPU of this machine where the binary can reach one.
func gpus(t testing.TB) []*Device {
	var all []*Device
	only := os.Getenv(gpuOnly) != ""
	if !only {
		all = append(all, newDevice(emulator(t), nil))
	}
	switch d, err := theGPU(); {
	case err == nil:
		own := *d // tests choose its precision
		all = append(all, &own)
	case only:
		t.Fatal(err)
	default:
		t.Logf("on no GPU: %v", err)
	}
	return all
}

// same runs f on the CPU and on every GPU, and compares all that it keeps. tolerance is relative to the largest magnitude of
// a result; 0 means the same bits.
func same(t *testing.T, tolerance float64, f func(b *bench)) {
	t.Helper()
	sameIn(t, device.FP32, tolerance, f)
}

// sameIn is same with products in a precision, of numbers that have no more bits than any precision keeps: so they are as exact as in float32.
func sameIn(t *testing.T, precision device.Precision, tolerance float64, f func(b *bench)) {
	t.Helper()
	run := func(d device.Device) *bench {
		s, err := d.NewStream()
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{TB: t, Stream: s, rng: rand.New(rand.NewPCG(1, 2)), coarse: precision != device.FP32, halves: device.Outputs(d) == device.BFloat16}
		f(b)
		if err := s.Sync(); err != nil {
			t.Fatalf("%s: %v", d.Name(), err)
		}
		if err := s.Close(); err != nil {
			t.Fatalf("%s: %v", d.Name(), err)
		}
		return b
	}
	reference, err := cpu.NewFor("go")
	if err != nil {
		t.Fatal(err)
	}
	want := run(reference)
	for _, d := range gpus(t) {
		d.precision = precision
		got := run(d)
		for i, name := range want.names {
			if err := differ(got.results[i], want.results[i], tolerance); err != nil {
				t.Errorf("%s: %s: %v", d.Name(), name, err)
			}
		}
	}
}

func differ(got, want any, tolerance float64) error {
	switch w := want.(type) {
	case *[]float32:
		largest := 0.0
		for _, v := range *w {
			largest = max(largest, math.Abs(float64(v)))
		}
		for i, v := range *w {
			g := (*got.(*[]float32))[i]
			if d := math.Abs(float64(g) - float64(v)); !(d <= tolerance*largest) && !(math.IsNaN(float64(g)) && math.IsNaN(float64(v))) {
				return fmt.Errorf("element %d of %d is %v, want %v (off by %.2g of the largest)", i, len(*w), g, v, d/largest)
			}
		}
	case *device.Total:
		g := got.(*device.Total)
		if g.Correct != w.Correct || math.Abs(g.Loss-w.Loss) > 1e-5*math.Abs(w.Loss) {
			return fmt.Errorf("%+v, want %+v", *g, *w)
		}
	case *float64:
		if g := *got.(*float64); g != *w {
			return fmt.Errorf("%v, want the same bits as %v", g, *w)
		}
	case *bool:
		if g := *got.(*bool); g != *w {
			return fmt.Errorf("%v, want %v", g, *w)
		}
	}
	return nil
}

// eachPrecision runs sameIn in all of them, with the bounds of products.
func eachPrecision(t *testing.T, name string, f func(b *bench)) {
	for _, precision := range device.Precisions() {
		t.Run(name+"/"+string(precision), func(t *testing.T) { sameIn(t, precision, productBounds[precision], f) })
	}
}
