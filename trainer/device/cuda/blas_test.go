package cuda

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
)

// What is asked of the library is the product that was asked for.
func TestLibrary(t *testing.T) {
	e := emulator(t)
	e.blas = "cublas-120901"
	var gpu device.Device = newDevice(e, nil)
	gpu, has, err := device.Choose(gpu, device.Products{Precision: device.BF16, AnyOrder: true})
	if err != nil || !has || gpu.Arithmetic() != "cuda-host-bf16-"+class+"-cublas-120901" {
		t.Fatalf("%v, %v, %v", gpu.Arithmetic(), has, err)
	}
	reference, err := cpu.NewFor("go")
	if err != nil {
		t.Fatal(err)
	}
	for _, halves := range []bool{false, true} {
		compareLibrary(t, reference, gpu, halves)
	}
}

// compareLibrary compares products, with outputs that are kept in float32 or in bf16.
func compareLibrary(t *testing.T, reference, gpu device.Device, halves bool) {
	var results [2]*bench
	for i, d := range []device.Device{reference, gpu} {
		s, err := d.NewStream()
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{TB: t, Stream: s, rng: rand.New(rand.NewPCG(1, 2)), coarse: true, halves: halves && d == gpu}
		for trans := device.NN; trans <= device.TN; trans++ {
			for j, g := range [][3]int{{1, 1, 1}, {7, 3, 5}, {4, 9, 130}} {
				m, n, k := g[0], g[1], g[2]
				p := device.MatMul{Trans: trans, M: m, N: n, K: k, A: b.outputs(m * k), B: b.random(k * n), C: b.output(m * n), Act: device.Activation(j % 2)}
				if trans == device.TN { // a gradient of weights
					p.C = b.room(m * n)
				}
				if j > 0 {
					p.Bias = b.random(n)
				}
				b.MatMul(p)
				b.keep(fmt.Sprint(trans, g), p.C)
			}
		}
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		results[i] = b
	}
	bound := 3e-6
	if halves {
		bound = bf16Bound
	}
	for i, name := range results[0].names {
		if err := differ(results[1].results[i], results[0].results[i], bound); err != nil {
			t.Errorf("outputs in bf16 %t: %s: %v", halves, name, err)
		}
	}
}

// Exact sums never use it: how many rows there are would change the bits.
func TestLibraryIsNotForExactSums(t *testing.T) {
	d, _, err := device.Choose(newDevice(&emulated{blas: "cublas-120901"}, nil), device.Products{Precision: device.TF32})
	if err != nil || d.(*Device).library || strings.Contains(d.Arithmetic(), "cublas") {
		t.Errorf("%s, %v", d.Arithmetic(), err)
	}
}

func TestFilesOfCuBLAS(t *testing.T) {
	names := func(driver int) (names []string) {
		for _, f := range blasFiles(driver, "") {
			if !strings.Contains(f, "/") {
				names = append(names, f)
			}
		}
		return names
	}
	for driver, want := range map[int][]string{
		12020: {"libcublas.so.12", "libcublas.so.11"},
		13000: {"libcublas.so.13", "libcublas.so.12", "libcublas.so.11"},
		15000: {"libcublas.so.13", "libcublas.so.12", "libcublas.so.11"},
		-1:    nil,
	} {
		if got := names(driver); !slices.Equal(got, want) {
			t.Errorf("driver %d: %v, want %v", driver, got, want)
		}
	}
	if got := blasFiles(12000, "/opt/libcublas.so.12"); !slices.Equal(got, []string{"/opt/libcublas.so.12"}) {
		t.Error(got)
	}
	if got := blasFiles(12000, "none"); len(got) != 0 {
		t.Error(got)
	}
}
