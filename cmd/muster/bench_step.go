package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/musterml/muster/trainer"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/nn"
)

// benchStep measures training steps of one trainer alone, in the way of the program that it is compared with
// (bench/cpu.sh): made-up samples, the same in every step.
type benchStep struct {
	model    string
	threads  int
	batch    int // 0: the model's
	shards   int // 0: as many as threads
	sum      string
	secs     float64
	maxSteps int
	json     bool
	device   string
	precise  string
	path     bool   // also measure what the way of gradients adds
	profile  string // file of a processor profile, "" for none
}

// benchModel is a model with its shapes, batch and optimizer; those of ../shared/peers/torch/models.py.
type benchModel struct {
	shape     []int
	classes   int
	batch     int
	optimizer trainer.Optimizer
	model     nn.Model
	large     bool // for GPUs
}

func benchModels() map[string]benchModel {
	sgd := trainer.Optimizer{Name: "sgd", LR: 0.01, Momentum: 0.9}
	adamw := trainer.Optimizer{Name: "adamw", LR: 3e-4, WeightDecay: 0.01}
	small := map[string]any{"width": 768, "heads": 12, "layers": 12}
	return map[string]benchModel{
		"mlp":        {shape: []int{784}, classes: 10, batch: 128, optimizer: sgd, model: nn.Model{Name: "mlp"}},
		"lenet":      {shape: []int{1, 28, 28}, classes: 10, batch: 128, optimizer: sgd, model: nn.Model{Name: "lenet"}},
		"resnet18":   {shape: []int{3, 32, 32}, classes: 10, batch: 64, optimizer: sgd, model: nn.Model{Name: "resnet18"}},
		"resnet50":   {shape: []int{3, 224, 224}, classes: 1000, batch: 128, optimizer: sgd, model: nn.Model{Name: "resnet50"}, large: true},
		"gpt":        {shape: []int{128}, classes: 4096, batch: 16, optimizer: adamw, model: nn.Model{Name: "gpt"}},
		"gpt2-small": {shape: []int{1024}, classes: 50257, batch: 16, optimizer: adamw, model: nn.Model{Name: "gpt", Options: small}, large: true},
	}
}

func benchStepCommand() *cobra.Command {
	var o benchStep
	c := &cobra.Command{
		Use:   "step --model M --threads T",
		Short: "Measure training steps of one trainer on this machine",
		Long: `Measure training steps of one trainer on this machine: forward, loss, backward, the sum over
logical shards, and the optimizer, on made-up samples. It is the code that a run's trainer
executes, without data files, servers and other trainers.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return o.run(c.Context(), c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVar(&o.model, "model", "lenet", "what is trained: "+strings.Join(benchModelNames(), ", "))
	f.IntVar(&o.threads, "threads", 1, "processors that compute")
	f.IntVar(&o.batch, "batch", 0, "samples of a step; 0: 128 of mlp, lenet and resnet50, 64 of resnet18, 16 of gpt and gpt2-small")
	f.IntVar(&o.shards, "shards", 0, "logical shards that a batch is cut into; 0: one for each thread")
	f.StringVar(&o.sum, "sum", trainer.SumExact, "how gradients are added, as sync.sum of a job: "+trainer.SumExact+" or "+trainer.SumFast)
	deviceFlag(f, &o.device)
	f.StringVar(&o.precise, "precision", string(device.FP32), "of products, as precision of a job: fp32, tf32 or bf16")
	f.Float64Var(&o.secs, "secs", 3, "measuring time aimed at, in seconds")
	f.IntVar(&o.maxSteps, "max-steps", 400, "steps, at most")
	f.BoolVar(&o.json, "json", false, "one JSON object")
	f.BoolVar(&o.path, "path", false, "also measure steps without copies and sums, to tell what the way of gradients adds")
	f.StringVar(&o.profile, "profile", "", "`FILE` for a profile of the measured steps, to be read with go tool pprof")
	return c
}

func benchModelNames() []string {
	var names []string
	for name := range benchModels() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// check also fills in what was left to the model.
func (o *benchStep) check() error {
	var errs []error
	m, ok := benchModels()[o.model]
	if !ok {
		errs = append(errs, fmt.Errorf("--model is %q: use one of %s", o.model, strings.Join(benchModelNames(), ", ")))
	}
	if o.batch == 0 {
		o.batch = m.batch
	}
	if o.shards == 0 {
		o.shards = o.threads
	}
	if o.threads < 1 || o.threads > 1024 {
		errs = append(errs, fmt.Errorf("--threads is %d: use 1 to 1024", o.threads))
	}
	if ok && (o.shards < 1 || o.shards > o.batch) {
		errs = append(errs, fmt.Errorf("--shards is %d and --batch %d: every shard needs a sample", o.shards, o.batch))
	}
	if o.sum != trainer.SumExact && o.sum != trainer.SumFast {
		errs = append(errs, fmt.Errorf("--sum is %q: use %s or %s", o.sum, trainer.SumExact, trainer.SumFast))
	}
	if !slices.Contains(device.Precisions(), device.Precision(o.precise)) {
		errs = append(errs, fmt.Errorf("--precision is %q: use one of %v", o.precise, device.Precisions()))
	}
	if !(o.secs > 0) || o.maxSteps < 5 {
		errs = append(errs, errors.New("--secs must be positive, and --max-steps at least 5"))
	}
	return errors.Join(errs...)
}

// stepRow is the result; the fields are those of the peer's program.
type stepRow struct {
	Prog      string  `json:"prog"`
	Version   string  `json:"version"`
	Device    string  `json:"device"`
	Precision string  `json:"precision"`
	Model     string  `json:"model"`
	World     int     `json:"world"`
	Threads   int     `json:"threads"`
	Shards    int     `json:"shards"`
	Sum       string  `json:"sum"`
	Params    int     `json:"params"`
	Batch     int     `json:"batch_per_rank"`
	Steps     int     `json:"steps"`
	Loss      float64 `json:"loss"` // of the last step
	MedMs     float64 `json:"step_ms_med"`
	P10Ms     float64 `json:"step_ms_p10"`
	P90Ms     float64 `json:"step_ms_p90"`
	PerSecond float64 `json:"samples_per_s"`
	CPUMs     float64 `json:"cpu_ms_per_sample"`
	MaxRSS    float64 `json:"max_rss_mib"`
	UpdateMs  float64 `json:"update_ms_med"` // of a step: the optimizer

	// With --path.
	BareMs      float64 `json:"bare_ms_med,omitempty"`  // a step that only computes gradients, and leaves them on the device
	PathPercent float64 `json:"path_percent,omitempty"` // what the way of gradients adds to that and the optimizer
}

func (o *benchStep) run(ctx context.Context, out io.Writer) (err error) {
	runtime.GOMAXPROCS(o.threads) // which is how many processors a trainer takes
	m := benchModels()[o.model]
	dev, err := openDevice(o.device, zerolog.Nop())
	if err != nil {
		return err
	}
	samples := newMadeUp(m, m.model.Name == "gpt", o.batch)
	spec, err := nn.Build(m.model, samples.Form())
	if err != nil {
		return err
	}
	job := trainer.DefaultJob()
	job.Batch = trainer.Batch{Size: o.batch, LogicalShards: o.shards}
	job.Optimizer, job.Sync.Sum, job.Precision = m.optimizer, o.sum, device.Precision(o.precise)
	on := func(dev device.Device, do func(*trainer.Alone) error) error {
		alone, err := trainer.NewAlone(ctx, job, spec, dev, samples)
		if err != nil {
			return err
		}
		return errors.Join(do(alone), alone.Close())
	}
	row := stepRow{
		Prog: "muster", Version: version, Device: dev.Name(), Precision: o.precise, Model: o.model, World: 1, Threads: o.threads,
		Shards: o.shards, Sum: o.sum, Params: spec.Params(), Batch: o.batch,
	}
	if err := on(dev, func(a *trainer.Alone) error { return o.measure(ctx, a, &row) }); err != nil {
		return err
	}
	if o.path {
		if err := on(keeping{dev, spec.Params()}, func(a *trainer.Alone) error { return o.measurePath(ctx, a, &row) }); err != nil {
			return err
		}
	}
	row.MaxRSS = digits(maxRSS()/(1<<20), 1)
	if o.json {
		line, _ := json.Marshal(row) // a struct of plain fields
		fmt.Fprintf(out, "%s\n", line)
		return nil
	}
	fmt.Fprintf(out, "%s on %s, %d threads, %d samples in %d shards: %.1f samples/s, %.2f ms per step (p10 %.2f, p90 %.2f; %d steps), CPU %.3f ms per sample, %.0f MiB\n",
		row.Model, row.Device, row.Threads, row.Batch, row.Shards, row.PerSecond, row.MedMs, row.P10Ms, row.P90Ms, row.Steps, row.CPUMs, row.MaxRSS)
	if o.path {
		fmt.Fprintf(out, "gradients alone %.2f ms, optimizer %.2f ms: the way of gradients adds %.2f %%\n", row.BareMs, row.UpdateMs, row.PathPercent)
	}
	return nil
}

// repeat does something twice to warm up, once to tell how often it fills the time, then warm, and then as often; what that took it
// returns, in seconds.
func (o *benchStep) repeat(do func() (time.Duration, error), warm func() error) (times []float64, err error) {
	var estimate time.Duration
	for range 3 {
		if estimate, err = do(); err != nil {
			return nil, err
		}
	}
	if err := warm(); err != nil {
		return nil, err
	}
	times = make([]float64, max(5, min(o.maxSteps, int(o.secs/estimate.Seconds()))))
	for i := range times {
		took, err := do()
		if err != nil {
			return nil, err
		}
		times[i] = took.Seconds()
	}
	return times, nil
}

// measure takes steps.
func (o *benchStep) measure(ctx context.Context, alone *trainer.Alone, row *stepRow) error {
	var updates []float64
	cpu, stop := 0.0, func() error { return nil }
	times, err := o.repeat(func() (_ time.Duration, err error) {
		start := time.Now()
		row.Loss, err = alone.Step(ctx)
		updates = append(updates, alone.Updating.Seconds())
		return time.Since(start), err
	}, func() (err error) {
		stop, err = o.startProfile()
		cpu, updates = cpuSeconds(), updates[:0]
		return err
	})
	cpu = cpuSeconds() - cpu
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	row.UpdateMs = digits(median(updates)*1e3, 3)
	slices.Sort(times)
	n, batch := len(times), float64(o.batch)
	row.Steps = n
	row.MedMs, row.P10Ms, row.P90Ms = digits(median(times)*1e3, 3), digits(times[n/10]*1e3, 3), digits(times[9*n/10]*1e3, 3)
	row.PerSecond = digits(batch/median(times), 1)
	row.CPUMs = digits(cpu*1e3/(float64(n)*batch), 4)
	return nil
}

// startProfile begins the processor profile of the measured steps, if there is to be one.
func (o *benchStep) startProfile() (stop func() error, err error) {
	stop = func() error { return nil }
	if o.profile == "" {
		return stop, nil
	}
	f, err := os.Create(o.profile)
	if err != nil {
		return stop, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return stop, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// maxRSS is the most memory that this process had, in bytes.
func maxRSS() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Maxrss) * 1024
}

// madeUp is a data set of one batch of random samples.
type madeUp struct {
	model  benchModel
	tokens bool
	x      []float32 // one of the two
	t      []int32
	labels []int32
	n      int
}

func newMadeUp(m benchModel, tokens bool, n int) *madeUp {
	d := &madeUp{model: m, tokens: tokens, n: n}
	size := 1
	for _, s := range m.shape {
		size *= s
	}
	rng := rand.New(rand.NewPCG(1, 2))
	labels := n
	if tokens {
		labels = n * size
		d.t = make([]int32, n*size)
		for i := range d.t {
			d.t[i] = int32(rng.IntN(m.classes))
		}
	} else {
		d.x = make([]float32, n*size)
		for i := range d.x {
			d.x[i] = float32(rng.NormFloat64())
		}
	}
	d.labels = make([]int32, labels)
	for i := range d.labels {
		d.labels[i] = int32(rng.IntN(m.classes))
	}
	return d
}

func (d *madeUp) Len() int            { return d.n }
func (d *madeUp) Digest() data.Digest { return data.Digest{} }

func (d *madeUp) Form() data.Form {
	f := data.Form{Shape: d.model.shape, Classes: d.model.classes}
	if d.tokens {
		f.Kind = data.Tokens
	}
	return f
}

func (d *madeUp) Sample(i int, into data.Batch) {
	copy(into.X, d.x[i*len(into.X):])
	copy(into.Tokens, d.t[i*len(into.Tokens):])
	copy(into.Labels, d.labels[i*len(into.Labels):])
}
