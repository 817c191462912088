// Command ringtable prints the rows of bench/ring.sh as Markdown: medians over the trials, and ratios of one trial.
//
//	go run ./bench/ringtable ROWS.jsonl [what was left out]...
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/musterml/muster/bench/table"
)

type row struct {
	Trial     int     `json:"trial"`
	Prog      string  `json:"prog"`
	Variant   string  `json:"variant"`
	Version   string  `json:"version"`
	Transport string  `json:"transport"` // muster's
	World     int     `json:"world"`
	Bytes     int     `json:"bytes"`
	MedUs     float64 `json:"med_us"`
	CPUPerGB  float64 `json:"cpu_s_per_GB"`
}

// program is one column.
type program struct{ prog, variant, transport, title string }

var programs = []program{
	{"muster", "float32", "tcp", "**muster**"},
	{"muster", "bf16", "tcp", "**muster bf16**"},
	{"muster", "int8", "tcp", "**muster int8**"},
	{"muster", "exact", "tcp", "**muster exact**"},
	{"ceiling", "stream", "", "ceiling"},
	{"gloo", "default", "", "Gloo"},
	{"mpi", "default", "", "MPI"},
	{"mpi", "ring", "", "MPI ring"},
	{"mpi", "segring", "", "MPI seg. ring"},
	{"mpi", "yield", "", "MPI, yield"},
	{"mpi", "yield-ring", "", "MPI ring, yield"},
	{"muster", "float32", "shared memory", "**muster, memory**"},
	{"mpi", "shm", "", "MPI, memory"},
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: ringtable ROWS.jsonl [what was left out]...")
		os.Exit(2)
	}
	f, err := os.Open(os.Args[1])
	if err == nil {
		err = report(os.Stdout, f, os.Args[2:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ringtable:", err)
		os.Exit(1)
	}
}

type key struct {
	p            program
	world, bytes int
}

type measured struct {
	cells  map[key]map[int]row // by trial
	worlds []int
	sizes  []int
	trials int
}

func read(in io.Reader) (*measured, error) {
	t := &measured{cells: map[key]map[int]row{}}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var r row
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, err
		}
		for _, p := range programs {
			if p.prog == r.Prog && p.variant == r.Variant && p.transport == r.Transport {
				k := key{p, r.World, r.Bytes}
				if t.cells[k] == nil {
					t.cells[k] = map[int]row{}
				}
				t.cells[k][r.Trial] = r
			}
		}
		t.worlds, t.sizes, t.trials = append(t.worlds, r.World), append(t.sizes, r.Bytes), max(t.trials, r.Trial)
	}
	slices.Sort(t.worlds)
	slices.Sort(t.sizes)
	t.worlds, t.sizes = slices.Compact(t.worlds), slices.Compact(t.sizes)
	return t, lines.Err()
}

func report(out io.Writer, in io.Reader, missing []string) error {
	t, err := read(in)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `# All-reduce: muster beside its peers

Written by bench/ring.sh (make bench-ring) on %s: %d trials, all programs in turn in one run, every other trial in the
opposite order. Real processes on loopback TCP, but for the columns called memory; a barrier, then one timed call; rank 0's time. Cells are medians over
the trials. Absolute figures vary from hour to hour by a factor of 1.5; only ratios of one run count.

- Machine: %s; TCP congestion control in force: %s; %s.
- Where that is not reno, muster alone takes reno, for connections within one host (internal/pacing): RESULTS-ring.md is the machine
  as it is, RESULTS-ring-reno.md all programs in a network namespace with reno.
- muster's vectors are on huge pages (internal/huge), those of the peers where their programs have put them.
- memory: between processes of one host muster takes shared memory by itself, as Open MPI does; all other columns are
  made to use TCP.
- ceiling: what loopback TCP carries for an all-reduce of that size with nothing reduced (its stream row).
- Open MPI spins while it waits; "yield" is with mpi_yield_when_idle. Gloo is PyTorch's.
- bf16, int8: from float32 to float32; int8 with error feedback.
- exact: all of sum: exact, from float32 to float32, in buckets of 4 MiB as in a run: exponents, their all-reduce, the sum.
- With more ranks than cores every figure is a CPU figure.
`, time.Now().UTC().Format("2006-01-02 15:04 UTC"), t.trials, table.Machine(), table.FirstLine("/proc/sys/net/ipv4/tcp_congestion_control"), runtime.Version())
	for _, m := range missing {
		fmt.Fprintf(out, "- Left out: %s.\n", m)
	}
	t.verdicts(out)
	for _, world := range t.worlds {
		var cols []program
		for _, p := range programs {
			if slices.ContainsFunc(t.sizes, func(s int) bool { return t.cells[key{p, world, s}] != nil }) {
				cols = append(cols, p)
			}
		}
		t.section(out, world, cols, "time per call, microseconds", 0, func(k key, _ int, r row) (float64, bool) { return r.MedUs, true })
		t.section(out, world, cols, "how many times muster's (float32) time, same trial: above 1 is slower than muster", 0,
			func(k key, trial int, r row) (float64, bool) {
				ours, ok := t.cells[key{programs[0], k.world, k.bytes}][trial]
				return r.MedUs / ours.MedUs, ok
			})
		t.section(out, world, cols, "CPU-seconds per GB, all ranks together", 64<<10, func(k key, _ int, r row) (float64, bool) { return r.CPUPerGB, true })
	}
	return nil
}

func (t *measured) section(out io.Writer, world int, cols []program, title string, from int, value func(key, int, row) (float64, bool)) {
	fmt.Fprintf(out, "\n## World %d: %s\n\n| size |", world, title)
	for _, c := range cols {
		fmt.Fprintf(out, " %s |", c.title)
	}
	fmt.Fprintf(out, "\n|%s\n", strings.Repeat(" ---: |", len(cols)+1))
	for _, size := range t.sizes {
		if size < from {
			continue
		}
		fmt.Fprintf(out, "| %s |", sizeName(size))
		for _, c := range cols {
			k := key{c, world, size}
			var values []float64
			for trial, r := range t.cells[k] {
				if v, ok := value(k, trial, r); ok {
					values = append(values, v)
				}
			}
			fmt.Fprintf(out, " %s |", table.Figure(values))
		}
		fmt.Fprintln(out)
	}
}

func sizeName(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
