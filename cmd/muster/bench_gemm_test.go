package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

func TestParseShapes(t *testing.T) {
	got, err := parseShapes("100, TN:1x2x3,layers,random=1")
	if err != nil || len(got) < 4 || got[1] != (gemmShape{"given", device.NT, 100, 100, 100}) || got[3] != (gemmShape{"given", device.TN, 1, 2, 3}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "x", "0", "1x2", "1x2x3x4", "TT:1x2x3", "NN:1x-2x3", "random=", "70000", "1,,2"} {
		if got, err := parseShapes(bad); err == nil {
			t.Errorf("%q passes as %v", bad, got)
		}
	}
}

// TestBenchGemm measures beside a program that claims 1000 ns for everything.
func TestBenchGemm(t *testing.T) {
	bin, err := musterBinary()
	if err != nil {
		t.Fatal(err)
	}
	peer := filepath.Join(t.TempDir(), "peer")
	script := "#!/bin/sh\necho a peer\nwhile read -r form m n k secs; do echo 1000; done\n"
	if err := os.WriteFile(peer, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	bench := func(args ...string) *exec.Cmd {
		return exec.CommandContext(t.Context(), bin, append([]string{"bench", "gemm"}, args...)...)
	}
	out, err := bench("--beside", peer, "--shapes", "8,NT:3x5x7", "--secs", "0.0001", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 5 {
		t.Fatalf("%d lines, want 4 shapes and a summary\n%s", len(lines), out)
	}
	var row gemmRow
	if err := json.Unmarshal([]byte(lines[3]), &row); err != nil || row.Form != "NT" || row.K != 7 || row.Peer != "a peer" ||
		row.PeerFlops != 0.21 || !(row.GFlops > 0) || !(row.Ratio > 0) {
		t.Errorf("%v: %s", err, lines[3])
	}
	var sum gemmSummary
	if err := json.Unmarshal([]byte(lines[4]), &sum); err != nil || sum.Shapes != 4 || !(sum.Geomean >= sum.Least) {
		t.Errorf("%v: %s", err, lines[4])
	}
	if out, err := bench("--shapes", "x", "--secs", "0").CombinedOutput(); err == nil || !strings.Contains(string(out), "--shapes") || !strings.Contains(string(out), "--secs") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := bench("--shapes", "8", "--beside", "/nonexistent").CombinedOutput(); err == nil || !strings.Contains(string(out), "--beside") {
		t.Errorf("%v: %s", err, out)
	}
}
