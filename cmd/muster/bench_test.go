package main

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestParseSizes(t *testing.T) {
	got, err := parseSizes("4, 16K,1m,2G")
	if want := []int{4, 16 << 10, 1 << 20, 2 << 30}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "x", "5", "-4", "4K4", "K", "17G", "4,,4", "99999999999999999999"} {
		if got, err := parseSizes(bad); err == nil {
			t.Errorf("%q passes as %v", bad, got)
		}
	}
}

// Real processes, every form; the sums are checked by the program itself.
func TestBenchRing(t *testing.T) {
	bin, err := musterBinary()
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range benchForms() {
		cmd := exec.CommandContext(t.Context(), bin, "bench", "ring", "--world", "3", "--sizes", "0,4,64K,1M", "--secs", "0.001", "--form", form, "--json")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", form, err, out)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if len(lines) != 4 {
			t.Fatalf("%s: %d rows\n%s", form, len(lines), out)
		}
		for _, line := range lines {
			var r benchRow
			if err := json.Unmarshal([]byte(line), &r); err != nil || r.World != 3 || r.Variant != form || !(r.MedUs > 0) || r.Iters < 7 {
				t.Errorf("%v: %s", err, line)
			}
		}
	}
	if out, err := exec.CommandContext(t.Context(), bin, "bench", "ring", "--world", "0", "--sizes", "5", "--form", "x").CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "--world") || !strings.Contains(string(out), "--sizes") || !strings.Contains(string(out), "--form") {
		t.Errorf("%v: %s", err, out)
	}
}
