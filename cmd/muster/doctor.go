package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
	"github.com/musterml/muster/trainer/device/cuda"
)

func doctorCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine computes with, try it, and what is missing",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			findings := []finding{examineCPU()}
			findings = append(findings, examineGPUs()...)
			return tell(c.OutOrStdout(), findings, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "for machines: one JSON object a line")
	return c
}

// finding is a device, and how it does.
type finding struct {
	Device     string        `json:"device"`
	Details    *cuda.Details `json:"details,omitempty"`
	MatMul     float64       `json:"matmul_gflops,omitempty"`      // float32, one stream
	MatMulSize int           `json:"matmul_size,omitempty"`        // of its matrices, which are square
	Peak       float64       `json:"matmul_peak_gflops,omitempty"` // what the processors and the clock allow, 0 where not known
	HostToIt   float64       `json:"host_to_device_gb_per_s,omitempty"`
	ItToHost   float64       `json:"device_to_host_gb_per_s,omitempty"`
	Arithmetic string        `json:"arithmetic,omitempty"`
	Problem    string        `json:"problem,omitempty"`
	Remedy     string        `json:"remedy,omitempty"`
}

func examineCPU() finding {
	d, err := cpu.New()
	if err != nil {
		return finding{Device: "cpu", Problem: err.Error(), Remedy: "unset " + cpu.Variable}
	}
	f := finding{Device: d.Name()}
	f.try(d)
	return f
}

func examineGPUs() (all []finding) {
	for i := 0; ; i++ {
		d, err := cuda.Open(i, nil)
		if err != nil {
			if i > 0 {
				return all
			}
			f := finding{Device: "cuda", Problem: err.Error()}
			switch {
			case !cuda.Built:
				f.Remedy = "to compute on NVIDIA GPUs, use a binary made with: make build-cuda"
			default:
				f.Remedy = "nvidia-smi must list the card: install NVIDIA's driver (525 or newer; 575 or newer for cards other than sm_80, sm_86, sm_89 and sm_90), and let this user, or this container, reach /dev/nvidia*"
			}
			return append(all, f)
		}
		details := d.Details()
		f := finding{Device: d.Name(), Details: &details, Peak: details.PeakGFLOPS()}
		f.try(d)
		switch {
		case f.Problem != "" || f.Peak == 0:
		case f.MatMul < 0.2*f.Peak:
			f.Problem = fmt.Sprintf("it multiplies at %.0f%% of what its clock allows", 100*f.MatMul/f.Peak)
			f.Remedy = "see nvidia-smi for other work on the card, its temperature and its power limit"
		case min(f.HostToIt, f.ItToHost) < slowCopy:
			f.Problem = fmt.Sprintf("it copies at %.1f GB/s from the host and %.1f GB/s to it", f.HostToIt, f.ItToHost)
			f.Remedy = "nvidia-smi -q says at which PCIe generation and width the card runs: see that it sits in a slot of 16 lanes, and on the processor that computes"
		}
		all = append(all, f)
	}
}

// slowCopy is, in GB/s, what 16 lanes of PCIe 3 exceed by far.
const slowCopy = 6

// The sizes of matrices that are tried: larger ones fill larger processors, until a product takes long enough.
const (
	smallestTry = 512
	largestTry  = 4096
	longEnough  = 10 * time.Millisecond
)

// try multiplies matrices whose product is known, and copies them.
func (f *finding) try(d device.Device) {
	f.Arithmetic = d.Arithmetic()
	var product time.Duration
	for n := smallestTry; n <= largestTry && product < longEnough && f.Problem == ""; n *= 2 {
		t := trial{n: n, host: make([]float32, n*n), got: make([]float32, n*n)}
		unlocks := []func(){device.Lock(d, t.host), device.Lock(d, t.got)}
		s, err := d.NewStream()
		if err == nil {
			if err = t.allocate(s); err == nil {
				err = f.measure(s, &t)
			}
			err = cmp.Or(err, s.Close())
		}
		for _, unlock := range unlocks {
			unlock()
		}
		if product = t.product; err != nil {
			f.Problem, f.Remedy = err.Error(), "run it again; if it stays, the device is not fit for training: use --device cpu"
		}
	}
}

// trial is what one size needs, and how long its product takes.
type trial struct {
	n         int
	host, got []float32
	in, out   device.Memory // ports
	a, c      device.Memory
	product   time.Duration
}

func (t *trial) allocate(s device.Stream) (err error) {
	for _, p := range []*device.Memory{&t.in, &t.out} {
		if *p, err = s.Port(device.Float32, t.n*t.n); err != nil {
			return err
		}
	}
	for _, p := range []*device.Memory{&t.a, &t.c} {
		if *p, err = s.Alloc(device.Float32, t.n*t.n); err != nil {
			return err
		}
	}
	return nil
}

func (f *finding) measure(s device.Stream, t *trial) error {
	n := t.n
	for i := range t.host {
		t.host[i] = float32(i%7) - 3 // small integers: products and sums are exact in any order
	}
	bytes := float64(4 * n * n)
	for range 2 { // the first time something may have to be made
		began := time.Now()
		s.Bind(t.in, t.host, device.In)
		s.Scale(device.Whole(t.a), device.Whole(t.in), n*n, 1)
		if err := s.Sync(); err != nil {
			return err
		}
		f.HostToIt = bytes / time.Since(began).Seconds() / 1e9
	}
	p := device.MatMul{M: n, N: n, K: n, A: device.Whole(t.a), B: device.Whole(t.a), C: device.Whole(t.c)}
	for times := 1; ; times *= 2 {
		began := time.Now()
		for range times {
			s.MatMul(p)
		}
		if err := s.Sync(); err != nil {
			return err
		}
		if took := time.Since(began); took > 200*time.Millisecond {
			t.product, f.MatMulSize = took/time.Duration(times), n
			f.MatMul = 2 * float64(n) * float64(n) * float64(n) * float64(times) / took.Seconds() / 1e9
			break
		}
	}
	for range 2 {
		s.Bind(t.out, t.got, device.Out)
		s.Scale(device.Whole(t.out), device.Whole(t.c), n*n, 1)
		began := time.Now()
		s.Flush(device.Whole(t.out))
		if err := s.Sync(); err != nil {
			return err
		}
		f.ItToHost = bytes / time.Since(began).Seconds() / 1e9
	}
	for _, at := range []int{0, 1, n*n/2 + 17, n*n - 1} {
		want := 0.0
		for k := range n {
			want += float64(t.host[at/n*n+k]) * float64(t.host[k*n+at%n])
		}
		if math.Abs(float64(t.got[at])-want) > 0 {
			return fmt.Errorf("it computes wrongly: element %d of a product is %v, not %v", at, t.got[at], want)
		}
	}
	return nil
}

func tell(w io.Writer, findings []finding, asJSON bool) error {
	for _, f := range findings {
		if asJSON {
			if err := json.NewEncoder(w).Encode(f); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintln(w, f.Device)
		if d := f.Details; d != nil {
			fmt.Fprintf(w, "  card        %s, %d processors, %d MHz, %.1f of %.1f GiB free\n", d.Architecture, d.Processors, d.ClockMHz,
				float64(d.Free)/(1<<30), float64(d.Memory)/(1<<30))
			fmt.Fprintf(w, "  driver      CUDA %d.%d; kernels taken from %s\n", d.Driver/1000, d.Driver%1000/10, d.Object)
			fmt.Fprintf(w, "  cuBLAS      %s\n", strings.ReplaceAll(d.Library, "\n", "; "))
		}
		if f.MatMul > 0 {
			fmt.Fprintf(w, "  product     %.0f GFLOP/s in float32, of %d x %d", f.MatMul, f.MatMulSize, f.MatMulSize)
			if f.Peak > 0 {
				fmt.Fprintf(w, ", %.0f%% of what its clock allows", 100*f.MatMul/f.Peak)
			}
			if d := f.Details; d != nil {
				fmt.Fprintf(w, "\n  copy        %.1f GB/s from the host, %.1f GB/s to it", f.HostToIt, f.ItToHost)
			}
			fmt.Fprintf(w, "\n  arithmetic  %s: nodes that say the same give the same bits\n", f.Arithmetic)
		}
		if f.Problem != "" {
			fmt.Fprintf(w, "  problem     %s\n  remedy      %s\n", f.Problem, f.Remedy)
		}
	}
	return nil
}
