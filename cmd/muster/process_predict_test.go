package main

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPredict trains on a table, and has the model say the answers of the rows that are held out, of which it gets no answers: as many are
// right as eval counts.
func TestPredict(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	rng := rand.New(rand.NewPCG(1, 2))
	table := func(n int) (whole, blank string, kinds []string) {
		whole, blank = "x,y,kind\n", "y,x\n"
		for range n {
			x, y := rng.NormFloat64(), rng.NormFloat64()
			kind := map[bool]string{true: "near, or so", false: "far"}[x*x+y*y < 1.2]
			whole += fmt.Sprintf("%g,%g,%q\n", x, y, kind)
			blank += fmt.Sprintf("%g,%g\n", y, x)
			kinds = append(kinds, kind)
		}
		return whole, blank, kinds
	}
	train, _, _ := table(400)
	test, blank, kinds := table(97)
	job := write("job.yaml", "model: {name: mlp, hidden: [16]}\npasses: 10\nbatch: {size: 20, logical_shards: 2}\noptimizer: {lr: 0.01}\ndata: {source: csv, label: kind, path: "+
		write("train.csv", train)+", test_path: "+write("test.csv", test)+"}\n")
	out := filepath.Join(dir, "out")
	if _, said, err := runMuster(t, nil, "train", "-f", job, "--out", out); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	model := filepath.Join(out, "model.safetensors")
	measured, said, err := runMuster(t, nil, "eval", model, "--json")
	var of struct {
		Accuracy float64 `json:"test_accuracy"`
	}
	if err == nil {
		err = json.Unmarshal([]byte(measured), &of)
	}
	if err != nil {
		t.Fatalf("%v: %s%s", err, measured, said)
	}
	answers, said, err := runMuster(t, nil, "predict", model, "--data", write("new.csv", blank))
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	lines := strings.Split(strings.TrimSpace(answers), "\n")
	if len(lines) != 1+len(kinds) || lines[0] != "prediction,probability" {
		t.Fatalf("%d lines, the first %q", len(lines), lines[0])
	}
	write("train.csv", strings.Replace(train, ".", "0.", 9)) // other means
	for _, verb := range [][]string{{"eval", model}, {"predict", model, "--data", filepath.Join(dir, "new.csv")}} {
		if _, said, err := runMuster(t, nil, verb...); err == nil || !strings.Contains(said, "not those that "+model+" was trained on") {
			t.Errorf("%s by other training data: %v, %q", verb[0], err, said)
		}
	}
	right := 0
	for i, kind := range kinds {
		if strings.HasPrefix(strings.Trim(lines[1+i], `"`), kind) {
			right++
		}
	}
	if got := float64(right) / float64(len(kinds)); math.Abs(got-of.Accuracy) > 1e-6 || got < 0.7 {
		t.Errorf("%.4f of the predictions are right, eval says %.4f", got, of.Accuracy)
	}
}
