package main

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/musterml/muster/internal/node"
	"github.com/musterml/muster/trainer"
)

// jobText is a small job; lines of more are added to it.
type jobText struct {
	mode                  string
	train, passes         int
	servers, commitEvery  int
	replicas, paramShards int
	disk                  bool
	checkpoints           string // the section
	sync                  string // what else is in the section sync
	fast                  bool   // sums in float32, which hang on who adds them
	tables                bool   // a model with sparse tables instead of drawn digits
	logicalShards         int    // 8
}

const (
	digitsText = `model: {name: lenet}
data: {source: glyphs, train: %d, test: 128, seed: 3}
batch: {size: 64, logical_shards: %d}
`
	// tablesText has all that makes rows come and go.
	tablesText = `model: {name: wide_deep, width: 8, hidden: [16]}
data: {source: ctr, train: %d, test: 128, seed: 3}
batch: {size: 64, logical_shards: %d}
tables:
  deep: {optimizer: {name: adagrad, lr: 0.05}, admit: 2, expire: 30, max_rows: 4096}
  wide: {optimizer: {name: ftrl, lr: 0.05}}
`
)

// steady tells that the bytes of a run do not hang on who trains it.
func (j jobText) steady() bool { return j.mode != "ssp" && j.mode != "async" && !j.fast }

func (j jobText) String() string {
	text := fmt.Sprintf(map[bool]string{true: tablesText, false: digitsText}[j.tables], j.train, cmp.Or(j.logicalShards, 8))
	return text + fmt.Sprintf(`name: small
optimizer: {name: adam, lr: 0.001}
passes: %d
sync: {mode: %s, sum: %s, commit_every: %d%s}
cluster: {servers: %d, replicas: %d, parameter_shards: %d, durability: %s}
`, j.passes, j.mode, map[bool]string{true: "exact", false: "fast"}[j.steady()], max(j.commitEvery, 1), j.sync, j.servers, max(j.replicas, 1), max(j.paramShards, 1),
		map[bool]string{true: "disk", false: "memory"}[j.disk]) + j.checkpoints
}

func (j jobText) steps(t *testing.T) int {
	t.Helper()
	job, err := trainer.ParseJob([]byte(j.String()))
	if err != nil {
		t.Fatal(err)
	}
	return int(job.Steps())
}

// undisturbed holds the model that `muster train` makes of a job, by what matters of
// it: neither the mode nor the servers may change a byte.
var undisturbed = struct {
	sync.Mutex
	digest map[string]string
}{digest: map[string]string{}}

// digestOf is the SHA-256 of the model file of an undisturbed `muster train`.
func digestOf(t *testing.T, j jobText) string {
	t.Helper()
	key := fmt.Sprint(j.train, j.passes, j.sync, j.tables, j.logicalShards)
	undisturbed.Lock()
	defer undisturbed.Unlock()
	if d := undisturbed.digest[key]; d != "" {
		return d
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "job.yaml")
	if err := os.WriteFile(path, []byte(j.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if _, stderr, err := runMuster(t, nil, "train", "-f", path, "--out", dir, "--json"); err != nil {
		t.Fatalf("muster train: %v\n%s", err, stderr)
	}
	d := outputsDigest(t, dir, j)
	t.Logf("undisturbed: %d steps in %v, model %.12s", j.steps(t), time.Since(begin).Round(time.Millisecond), d)
	undisturbed.digest[key] = d
	return d
}

// outputsDigest is that of the model and, where it has some, of its sparse tables.
func outputsDigest(t *testing.T, dir string, j jobText) string {
	d := fileDigest(t, filepath.Join(dir, node.ModelFile))
	if j.tables {
		d = d[:8] + fileDigest(t, filepath.Join(dir, node.TablesFile))
	}
	return d
}

func fileDigest(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// checkOutputs demands of every node that ended well what a run promises: the bytes of
// the undisturbed run, or where the mode does not promise them the same ones on all; every step once and in order, a history
// and the job.
func (c *cluster) checkOutputs(j jobText) {
	c.t.Helper()
	want := ""
	if j.steady() {
		want = digestOf(c.t, j)
	}
	wrote := 0
	for _, p := range c.nodes {
		if p.killed() || p.spec.stranger != "" || p.err != nil || p.finished == nil || p.finished.Out == "" {
			continue
		}
		wrote++
		if strings.Contains(p.roles, trainerOnly) {
			got := outputsDigest(c.t, p.out, j)
			if want == "" {
				want = got
			}
			if got != want {
				c.t.Errorf("%s: the model is %.12s, it should be %.12s", p.name, got, want)
			}
		}
		times := stepTimes(c.t, p.out)
		if n := j.steps(c.t); len(times) != n {
			c.t.Errorf("%s: the metrics hold %d steps of %d", p.name, len(times), n)
		}
		for _, f := range []string{node.EventsFile, node.JobFile} {
			if info, err := os.Stat(filepath.Join(p.out, f)); err != nil || info.Size() == 0 {
				c.t.Errorf("%s: %s is missing or empty: %v", p.name, f, err)
			}
		}
	}
	if wrote == 0 {
		c.t.Error("no node wrote outputs")
	}
}

// stepTimes reads when each step was done, and demands 0, 1, 2, ... without gap or repetition.
func stepTimes(t *testing.T, out string) []time.Time {
	t.Helper()
	var times []time.Time
	for _, line := range jsonLines(t, filepath.Join(out, node.MetricsFile)) {
		var m struct {
			Step *int      `json:"step"`
			Time time.Time `json:"time"`
		}
		if err := json.Unmarshal(line, &m); err != nil {
			t.Errorf("%s: %v in %s", out, err, line)
			continue
		}
		if m.Step == nil {
			continue // an evaluation
		}
		if *m.Step != len(times) {
			t.Errorf("%s: step %d stands where %d belongs", out, *m.Step, len(times))
		}
		times = append(times, m.Time)
	}
	return times
}

// event is a line of events.jsonl.
type event struct {
	Time time.Time `json:"time"`
	Kind string    `json:"kind"`
	Node string    `json:"node"`
	View uint64    `json:"view"`
	Step int       `json:"step"`
	Text string    `json:"text"`
}

func readEvents(t *testing.T, out string) []event {
	t.Helper()
	var events []event
	for _, line := range jsonLines(t, filepath.Join(out, node.EventsFile)) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Errorf("%s: %v in %s", out, err, line)
		}
		events = append(events, e)
	}
	return events
}

func jsonLines(t *testing.T, path string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return nil
	}
	var lines [][]byte
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		lines = append(lines, bytes.Clone(s.Bytes()))
	}
	return lines
}
