package main

import (
	"strings"
	"testing"
)

const rows = `{"trial": 1, "mode": "roundtrip", "replicas": 1, "trainers": 1, "shards": 4, "blocks": 25, "block_bytes": 4194304, "durability": "memory", "med_ms": 50, "GBps": 2, "cpu_s_per_GB": 1, "ingress_bytes_per_step": 1e8}
{"trial": 1, "mode": "roundtrip", "replicas": 3, "trainers": 1, "shards": 4, "blocks": 25, "block_bytes": 4194304, "durability": "memory", "med_ms": 100, "GBps": 1, "cpu_s_per_GB": 2, "ingress_bytes_per_step": 1e8}
{"trial": 2, "mode": "roundtrip", "replicas": 3, "trainers": 1, "shards": 4, "blocks": 25, "block_bytes": 4194304, "durability": "memory", "med_ms": 300, "GBps": 0.2, "cpu_s_per_GB": 6, "ingress_bytes_per_step": 1e8}
{"trial": 2, "mode": "roundtrip", "replicas": 1, "trainers": 1, "shards": 4, "blocks": 25, "block_bytes": 4194304, "durability": "memory", "med_ms": 50, "GBps": 2, "cpu_s_per_GB": 1, "ingress_bytes_per_step": 1e8}
{"trial": 1, "mode": "roundtrip", "replicas": 3, "trainers": 8, "shards": 4, "blocks": 25, "block_bytes": 4194304, "durability": "memory", "med_ms": 100, "GBps": 1, "cpu_s_per_GB": 2, "ingress_bytes_per_step": 2e8}
{"trial": 1, "mode": "kill", "replicas": 3, "trainers": 1, "shards": 4, "blocks": 25, "block_bytes": 4194304, "durability": "memory", "kills": 50, "med_ms": 340, "worst_ms": 1600}
`

func TestReport(t *testing.T) {
	var out strings.Builder
	if err := report(&out, strings.NewReader(rows)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| roundtrip | memory | 3 | 1 | 2 | 200 | 0.60 | 4.00 |",
		"| 3 replicas against 1 | 4.00 | 4.00 |", // 2 and 6
		"| disk against memory, 1 replica | - | - |",
		"| at least 0.50 GB/s | 0.60 | reached |",
		"| at most 88.0 ms | 50.0 | reached |",
		"largest over smallest 2.00 | **not reached** |",
		"| under 600 ms | 340 ms | reached |",
		"| under 1500 ms | 1600 ms | **not reached** |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	if err := report(&out, strings.NewReader("")); err == nil {
		t.Error("a table of nothing")
	}
}
