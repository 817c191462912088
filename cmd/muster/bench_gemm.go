package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
)

// benchGemm measures matrix products, beside another program that does the same (bench/gemm.sh): shape by shape in
// many short turns, so that whatever the machine does besides meets both. Of a shape it takes the median of the ratios of
// turns that follow each other.
type benchGemm struct {
	shapes string
	secs   float64
	beside string
	json   bool
}

func benchGemmCommand() *cobra.Command {
	var o benchGemm
	c := &cobra.Command{
		Use:   "gemm --shapes squares,layers",
		Short: "Measure matrix products on one processor",
		Long: `Measure matrix products C (M, N) = A B on one processor, in float32: NN as they lie, NT with
B transposed, TN with A transposed. With --beside, another program's in turns with ours (bench/gemm.sh
runs it so with OpenBLAS). A row shows medians over all turns, and that of the ratios of two turns that
follow each other; the last one the ratios' geometric mean, the least, and how many are 0.85 and above.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			shapes, err := o.check()
			if err != nil {
				return err
			}
			return o.run(c.Context(), shapes, c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVar(&o.shapes, "shapes", "squares,layers", "what to multiply: squares, layers (those of mlp, lenet, resnet18 and gpt), odd, random=SEED, sizes like 1000, MxNxK, NT:MxNxK")
	f.Float64Var(&o.secs, "secs", 2, "time for each shape, in seconds; at least three turns are taken")
	f.StringVar(&o.beside, "beside", "", "a program to compare with: it says its name, then answers lines like \"NT M N K SECONDS\" with the nanoseconds of one product")
	f.BoolVar(&o.json, "json", false, "one JSON object a line")
	return c
}

func (o *benchGemm) check() ([]gemmShape, error) {
	shapes, err := parseShapes(o.shapes)
	if err != nil {
		err = fmt.Errorf("--shapes: %w", err)
	}
	if !(o.secs > 0 && o.secs < 3600) {
		err = errors.Join(err, fmt.Errorf("--secs is %v: use more than 0 and less than 3600 seconds", o.secs))
	}
	return shapes, err
}

// gemmRow is one line of the result.
type gemmRow struct {
	Prog      string  `json:"prog"`
	Device    string  `json:"device"`
	Name      string  `json:"name"`
	Form      string  `json:"form"`
	M         int     `json:"m"`
	N         int     `json:"n"`
	K         int     `json:"k"`
	GFlops    float64 `json:"gflops"`
	Peer      string  `json:"peer,omitempty"`
	PeerFlops float64 `json:"peer_gflops,omitempty"`
	Ratio     float64 `json:"ratio,omitempty"` // ours over the peer's
}

// gemmSummary is the last line.
type gemmSummary struct {
	Prog    string  `json:"prog"`
	Shapes  int     `json:"shapes"`
	Peer    string  `json:"peer"`
	Geomean float64 `json:"geomean"`
	Least   float64 `json:"least"`
	Near    int     `json:"near"` // shapes of a ratio of at least nearPeer
}

const nearPeer = 0.85

func (o *benchGemm) run(ctx context.Context, shapes []gemmShape, out io.Writer) (err error) {
	ours, err := newGemmTimer()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ours.stream.Close()) }()
	var peer *gemmPeer
	if o.beside != "" {
		if peer, err = startGemmPeer(ctx, o.beside); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, peer.close()) }()
	}
	if !o.json {
		o.head(out, ours.name, peer)
	}
	var ratios []float64
	for _, s := range shapes {
		row, err := o.measure(ctx, s, ours, peer)
		if err != nil {
			return fmt.Errorf("%v %dx%dx%d: %w", s.form, s.m, s.n, s.k, err)
		}
		ratios = append(ratios, row.Ratio)
		if !o.json {
			row.print(out)
		} else if err := json.NewEncoder(out).Encode(row); err != nil {
			return err
		}
	}
	if peer == nil {
		return nil
	}
	sum := gemmSummary{Prog: "muster-gemm-summary", Shapes: len(ratios), Peer: peer.name, Geomean: geomean(ratios), Least: slices.Min(ratios)}
	for _, r := range ratios {
		if r >= nearPeer {
			sum.Near++
		}
	}
	if o.json {
		return json.NewEncoder(out).Encode(sum)
	}
	_, err = fmt.Fprintf(out, "%d shapes: geometric mean of the ratios %.3f, least %.3f; %d (%.1f%%) at least %v\n",
		sum.Shapes, sum.Geomean, sum.Least, sum.Near, 100*float64(sum.Near)/float64(sum.Shapes), nearPeer)
	return err
}

// turnSecs is how long a turn lasts, or one product where that takes longer, besides as much before it to warm up:
// shorter than what disturbs a machine, long enough for Go's monitor to fall asleep, which wakes often at first.
const turnSecs = 0.004

// measure is one shape: ours and the peer's in turns, who begins in turns too.
func (o *benchGemm) measure(ctx context.Context, s gemmShape, ours *gemmTimer, peer *gemmPeer) (*gemmRow, error) {
	if err := ours.take(s); err != nil {
		return nil, err
	}
	var rates, theirs, ratios []float64
	for round, begin := 0, time.Now(); round < 3 || time.Since(begin).Seconds() < o.secs; round++ {
		for turn := range 2 {
			switch {
			case ctx.Err() != nil:
				return nil, ctx.Err()
			case (round+turn)%2 == 0:
				rates = append(rates, s.flops()/ours.time(turnSecs))
			case peer != nil:
				ns, err := peer.time(s, turnSecs)
				if err != nil {
					return nil, err
				}
				theirs = append(theirs, s.flops()/ns)
			}
		}
	}
	row := &gemmRow{Prog: "muster-gemm", Device: ours.name, Name: s.name, Form: s.form.String(), M: s.m, N: s.n, K: s.k, GFlops: median(rates)}
	if peer != nil {
		for i := range rates {
			ratios = append(ratios, rates[i]/theirs[i])
		}
		row.Peer, row.PeerFlops, row.Ratio = peer.name, median(theirs), median(ratios)
	}
	return row, nil
}

func (o *benchGemm) head(out io.Writer, name string, peer *gemmPeer) {
	fmt.Fprintf(out, "%s, one processor; GF/s\n", name)
	if peer == nil {
		fmt.Fprintf(out, "%-28s %4s %6s %6s %6s %8s\n", "", "", "M", "N", "K", "muster")
		return
	}
	fmt.Fprintf(out, "beside: %s\n%-28s %4s %6s %6s %6s %8s %8s %6s\n", peer.name, "", "", "M", "N", "K", "muster", "beside", "ratio")
}

func (r *gemmRow) print(out io.Writer) {
	fmt.Fprintf(out, "%-28s %4s %6d %6d %6d %8.1f", r.Name, r.Form, r.M, r.N, r.K, r.GFlops)
	if r.Peer != "" {
		fmt.Fprintf(out, " %8.1f %6.3f", r.PeerFlops, r.Ratio)
	}
	fmt.Fprintln(out)
}

// gemmTimer times our products.
type gemmTimer struct {
	name    string
	stream  device.Stream
	product device.MatMul
}

func newGemmTimer() (*gemmTimer, error) {
	d, err := cpu.New()
	if err != nil {
		return nil, err
	}
	stream, err := d.NewStream()
	return &gemmTimer{name: d.Name(), stream: stream}, err
}

// take makes operands for a shape, whose pages are there.
func (t *gemmTimer) take(s gemmShape) error {
	if err := t.stream.Sync(); err != nil { // of the shape before
		return err
	}
	var operands [3]device.Buffer
	for i, n := range []int{s.m * s.k, s.k * s.n, s.m * s.n} {
		p, err := t.stream.Port(device.Float32, n)
		if err != nil {
			return err
		}
		v := make([]float32, n)
		for j := range v {
			v[j] = float32(j%17)*0.1 - 0.75
		}
		t.stream.Bind(p, v, [...]device.Direction{device.In, device.In, device.Out}[i])
		operands[i] = device.Whole(p)
	}
	t.product = device.MatMul{Trans: s.form, M: s.m, N: s.n, K: s.k, A: operands[0], B: operands[1], C: operands[2]}
	return nil
}

// time is the nanoseconds of one product, after as much time to warm up.
func (t *gemmTimer) time(secs float64) float64 {
	t.repeat(secs)
	return t.repeat(secs)
}

func (t *gemmTimer) repeat(secs float64) float64 {
	calls, batch, begin := 0, 1, time.Now()
	for {
		for range batch {
			t.stream.MatMul(t.product)
		}
		calls += batch
		took := time.Since(begin).Seconds()
		if took >= secs {
			return took / float64(calls) * 1e9
		}
		if took < secs/8 { // the clock is not to be asked after each small one
			batch *= 2
		}
	}
}

func geomean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += math.Log(x)
	}
	return math.Exp(sum / float64(len(v)))
}
