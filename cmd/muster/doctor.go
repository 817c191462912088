package main

import (
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
		Args:  cobra.NoArgs,
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
	MatMul     float64       `json:"matmul_gflops,omitempty"`      // float32, 1024 x 1024 x 1024, one stream
	Peak       float64       `json:"matmul_peak_gflops,omitempty"` // what the processors and the clock allow, 0 where not known
	HostToIt   float64       `json:"host_to_device_gb_per_s,omitempty"`
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
		if f.Problem == "" && f.Peak > 0 && f.MatMul < 0.2*f.Peak {
			f.Problem = fmt.Sprintf("it multiplies at %.0f%% of what its clock allows", 100*f.MatMul/f.Peak)
			f.Remedy = "see nvidia-smi for other work on the card, its temperature and its power limit"
		}
		all = append(all, f)
	}
}

const trySize = 1024

// try multiplies matrices whose product is known, and copies.
func (f *finding) try(d device.Device) {
	f.Arithmetic = d.Arithmetic()
	s, err := d.NewStream()
	if err == nil {
		err = f.measure(s)
		if e := s.Close(); err == nil {
			err = e
		}
	}
	if err != nil {
		f.Problem, f.Remedy = err.Error(), "run it again; if it stays, the device is not fit for training: use --device cpu"
	}
}

func (f *finding) measure(s device.Stream) error {
	const n = trySize
	in, err := s.Port(device.Float32, n*n)
	if err != nil {
		return err
	}
	out, err := s.Port(device.Float32, n*n)
	if err != nil {
		return err
	}
	a, err := s.Alloc(device.Float32, n*n)
	if err != nil {
		return err
	}
	c, err := s.Alloc(device.Float32, n*n)
	if err != nil {
		return err
	}
	host, got := make([]float32, n*n), make([]float32, n*n)
	for i := range host {
		host[i] = float32(i%7) - 3 // small integers: products and sums are exact in any order
	}
	began := time.Now()
	s.Bind(in, host, device.In)
	s.Scale(device.Whole(a), device.Whole(in), n*n, 1)
	if err := s.Sync(); err != nil {
		return err
	}
	f.HostToIt = 4 * n * n / time.Since(began).Seconds() / 1e9
	p := device.MatMul{M: n, N: n, K: n, A: device.Whole(a), B: device.Whole(a), C: device.Whole(c)}
	for times := 1; ; times *= 2 {
		began := time.Now()
		for range times {
			s.MatMul(p)
		}
		if err := s.Sync(); err != nil {
			return err
		}
		if took := time.Since(began); took > 200*time.Millisecond {
			f.MatMul = 2 * n * n * n * float64(times) / took.Seconds() / 1e9
			break
		}
	}
	s.Bind(out, got, device.Out)
	s.Scale(device.Whole(out), device.Whole(c), n*n, 1)
	s.Flush(device.Whole(out))
	if err := s.Sync(); err != nil {
		return err
	}
	for _, at := range []int{0, 1, n*n/2 + 17, n*n - 1} {
		want := 0.0
		for k := range n {
			want += float64(host[at/n*n+k]) * float64(host[k*n+at%n])
		}
		if math.Abs(float64(got[at])-want) > 0 {
			return fmt.Errorf("it computes wrongly: element %d of a product is %v, not %v", at, got[at], want)
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
			fmt.Fprintf(w, "  product     %.0f GFLOP/s in float32", f.MatMul)
			if f.Peak > 0 {
				fmt.Fprintf(w, ", %.0f%% of what its clock allows", 100*f.MatMul/f.Peak)
			}
			fmt.Fprintf(w, "\n  copy        %.1f GB/s from the host\n  arithmetic  %s: nodes that say the same give the same bits\n", f.HostToIt, f.Arithmetic)
		}
		if f.Problem != "" {
			fmt.Fprintf(w, "  problem     %s\n  remedy      %s\n", f.Problem, f.Remedy)
		}
	}
	return nil
}
