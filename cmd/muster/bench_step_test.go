package main

import (
	"encoding/json"
	"math"
	"os/exec"
	"strings"
	"testing"
)

// Real processes: every model takes its steps, and learns its one batch by heart.
func TestBenchStep(t *testing.T) {
	bin, err := musterBinary()
	if err != nil {
		t.Fatal(err)
	}
	for _, model := range benchModelNames() {
		if benchModels()[model].large {
			continue
		}
		cmd := exec.CommandContext(t.Context(), bin, "bench", "step", "--model", model, "--threads", "2", "--shards", "3", "--batch", "4", "--secs", "0.001", "--path", "--json")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", model, err, out)
		}
		var r stepRow
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if r.Model != model || r.Threads != 2 || r.Shards != 3 || r.Batch != 4 || r.Steps != 5 || !(r.PerSecond > 0) || !(r.MaxRSS > 1) || !(r.BareMs > 0) || !(r.UpdateMs > 0) {
			t.Errorf("%s", out)
		}
		if guess := math.Log(float64(benchModels()[model].classes)); !(r.Loss > 0 && r.Loss < guess) {
			t.Errorf("%s: after 7 steps the loss is %v, no better than a guess (%v)", model, r.Loss, guess)
		}
	}
	if out, err := exec.CommandContext(t.Context(), bin, "bench", "step", "--model", "x", "--threads", "0", "--sum", "y").CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "--model") || !strings.Contains(string(out), "--threads") || !strings.Contains(string(out), "--sum") {
		t.Errorf("%v: %s", err, out)
	}
}
