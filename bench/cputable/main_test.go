package main

import (
	"strings"
	"testing"
)

// Ratios are of one trial, and to the better of the peer's two ways; cells are medians over the trials.
func TestReport(t *testing.T) {
	rows := `{"trial": 1, "prog": "muster", "device": "cpu avx2", "version": "v1", "model": "mlp", "world": 1, "threads": 1, "shards": 1, "batch_per_rank": 128, "samples_per_s": 300, "cpu_ms_per_sample": 0.5, "max_rss_mib": 20}
{"trial": 1, "prog": "torch-train", "version": "1.13", "blas": "OpenBLAS Zen", "model": "mlp", "world": 1, "threads": 1, "samples_per_s": 100, "cpu_ms_per_sample": 1.5, "max_rss_mib": 250}
{"trial": 2, "prog": "muster", "device": "cpu avx2", "version": "v1", "model": "mlp", "world": 1, "threads": 1, "shards": 1, "batch_per_rank": 128, "samples_per_s": 600, "cpu_ms_per_sample": 0.7, "max_rss_mib": 22}
{"trial": 2, "prog": "torch-train", "version": "1.13", "blas": "OpenBLAS Zen", "model": "mlp", "world": 1, "threads": 1, "samples_per_s": 600, "cpu_ms_per_sample": 2.5, "max_rss_mib": 250}
{"trial": 1, "prog": "muster", "device": "cpu avx2", "version": "v1", "model": "mlp", "world": 1, "threads": 2, "shards": 2, "samples_per_s": 800}
{"trial": 1, "prog": "torch-train", "version": "1.13", "blas": "OpenBLAS Zen", "model": "mlp", "world": 1, "threads": 2, "samples_per_s": 400}
{"trial": 1, "prog": "torch-train", "version": "1.13", "blas": "OpenBLAS Zen", "model": "mlp", "world": 2, "threads": 1, "samples_per_s": 500}
{"trial": 1, "prog": "muster-gemm", "name": "square", "form": "NT", "m": 64, "n": 65, "k": 66, "gflops": 100, "peer_gflops": 50, "ratio": 2}
{"trial": 1, "prog": "muster-gemm", "name": "square", "form": "NN", "m": 64, "n": 65, "k": 66, "gflops": 50, "peer_gflops": 100, "ratio": 0.5}
{"trial": 1, "prog": "muster-gemm", "name": "random", "form": "NN", "m": 1, "n": 2, "k": 3, "gflops": 9, "peer_gflops": 3, "ratio": 3}
{"trial": 1, "prog": "muster-gemm", "name": "random", "form": "TN", "m": 4, "n": 5, "k": 6, "gflops": 8, "peer_gflops": 10, "ratio": 0.8}
{"trial": 1, "prog": "muster-gemm-summary", "shapes": 1}
`
	var out strings.Builder
	if err := report(&out, strings.NewReader(rows), []string{"a note"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"2 trials", "- a note.", "- muster v1: cpu avx2.", "- PyTorch 1.13: OpenBLAS Zen.",
		"| mlp | 128 | 450 | 350 | **2.00** (1.00-3.00) |", // 3 and 1
		"| mlp | 800 | 400 | 500 | **1.60** (1.60-1.60) |",
		"| mlp | 600 | 2000 |",
		"| mlp | 21.0 | 250 |",
		"2 shapes: geometric mean of the ratios **1.000**, least 0.500, 50.0% at least 0.85",
		"2 shapes: geometric mean of the ratios **1.549**, least 0.800, 50.0% at least 0.85",
		"---: |\n| random | TN | 4 | 5 | 6 | 8.00 | 10.0 | 0.80 |\n| random | NN",
		"| square | NT | 64 | 65 | 66 | 100 | 50.0 | 2.00 |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if err := report(&out, strings.NewReader("no JSON\n"), nil); err == nil {
		t.Error("rubbish passes")
	}
}
