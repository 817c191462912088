package main

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// Real processes, every mode, with a small model; the trainers check the weights, also after a kill.
func TestBenchServer(t *testing.T) {
	bin, err := musterBinary()
	if err != nil {
		t.Fatal(err)
	}
	small := []string{"bench", "server", "--json", "--blocks", "5", "--block-bytes", "64KiB", "--shards", "2", "--rounds", "3", "--warmup", "1", "--kills", "1", "--data-dir", t.TempDir()}
	for _, options := range [][]string{
		{"--replicas", "1", "--trainers", "2"},
		{"--replicas", "3", "--mode", "log"},
		{"--mode", "kill"},
	} {
		out, err := exec.CommandContext(t.Context(), bin, append(small[:len(small):len(small)], options...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", options, err, out)
		}
		var r serverRow
		if err := json.Unmarshal(out, &r); err != nil || !(r.MedMs > 0) {
			t.Errorf("%v: %v: %s", options, err, out)
		}
		if want := 5 * float64(64<<10); r.Mode == "roundtrip" && r.Ingress != want {
			t.Errorf("%v: %v bytes went into the servers per step, the model has %v", options, r.Ingress, want)
		}
		if r.Kills != map[bool]int{true: 1}[r.Mode == "kill"] {
			t.Errorf("%v: %d kills", options, r.Kills)
		}
	}
	out, err := exec.CommandContext(t.Context(), bin, "bench", "server", "--mode", "x", "--replicas", "0", "--durability", "rust").CombinedOutput()
	for _, want := range []string{"--mode", "--replicas", "--durability"} {
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%v: %s", err, out)
		}
	}
}
