package main

import (
	"strings"
	"testing"
)

// Ratios are of one trial; cells are medians over the trials.
func TestReport(t *testing.T) {
	rows := `{"trial": 1, "prog": "muster", "variant": "float32", "transport": "tcp", "world": 2, "bytes": 1048576, "med_us": 100, "cpu_s_per_GB": 0.5}
{"trial": 1, "prog": "gloo", "variant": "default", "world": 2, "bytes": 1048576, "med_us": 200, "cpu_s_per_GB": 1.5}
{"trial": 2, "prog": "muster", "variant": "float32", "transport": "tcp", "world": 2, "bytes": 1048576, "med_us": 1000, "cpu_s_per_GB": 0.7}
{"trial": 2, "prog": "gloo", "variant": "default", "world": 2, "bytes": 1048576, "med_us": 4000, "cpu_s_per_GB": 2.5}
{"trial": 2, "prog": "gloo", "variant": "default", "world": 2, "bytes": 4, "med_us": 7, "cpu_s_per_GB": 2.5}
`
	var out strings.Builder
	if err := report(&out, strings.NewReader(rows), []string{"Open MPI: not there"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"2 trials", "Left out: Open MPI: not there.", "| size | **muster** | Gloo |",
		"| 1 MiB | 550 | 2100 |",  // times
		"| 1 MiB | 1.00 | 3.00 |", // the ratios are 2 and 4
		"| 1 MiB | 0.60 | 2.00 |", // CPU
		"| 4 B | - | 7.00 |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if err := report(&out, strings.NewReader("no JSON\n"), nil); err == nil {
		t.Error("rubbish passes")
	}
}
