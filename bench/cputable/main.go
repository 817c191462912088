// Command cputable prints the rows of bench/cpu.sh as Markdown: medians over the trials, and ratios of one trial.
//
//	go run ./bench/cputable ROWS.jsonl [note]...
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/musterml/muster/bench/table"
)

// row is one line of muster bench step, bench/torch_step.py or muster bench gemm.
type row struct {
	Trial     int     `json:"trial"`
	Prog      string  `json:"prog"`
	Version   string  `json:"version"`
	Device    string  `json:"device"`
	BLAS      string  `json:"blas"`
	Model     string  `json:"model"`
	World     int     `json:"world"`
	Threads   int     `json:"threads"`
	Shards    int     `json:"shards"`
	Batch     int     `json:"batch_per_rank"`
	StepMs    float64 `json:"step_ms_med"`
	PerSecond float64 `json:"samples_per_s"`
	CPUMs     float64 `json:"cpu_ms_per_sample"`
	MaxRSS    float64 `json:"max_rss_mib"`

	// Of products.
	Name      string  `json:"name"`
	Form      string  `json:"form"`
	M         int     `json:"m"`
	N         int     `json:"n"`
	K         int     `json:"k"`
	GFlops    float64 `json:"gflops"`
	Peer      string  `json:"peer"`
	PeerFlops float64 `json:"peer_gflops"`
	Ratio     float64 `json:"ratio"`
}

// way is one way to take steps of a model.
type way struct {
	prog                   string
	world, threads, shards int
}

const (
	ours  = "muster"
	torch = "torch-train"
	gemm  = "muster-gemm"

	random   = "random" // the name of products that no list has
	nearPeer = 0.85     // what a ratio should be at least

	jobShards = 8 // what a job has if it does not say
)

var (
	ours1, ours2   = way{ours, 1, 1, 1}, way{ours, 1, 2, 2}
	job1, job2     = way{ours, 1, 1, jobShards}, way{ours, 1, 2, jobShards}
	torch1, torch2 = way{torch, 1, 1, 0}, way{torch, 1, 2, 0}
	torchRanks     = way{torch, 2, 1, 0}
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: cputable ROWS.jsonl [note]...")
		os.Exit(2)
	}
	f, err := os.Open(os.Args[1])
	if err == nil {
		err = report(os.Stdout, f, os.Args[2:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cputable:", err)
		os.Exit(1)
	}
}

type key struct {
	model string
	way   way
}

// measured is all rows.
type measured struct {
	steps            map[key]map[int]row // by trial
	models           []string            // in the order of their first row
	products, random []row
	trials           int
	about            []string // what computed, one line each
}

func read(in io.Reader) (*measured, error) {
	m := &measured{steps: map[key]map[int]row{}}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var r row
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%w in %q", err, lines.Text())
		}
		switch {
		case r.Prog == gemm && r.Name == random:
			m.random = append(m.random, r)
		case r.Prog == gemm:
			m.products = append(m.products, r)
		case r.Prog == ours || r.Prog == torch:
			m.take(r)
		}
	}
	return m, lines.Err()
}

func (m *measured) take(r row) {
	k := key{r.Model, way{r.Prog, r.World, r.Threads, r.Shards}}
	if m.steps[k] == nil {
		m.steps[k] = map[int]row{}
	}
	m.steps[k][r.Trial] = r
	m.trials = max(m.trials, r.Trial)
	if !slices.Contains(m.models, r.Model) {
		m.models = append(m.models, r.Model)
	}
	about := fmt.Sprintf("muster %s: %s", r.Version, r.Device)
	if r.Prog == torch {
		about = fmt.Sprintf("PyTorch %s: %s", r.Version, r.BLAS)
	}
	if !slices.Contains(m.about, about) {
		m.about = append(m.about, about)
	}
}

// figure is the median over the trials.
func (m *measured) figure(model string, w way, value func(row) float64) string {
	var values []float64
	for _, r := range m.steps[key{model, w}] {
		values = append(values, value(r))
	}
	return table.Figure(values)
}

// ratio is that of samples/s, ours over the peer's best of some ways, trial by trial: the median, and all.
func (m *measured) ratio(model string, w way, peers ...way) string {
	var ratios []float64
	for trial := range m.trials {
		r, ok := m.steps[key{model, w}][trial+1]
		best := 0.0
		for _, p := range peers {
			best = max(best, m.steps[key{model, p}][trial+1].PerSecond)
		}
		if ok && best > 0 {
			ratios = append(ratios, r.PerSecond/best)
		}
	}
	if len(ratios) == 0 {
		return "-"
	}
	return fmt.Sprintf("**%.2f** (%.2f-%.2f)", table.Median(ratios), slices.Min(ratios), slices.Max(ratios))
}

func perSecond(r row) float64 { return r.PerSecond }
func cpuUs(r row) float64     { return r.CPUMs * 1e3 }
func maxRSS(r row) float64    { return r.MaxRSS }

func report(out io.Writer, in io.Reader, notes []string) error {
	m, err := read(in)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `# Compute on the CPU: muster beside PyTorch and OpenBLAS

Written by bench/cpu.sh (make bench-cpu) on %s: %d trials, all programs in turn in one run, every other trial in the
opposite order. Cells are medians over the trials; a ratio is taken within each trial, and then their median
with the least and the largest. Absolute figures vary from hour to hour; only ratios of one run count.

- Machine: %s; %s.
`, time.Now().UTC().Format("2006-01-02 15:04 UTC"), m.trials, table.Machine(), runtime.Version())
	for _, a := range m.about {
		fmt.Fprintf(out, "- %s.\n", a)
	}
	for _, n := range notes {
		fmt.Fprintf(out, "- %s.\n", n)
	}
	m.stepTables(out)
	m.gemmTable(out)
	return nil
}

func (m *measured) stepTables(out io.Writer) {
	if len(m.models) == 0 {
		return
	}
	fmt.Fprint(out, `
A step is forward, loss, backward and the optimizer (SGD with momentum; AdamW of gpt) on made-up samples, in float32. muster's is
that of a run's trainer, with sum: exact. On two threads muster cuts the same batch in two; PyTorch's two ranks
(DistributedDataParallel over Gloo) have a whole batch each.

`)
	line := func(cells ...string) { fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | ")) }
	head := func(title string, cells ...string) {
		fmt.Fprintf(out, "\n## %s\n\n", title)
		line(cells...)
		fmt.Fprintf(out, "|%s\n", strings.Repeat(" ---: |", len(cells)))
	}
	head("Steps on one thread: samples/s", "model", "batch", "muster", "PyTorch", "ratio")
	for _, model := range m.models {
		batch := "-"
		for _, r := range m.steps[key{model, ours1}] {
			batch = fmt.Sprint(r.Batch)
		}
		line(model, batch, m.figure(model, ours1, perSecond), m.figure(model, torch1, perSecond), m.ratio(model, ours1, torch1))
	}
	head("Steps on two threads: samples/s", "model", "muster", "PyTorch, 2 threads", "PyTorch, 2 ranks", "ratio to the better one")
	for _, model := range m.models {
		line(model, m.figure(model, ours2, perSecond), m.figure(model, torch2, perSecond), m.figure(model, torchRanks, perSecond),
			m.ratio(model, ours2, torch2, torchRanks))
	}
	head(fmt.Sprintf("With the same batch cut into %d logical shards, a job's default: samples/s", jobShards),
		"model", "1 thread", "ratio to PyTorch", "2 threads", "ratio to PyTorch's better one")
	for _, model := range m.models {
		line(model, m.figure(model, job1, perSecond), m.ratio(model, job1, torch1), m.figure(model, job2, perSecond), m.ratio(model, job2, torch2, torchRanks))
	}
	ways := []way{ours1, torch1, ours2, torch2, torchRanks}
	titles := []string{"model", "muster", "PyTorch", "muster, 2 threads", "PyTorch, 2 threads", "PyTorch, 2 ranks"}
	for _, t := range []struct {
		title string
		value func(row) float64
	}{
		{"CPU-microseconds per sample, all threads together", cpuUs},
		{"Peak memory, MiB: the whole process, with its libraries; of two ranks the sum", maxRSS},
	} {
		head(t.title, titles...)
		for _, model := range m.models {
			cells := []string{model}
			for _, w := range ways {
				cells = append(cells, m.figure(model, w, t.value))
			}
			line(cells...)
		}
	}
}

func (m *measured) gemmTable(out io.Writer) {
	if len(m.products) > 0 {
		fmt.Fprintf(out, "\n## Matrix products on one thread\n\nBeside %s, shape by shape in turns on the same processor. %s.\n\n",
			m.products[0].Peer, summary(m.products))
		products(out, m.products)
	}
	if len(m.random) > 0 {
		const worst = 10
		slices.SortStableFunc(m.random, func(a, b row) int { return cmp.Compare(a.Ratio, b.Ratio) })
		fmt.Fprintf(out, "\n## Random products\n\nSizes from 1 to 300, one of them often from 1 to 16. %s. The %d least:\n\n", summary(m.random), worst)
		products(out, m.random[:min(worst, len(m.random))])
	}
}

// summary is of the ratios.
func summary(rows []row) string {
	logs, least, near := 0.0, math.Inf(1), 0
	for _, r := range rows {
		logs += math.Log(r.Ratio)
		least = min(least, r.Ratio)
		if r.Ratio >= nearPeer {
			near++
		}
	}
	n := float64(len(rows))
	return fmt.Sprintf("%d shapes: geometric mean of the ratios **%.3f**, least %.3f, %.1f%% at least %v", len(rows), math.Exp(logs/n), least, 100*float64(near)/n, nearPeer)
}

func products(out io.Writer, rows []row) {
	fmt.Fprintf(out, "| | form | M | N | K | muster GF/s | OpenBLAS GF/s | ratio |\n| :--- |%s\n", strings.Repeat(" ---: |", 7))
	for _, r := range rows {
		fmt.Fprintf(out, "| %s | %s | %d | %d | %d | %s | %s | %.2f |\n", r.Name, r.Form, r.M, r.N, r.K, table.Digits(r.GFlops), table.Digits(r.PeerFlops), r.Ratio)
	}
}
