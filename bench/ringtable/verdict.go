package main

import (
	"fmt"
	"io"
	"math"

	"github.com/musterml/muster/bench/table"
)

// target is a ratio that is to be reached at every size of a range in every world: how many times faster ours is than each
// of the others, or with cpu how many times the CPU-seconds per GB of ours the others take.
type target struct {
	title    string
	ours     program
	others   []program
	from, to int // bytes
	least    float64
	cpu      bool
}

const (
	kib, mib = 1 << 10, 1 << 20
	any      = 1 << 40
)

func byTitle(titles ...string) (all []program) {
	for _, t := range titles {
		for _, p := range programs {
			if p.title == t {
				all = append(all, p)
			}
		}
	}
	return all
}

func targets() []target {
	float, gloo, ceiling := programs[0], byTitle("Gloo"), byTitle("ceiling")
	mpi := byTitle("MPI", "MPI ring", "MPI seg. ring", "MPI, yield", "MPI ring, yield")
	memory := byTitle("**muster, memory**")[0]
	return []target{
		{"0.9 times the ceiling from 16 MiB", float, ceiling, 16 * mib, any, 0.9, false},
		{"faster than every TCP peer from 16 MiB", float, append(gloo, mpi...), 16 * mib, any, 1, false},
		{"2 times Gloo from 256 KiB to 4 MiB", float, gloo, 256 * kib, 4 * mib, 2, false},
		{"no slower than Open MPI that yields, 256 KiB to 4 MiB", float, byTitle("MPI, yield", "MPI ring, yield"), 256 * kib, 4 * mib, 1, false},
		{"4 times Gloo below 256 KiB", float, gloo, 0, 256*kib - 1, 4, false},
		{"a third of Open MPI's speed below 256 KiB", float, mpi, 0, 256*kib - 1, 1. / 3, false},
		{"fewer CPU-seconds per GB than every TCP peer from 1 MiB", float, append(gloo, mpi...), mib, any, 1, true},
		{"exact at 1/1.1 of float32's speed from 256 KiB", byTitle("**muster exact**")[0], programs[:1], 256 * kib, any, 1 / 1.1, false},
		{"bf16 at 1.6 times float32's speed from 256 KiB", byTitle("**muster bf16**")[0], programs[:1], 256 * kib, any, 1.6, false},
		{"shared memory at 1.5 times our TCP from 1 MiB", memory, programs[:1], mib, any, 1.5, false},
		{"shared memory no slower than Open MPI's from 1 MiB", memory, byTitle("MPI, memory"), mib, any, 1, false},
	}
}

// worst is the smallest of the ratios that a target is about, and where it was.
func (t *measured) worst(g target) (ratio float64, where string) {
	ratio = math.Inf(1)
	for _, world := range t.worlds {
		for _, size := range t.sizes {
			if size < g.from || size > g.to {
				continue
			}
			for _, other := range g.others {
				var ratios []float64
				for trial, r := range t.cells[key{g.ours, world, size}] {
					o, ok := t.cells[key{other, world, size}][trial]
					switch {
					case !ok:
					case g.cpu:
						ratios = append(ratios, o.CPUPerGB/r.CPUPerGB)
					default:
						ratios = append(ratios, o.MedUs/r.MedUs)
					}
				}
				if len(ratios) == 0 {
					continue
				}
				if m := table.Median(ratios); m < ratio {
					ratio, where = m, fmt.Sprintf("%s, world %d, beside %s", sizeName(size), world, other.title)
				}
			}
		}
	}
	return ratio, where
}

func (t *measured) verdicts(out io.Writer) {
	fmt.Fprint(out, "\n## What was to be reached\n\nThe worst cell of all sizes and worlds that a line is about, each the median of the ratios within a trial.\n\n")
	fmt.Fprint(out, "| target | least | worst | where | |\n| --- | ---: | ---: | --- | --- |\n")
	for _, g := range targets() {
		ratio, where := t.worst(g)
		if where == "" {
			continue
		}
		verdict := "reached"
		if ratio < g.least {
			verdict = "**not reached**"
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", g.title, table.Digits(g.least), table.Digits(ratio), where, verdict)
	}
}
