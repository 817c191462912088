package trainer

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/data"
)

func TestParseJobTakesDefaultsForWhatIsNotGiven(t *testing.T) {
	j, err := ParseJob([]byte("name: mine\nbatch: {size: 64}\nmodel: {name: mlp, hidden: [32, 16]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if j.Name != "mine" || j.Out != "runs/mine" || j.Batch.Size != 64 || j.Batch.LogicalShards != 8 || j.Model.Name != "mlp" {
		t.Errorf("got %+v", j)
	}
	if got := j.Model.Options["hidden"]; got == nil {
		t.Error("the model's option is lost")
	}
	if empty, err := ParseJob(nil); err != nil || empty.Name != DefaultJob().Name {
		t.Errorf("an empty file is %+v, %v; want the default job", empty, err)
	}
}

func TestPrecision(t *testing.T) {
	for word, good := range map[string]bool{"fp32": true, "tf32": true, "bf16": true, "fp16": false, "BF16": false, "\"\"": false} {
		j, err := ParseJob([]byte("precision: " + word))
		if good != (err == nil) || good && string(j.Precision) != word {
			t.Errorf("%s: %q, %v", word, j.Precision, err)
		}
		if !good && !strings.Contains(err.Error(), "use fp32 or tf32 or bf16") {
			t.Errorf("%s: %v", word, err)
		}
	}
}

func TestJobSurvivesItsOwnYAML(t *testing.T) {
	j := DefaultJob()
	j.Model.Options = map[string]any{"channels": []any{uint64(8), uint64(16)}, "hidden": uint64(32)}
	b, err := j.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseJob(b)
	if err != nil {
		t.Fatalf("%v in\n%s", err, b)
	}
	want, _ := j.Digest()
	if got, _ := again.Digest(); got != want {
		t.Errorf("the job changed on its way through YAML:\n%s", b)
	}
}

// A model is the same by name and as the list that it expands to, also when that has been through YAML.
func TestExpandedModelSurvivesYAML(t *testing.T) {
	for name, form := range map[string]data.Form{
		"mlp": {Shape: []int{5}, Classes: 3}, "resnet50": {Shape: []int{3, 32, 32}, Classes: 7}, "gpt": {Kind: data.Tokens, Shape: []int{6}, Classes: 9},
	} {
		j := DefaultJob()
		j.Model = Model{Name: name}
		if name == "gpt" {
			j.Model.Options = map[string]any{"layers": uint64(2), "dropout": 0.1}
		}
		want, err := j.BuildModel(form)
		if err != nil {
			t.Fatal(err)
		}
		if j.Model, err = j.Model.Expand(); err != nil {
			t.Fatal(err)
		}
		b, err := j.YAML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseJob(b)
		if err != nil {
			t.Fatalf("%v in\n%s", err, b)
		}
		got, err := again.BuildModel(form)
		if err != nil || !reflect.DeepEqual(got.Tensors(), want.Tensors()) {
			t.Errorf("%s: error %v in\n%s", name, err, b)
		}
	}
}

// Faults of the section model are told with all others, each with its place.
func TestParseJobTellsFaultsOfModels(t *testing.T) {
	for given, want := range map[string]string{
		"model: {name: lenet, layers: [relu]}":    "model.name (lenet) and model.layers are given",
		"model: {layers: [{linear: -3}, rely]}":   "model.layers[1]: unknown layer \"rely\"",
		"model: {layers: 4}":                      "model.layers: 4 is not a list of layers",
		"model: {layers: [linear], hidden: 5}":    "model.hidden is no option",
		"model: {name: mlp, loss: hinge}":         "model.loss is \"hinge\"",
		"model: {name: mlp, loss: [hinge]}":       "model.loss is [hinge]: write a word",
		"model: {name: gpt, layers: 0, width: 5}": "model.layers: 0 is not a size",
		"model: {name: mlp, hiden: 3}\npasses: 0": "model.hiden is unknown: known options are hidden (mlp)",
		"model: {}": "model.name is missing",
		"model: {name: resnet50, blocks: [1, 2, 3]}\npasses: 0": "passes is 0",
	} {
		if _, err := ParseJob([]byte(given)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v, want %q", given, err, want)
		}
	}
}

// All faults are told at once, each with its field.
func TestParseJobNamesEveryFault(t *testing.T) {
	_, err := ParseJob([]byte(`
name: ""
passes: 0
batch: {size: 0, logical_shards: 0}
optimizer: {name: adamw, lr: -1}
sync: {mode: tree, sum: roughly, wire: copper, stripes: 0, commit_every: 0}
cluster: {servers: 0, replicas: 9, parameter_shards: 0, durability: paper}
data: {source: glyphs, train: 0, test: -1}
`))
	if err == nil {
		t.Fatal("no fault was found")
	}
	for _, field := range []string{
		"name is", "passes", "batch.size", "batch.logical_shards", "optimizer", "sync.mode", "sync.sum", "sync.wire", "sync.stripes", "sync.commit_every",
		"cluster.servers", "cluster.replicas", "cluster.parameter_shards", "cluster.durability", "data.train", "data.test",
	} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("the faults do not name %s:\n%v", field, err)
		}
	}
}

// Rounded gradients and exact sums exclude each other.
func TestParseJobRefusesRoundedExactSums(t *testing.T) {
	for _, wire := range []string{WireBF16, WireInt8} {
		for _, text := range []string{"sync: {wire: %s}", "sync: {wire: %s, sum: exact, mode: server}"} {
			if _, err := ParseJob(fmt.Appendf(nil, text, wire)); err == nil || !strings.Contains(err.Error(), "sync.wire is "+wire) {
				t.Errorf(text+": %v", wire, err)
			}
		}
		if _, err := ParseJob(fmt.Appendf(nil, "sync: {wire: %s, sum: fast}", wire)); err != nil {
			t.Error(err)
		}
	}
}

func TestParseJobRefusesUnknownKeysWithTheirLine(t *testing.T) {
	_, err := ParseJob([]byte("name: x\npases: 3\n"))
	if err == nil || !strings.Contains(err.Error(), `[2:1] unknown field "pases"`) || !strings.Contains(err.Error(), "docs/job.md") {
		t.Errorf("got %v", err)
	}
	_, err = ParseJob([]byte("name: [unclosed\n"))
	if err == nil {
		t.Error("broken YAML was taken")
	}
}

// Other data than the built-in do not inherit what only glyphs have.
func TestParseJobWithFilesHasNoGlyphSeed(t *testing.T) {
	j, err := ParseJob([]byte("data: {source: idx, images: a, labels: b, train: 10, test: 2}\nbatch: {size: 8}\n"))
	if err != nil || j.Data.Seed != 0 {
		t.Errorf("got %+v, %v", j.Data, err)
	}
}

// The digest says whether nodes do the same: where files lie is not part of it.
func TestDigestIgnoresWhereFilesLie(t *testing.T) {
	a, err := ParseJob([]byte("data: {source: idx, images: /a/i, labels: /a/l, train: 10, test: 2}\nout: x\nbatch: {size: 8}\n"))
	if err != nil {
		t.Fatal(err)
	}
	b, c := a, a
	b.Data.Images, b.Out = "/b/i", "y"
	c.Optimizer.LR *= 2
	da, _ := a.Digest()
	if db, _ := b.Digest(); db != da {
		t.Error("another folder makes another job")
	}
	if dc, _ := c.Digest(); dc == da {
		t.Error("another learning rate makes the same job")
	}
}

// ownSamples are a program's: so many, each 1 of class 0 or 1.
type ownSamples int

func (n ownSamples) Len() int                    { return int(n) }
func (ownSamples) Form() data.Form               { return data.Form{Shape: []int{1}, Classes: 2} }
func (ownSamples) Sample(i int, into data.Batch) { into.X[0], into.Labels[0] = 1, int32(i%2) }

// A program's samples are part of the job, and of what a checkpoint may be taken up by; the digest of them is in its YAML.
func TestDigestTakesInOwnSamples(t *testing.T) {
	var jobs, states [2][32]byte
	for i, n := range []ownSamples{8, 9} {
		j := DefaultJob()
		var err error
		if j.Data, err = data.Own(n, ownSamples(2)); err != nil {
			t.Fatal(err)
		}
		j.Data.Train = 8
		jobs[i], _ = j.Digest()
		states[i], _ = j.StateDigest()
		if text, err := j.YAML(); err != nil || !strings.Contains(string(text), j.Data.Digest) {
			t.Errorf("%s, error %v", text, err)
		}
	}
	if jobs[0] == jobs[1] || states[0] == states[1] {
		t.Error("other samples make the same job")
	}
}

// Every example in the repository is a valid job.
func TestExamples(t *testing.T) {
	paths, err := filepath.Glob("../examples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		if _, err := LoadJob(p); err != nil {
			t.Error(err)
		}
	}
	if _, err := LoadJob("../examples/no-such.yaml"); err == nil || !os.IsNotExist(unwrapAll(err)) {
		t.Errorf("a missing file gives %v", err)
	}
}

func unwrapAll(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok || u.Unwrap() == nil {
			return err
		}
		if _, isPath := err.(*os.PathError); isPath {
			return err
		}
		err = u.Unwrap()
	}
}

func FuzzParseJob(f *testing.F) {
	f.Add([]byte("name: x\nmodel: {name: mlp, hidden: [3]}\n"))
	f.Add([]byte("data: {source: idx}\n"))
	f.Add([]byte("model: 3\n"))
	f.Add([]byte(scheduled))
	f.Add([]byte("optimizer: {name: ftrl, l1: .nan, schedule: {name: step, every: -9223372036854775808}}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<12 {
			return
		}
		j, err := ParseJob(b)
		if err == nil && j.Validate() != nil {
			t.Errorf("a job was taken that is not valid: %v", j.Validate())
		}
	})
}

// A job without a name is called as what it trains on, and its outputs lie under that name.
func TestNameOfAJob(t *testing.T) {
	for text, want := range map[string][2]string{
		"passes: 2":                              {"digits", "runs/digits"},
		"data: {source: csv, path: a, label: b}": {"csv", "runs/csv"},
		"{name: prices, data: {source: csv, path: a, label: b}}":     {"prices", "runs/prices"},
		"{out: elsewhere, data: {source: libsvm, path: a}}":          {"libsvm", "elsewhere"},
		"{name: x, out: elsewhere, data: {source: libsvm, path: a}}": {"x", "elsewhere"},
	} {
		if j, err := ParseJob([]byte(text)); err != nil || [2]string{j.Name, j.Out} != want {
			t.Errorf("%s: name %q, out %q, %v", text, j.Name, j.Out, err)
		}
	}
}

func TestParseJobOfASmallCluster(t *testing.T) {
	for text, want := range map[string]int{"cluster: {servers: 2}": 2, "cluster: {servers: 7}": 3, "cluster: {servers: 5, replicas: 5}": 5, "": 3} {
		if j, err := ParseJob([]byte(text)); err != nil || j.Cluster.Replicas != want {
			t.Errorf("%q: %d replicas, want %d (%v)", text, j.Cluster.Replicas, want, err)
		}
	}
}

// A value of another kind than its field's is named by the field, with what is needed; all of them at once.
func TestParseJobNamesMisfits(t *testing.T) {
	for text, want := range map[string]string{
		"just text":                                 `the job is "just text": a section with fields of its own is needed`,
		"model: mlp":                                `model is "mlp": a section, such as {name: mlp}, is needed`,
		"passes: 1.5":                               "passes is 1.5: a whole number is needed",
		"seed: -3":                                  "seed is -3: a whole number of 0 or more is needed",
		"optimizer: {name: adam, lr: fast}":         `optimizer.lr is "fast": a number is needed`,
		"data: {source: csv, header: maybe}":        `data.header is "maybe": true or false is needed`,
		"data: {source: csv, numeric: age}":         `data.numeric is "age": a list is needed`,
		"tables: {deep: {admit: many}}":             `tables.deep.admit is "many": a whole number is needed`,
		"name: [a]":                                 "name is a list: a word is needed",
		"cluster: {replace_after: 30 parsecs}":      `cluster.replace_after is "30 parsecs": a time with its unit, such as 30s, is needed`,
		"batch: {size: {}}\ncheckpoint: {every: t}": "batch.size is a section: a whole number is needed\ncheckpoint.every is \"t\": a whole number is needed",
	} {
		if _, err := ParseJob([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
	for _, text := range []string{"name: 3", "optimizer: {lr: 1}", "optimizer: {lr: 1e-3}", "cluster: {replace_after: 1m}", "passes: 1e1", "out: 5", "optimizer:", "data: {test: 2_000}"} {
		if _, err := ParseJob([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}
