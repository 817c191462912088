// Command servertable prints the rows of bench/server.sh as Markdown: medians over the trials, ratios of one trial, and what
// was to be reached beside what was measured.
//
//	go run ./bench/servertable ROWS.jsonl
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/musterml/muster/bench/table"
)

type row struct {
	Trial      int     `json:"trial"`
	Version    string  `json:"version"`
	Mode       string  `json:"mode"`
	Replicas   int     `json:"replicas"`
	Trainers   int     `json:"trainers"`
	Shards     int     `json:"shards"`
	Blocks     int     `json:"blocks"`
	BlockBytes int     `json:"block_bytes"`
	Durability string  `json:"durability"`
	MedMs      float64 `json:"med_ms"`
	P90Ms      float64 `json:"p90_ms"`
	WorstMs    float64 `json:"worst_ms"`
	GBps       float64 `json:"GBps"`
	CPUPerGB   float64 `json:"cpu_s_per_GB"`
	ServerCPU  float64 `json:"server_cpu_s_per_GB"`
	Ingress    float64 `json:"ingress_bytes_per_step"`
	Kills      int     `json:"kills"`
	RowsPerS   float64 `json:"rows_per_s"`
	DiskGBps   float64 `json:"disk_GBps"`
	Written    float64 `json:"disk_bytes_per_byte"`
	Elections  int     `json:"elections"`
}

// unit is what is measured again in each trial.
type unit struct {
	mode       string
	durability string
	replicas   int
	trainers   int
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: servertable ROWS.jsonl")
		os.Exit(2)
	}
	f, err := os.Open(os.Args[1])
	if err == nil {
		err = report(os.Stdout, f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "servertable:", err)
		os.Exit(1)
	}
}

type measured struct {
	rows  map[unit][]row // in the order of trials
	units []unit
	last  row
}

func read(in io.Reader) (*measured, error) {
	m := &measured{rows: map[unit][]row{}}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var r row
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, err
		}
		u := unit{r.Mode, r.Durability, r.Replicas, r.Trainers}
		if m.rows[u] == nil {
			m.units = append(m.units, u)
		}
		m.rows[u] = append(m.rows[u], r)
		if r.Mode != "sparse" { // its model is of no interest
			m.last = r
		}
	}
	if len(m.units) == 0 {
		return nil, errors.Join(errors.New("there are no rows"), lines.Err())
	}
	modes := []string{"roundtrip", "log", "kill", "sparse"}
	slices.SortFunc(m.units, func(a, b unit) int {
		return cmp.Or(-cmp.Compare(a.durability, b.durability), cmp.Compare(slices.Index(modes, a.mode), slices.Index(modes, b.mode)),
			cmp.Compare(a.replicas, b.replicas), cmp.Compare(a.trainers, b.trainers))
	})
	return m, lines.Err()
}

// of is the median of a figure over the trials of a unit; NaN-free: ok is false when it was not measured.
func (m *measured) of(u unit, figure func(row) float64) (v float64, ok bool) {
	var values []float64
	for _, r := range m.rows[u] {
		values = append(values, figure(r))
	}
	if len(values) == 0 {
		return 0, false
	}
	return table.Median(values), true
}

func report(out io.Writer, in io.Reader) error {
	m, err := read(in)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `# Parameter servers: replicated, and not

Written by bench/server.sh (make bench-server) on %s. Servers and trainers are processes of this machine
on loopback TCP; %d blocks of %d KiB in %d shards, SGD with momentum on every replica. A round is: the trainer pushes the gradient of
every block, a majority has stored it, the leader has applied it, the trainer has the new weights. "log" is without trainer: the leader
has the gradients already. Rates are of the model's bytes, counted once per round; processor time is that of all processes.
Units were measured in turn, every other trial in the opposite order; cells are medians over the trials. Absolute figures vary from hour to hour
by a factor of 1.5.

- Machine: %s; TCP congestion control in force: %s (muster itself takes reno within a host); %s.

## Rounds

| measured | durability | replicas | trainers | trials | ms per round | GB/s | CPU-s per GB | of it servers | MB into the servers per step | elections |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
`, time.Now().UTC().Format("2006-01-02 15:04 UTC"), m.last.Blocks, m.last.BlockBytes>>10, m.last.Shards, table.Machine(),
		table.FirstLine("/proc/sys/net/ipv4/tcp_congestion_control"), runtime.Version())
	for _, u := range m.units {
		if u.mode == "kill" || u.mode == "sparse" {
			continue
		}
		fmt.Fprintf(out, "| %s | %s | %d | %d | %d |", u.mode, u.durability, u.replicas, u.trainers, len(m.rows[u]))
		for _, figure := range []func(row) float64{
			func(r row) float64 { return r.MedMs }, func(r row) float64 { return r.GBps }, func(r row) float64 { return r.CPUPerGB },
			func(r row) float64 { return r.ServerCPU }, func(r row) float64 { return r.Ingress / 1e6 },
		} {
			v, _ := m.of(u, figure)
			fmt.Fprintf(out, " %s |", table.Digits(v))
		}
		elections := 0
		for _, r := range m.rows[u] {
			elections += r.Elections
		}
		fmt.Fprintf(out, " %d |\n", elections)
	}
	m.disk(out)
	m.sparse(out)
	m.ratios(out)
	m.verdicts(out)
	return nil
}

// disk sets rounds with durability disk beside what the disk takes without any server.
func (m *measured) disk(out io.Writer) {
	head := `
## Durability disk

The disk alone: as many writers as replicas, in the same run, each appending blocks to a file of its own with a sync after each, divided by the
replicas, which share this one disk. Servers write more than each gradient once: their snapshots.

| replicas | GB/s | disk alone GB/s | share | bytes written by all servers per byte of the model |
| ---: | ---: | ---: | ---: | ---: |
`
	for _, u := range m.units {
		alone, _ := m.of(u, func(r row) float64 { return r.DiskGBps })
		if u.durability != "disk" || alone == 0 {
			continue
		}
		rate, _ := m.of(u, func(r row) float64 { return r.GBps })
		written, _ := m.of(u, func(r row) float64 { return r.Written })
		fmt.Fprintf(out, "%s| %d | %s | %s | %s | %s |\n", head, u.replicas, table.Digits(rate), table.Digits(alone), table.Digits(rate/alone), table.Digits(written))
		head = ""
	}
}

var sparse = unit{"sparse", "memory", 3, 1}

func (m *measured) sparse(out io.Writer) {
	rate, ok := m.of(sparse, func(r row) float64 { return r.RowsPerS })
	if !ok {
		return
	}
	ms, _ := m.of(sparse, func(r row) float64 { return r.MedMs })
	cpu, _ := m.of(sparse, func(r row) float64 { return r.CPUPerGB })
	fmt.Fprintf(out, `
## Sparse rows, 3 replicas

A batch: the gradients of 4096 different rows of 16 values, by Zipf's law over a million, pushed, replicated and applied with Adagrad, and the rows of the next 4096
keys pulled as they are after it. A row that is pushed and pulled is counted once.

| ms per batch | rows/s | CPU-s per million rows |
| ---: | ---: | ---: |
| %s | %.0f | %s |
`, table.Digits(ms), rate, table.Digits(cpu))
}

// ratios are of rows of the same trial.
func (m *measured) ratios(out io.Writer) {
	fmt.Fprintf(out, "\n## Ratios, of the same trial\n\n| | time | CPU |\n| --- | ---: | ---: |\n")
	one, three := unit{"roundtrip", "memory", 1, 1}, unit{"roundtrip", "memory", 3, 1}
	for _, c := range []struct {
		title string
		a, b  unit
	}{
		{"3 replicas against 1", three, one},
		{"disk against memory, 1 replica", unit{"roundtrip", "disk", 1, 1}, one},
		{"disk against memory, 3 replicas", unit{"roundtrip", "disk", 3, 1}, three},
		{"round trip against the log alone, 3 replicas", three, unit{"log", "memory", 3, 1}},
	} {
		var times, cpu []float64
		for _, a := range m.rows[c.a] {
			for _, b := range m.rows[c.b] {
				if a.Trial == b.Trial {
					times, cpu = append(times, a.MedMs/b.MedMs), append(cpu, a.CPUPerGB/b.CPUPerGB)
				}
			}
		}
		fmt.Fprintf(out, "| %s | %s | %s |\n", c.title, table.Figure(times), table.Figure(cpu))
	}
}

// ps-lite as ../shared/peers/BASELINE.md has it, one worker, one server: measured on this machine, but on
// another day and with a program written for the purpose.
const (
	psLitePushMs, psLitePullMs   = 39, 49
	psLitePushCPU, psLitePullCPU = 0.60, 0.66 // per GB moved one way
)

func (m *measured) verdicts(out io.Writer) {
	fmt.Fprintf(out, `
## What was to be reached

ps-lite (dmlc/ps-lite, 1 worker, 1 server, ZeroMQ on loopback, the same 25 keys of 4 MiB, a server that adds and keeps no momentum) is quoted from the
baseline of another day: push %d ms and %.2f CPU-seconds per GB, pull %d ms and %.2f.

| | target | measured | |
| --- | --- | ---: | --- |
`, psLitePushMs, psLitePushCPU, psLitePullMs, psLitePullCPU)
	line := func(title, target, got string, reached bool) {
		verdict := "reached"
		if !reached {
			verdict = "**not reached**"
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", title, target, got, verdict)
	}
	rate, cpu := func(r row) float64 { return r.GBps }, func(r row) float64 { return r.CPUPerGB }
	goal := func(title string, u unit, figure func(row) float64, most bool, limit float64, name string) {
		v, ok := m.of(u, figure)
		if !ok {
			return
		}
		target := fmt.Sprintf("at least %s %s", table.Digits(limit), name)
		reached := v >= limit
		if most {
			target, reached = fmt.Sprintf("at most %s %s", table.Digits(limit), name), v <= limit
		}
		line(title, target, table.Digits(v), reached)
	}
	log, three, one := unit{"log", "memory", 3, 1}, unit{"roundtrip", "memory", 3, 1}, unit{"roundtrip", "memory", 1, 1}
	goal("log alone, 3 replicas", log, rate, false, 1, "GB/s")
	goal("log alone, 3 replicas", log, cpu, true, 2, "CPU-s per GB")
	goal("round trip, 3 replicas", three, rate, false, 0.5, "GB/s")
	goal("round trip, 3 replicas", three, cpu, true, 4, "CPU-s per GB")
	goal("round trip, 1 replica, against ps-lite's push and pull", one, func(r row) float64 { return r.MedMs }, true, psLitePushMs+psLitePullMs, "ms")
	goal("round trip, 1 replica, against ps-lite's push and pull", one, cpu, true, psLitePushCPU+psLitePullCPU, "CPU-s per GB")
	goal("sparse: rows pulled and pushed, 3 replicas", sparse, func(r row) float64 { return r.RowsPerS / 1e6 }, false, 1, "million a second")
	var ingress []float64
	for _, u := range m.units {
		if u.mode == "roundtrip" && u.durability == "memory" && u.replicas == 3 {
			v, _ := m.of(u, func(r row) float64 { return r.Ingress })
			ingress = append(ingress, v)
		}
	}
	if len(ingress) > 1 {
		spread := slices.Max(ingress) / slices.Min(ingress)
		line(fmt.Sprintf("bytes into the servers per step, %d numbers of trainers", len(ingress)), "the same, within 1 %",
			fmt.Sprintf("%s MB, largest over smallest %s", table.Digits(slices.Max(ingress)/1e6), table.Digits(spread)), spread <= 1.01)
	}
	for _, r := range m.rows[unit{"kill", "memory", 3, 1}] {
		title := fmt.Sprintf("kill -9 of a shard's leader under full load, %d times, to the next commit", r.Kills)
		line(title+": median", "under 600 ms", table.Digits(r.MedMs)+" ms", r.MedMs < 600)
		line(title+": worst", "under 1500 ms", table.Digits(r.WorstMs)+" ms", r.WorstMs < 1500)
	}
}
