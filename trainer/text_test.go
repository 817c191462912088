package trainer

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/device/cpu"
	"github.com/musterml/muster/trainer/nn"
)

// textJob is a small gpt on a small text.
func textJob(t *testing.T) Job {
	t.Helper()
	j, err := ParseJob([]byte(`
name: text
model: {name: gpt, width: 16, heads: 2, layers: 1}
data: {source: text, path: set below, context: 8, train: 40, test: 7}
batch: {size: 20, logical_shards: 3}
passes: 1
`))
	if err != nil {
		t.Fatal(err)
	}
	j.Data.Path = filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(j.Data.Path, []byte(strings.Repeat("who goes there? a friend. ", 20)), 0o644); err != nil {
		t.Fatal(err)
	}
	return j
}

// Losses and gradients of text are means over labels, one for each character, whether they
// are computed shard by shard or all at once.
func TestTextIsMeasuredPerLabel(t *testing.T) {
	j := textJob(t)
	train, test, err := data.Open(t.Context(), j.Data, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := j.BuildModel(train.Form())
	if err != nil {
		t.Fatal(err)
	}
	dev, err := cpu.New()
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWork(j, spec, dev, train, test, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	weights := make([]float32, spec.Params())
	if err := spec.Init(weights, 1); err != nil {
		t.Fatal(err)
	}
	if err := w.compute(t.Context(), 1, 0, weights, []id.LogicalShard{0, 1, 2}); err != nil {
		t.Fatal(err)
	}
	var sum nn.Result
	grad := make([]float64, spec.Params())
	for l := range w.units {
		u := &w.units[l]
		sum.Loss += u.Loss
		sum.Correct += u.Correct
		for i, g := range u.grad {
			grad[i] += float64(g)
		}
	}
	whole, all := data.Batches{Size: 20, LogicalShards: 1}, data.NewBatch(train, 20)
	in := data.NewLoader(train, j.Seed, whole).Fill(0, []id.LogicalShard{0}, all)
	r, err := spec.NewReplica(dev, 20, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want := make([]float32, spec.Params())
	result, err := r.Gradient(weights, in, device.DropoutKey{}, 1.0/(20*8), want)
	if err != nil {
		t.Fatal(err)
	}
	if sum.Correct != result.Correct || math.Abs(sum.Loss-result.Loss) > 1e-9*result.Loss {
		t.Errorf("%+v in shards, %+v at once", sum, result)
	}
	for i := range want {
		if math.Abs(grad[i]-float64(want[i])) > 1e-5 {
			t.Fatalf("gradient %d is %v in shards, %v at once", i, grad[i], want[i])
		}
	}

	s := &shift{Trainer: &Trainer{cfg: Config{Job: j, Spec: spec, Test: test}, work: w, steps: w.steps}}
	held, err := Evaluate(t.Context(), j, spec, dev, weights, nil, train, test)
	if err != nil {
		t.Fatal(err)
	}
	if m := s.measure(0, sum, held.Result); m.Loss != sum.Loss/160 || m.Accuracy != float64(sum.Correct)/160 || m.Evaluated {
		t.Errorf("step 0 measures %v", m)
	}
	if m := s.measure(w.steps, sum, held.Result); m.TestLoss != held.Loss/56 || m.TestAccuracy != float64(held.Correct)/56 {
		t.Errorf("the last step measures %v", m)
	}
	if held.Loss/56 < 1 || held.Loss/56 > 10 {
		t.Errorf("%v nats per character before any training", held.Loss/56)
	}
}

func TestModelMustFitTheData(t *testing.T) {
	text, glyphs := textJob(t), DefaultJob()
	text.Model, glyphs.Model = Model{Name: "mlp"}, Model{Name: "gpt"}
	if _, err := text.BuildModel(data.Form{Kind: data.Tokens, Shape: []int{8}, Classes: 12}); err == nil || err.Error() != "model mlp: model.layers[0] linear: it needs numbers, here come sequences of 8 tokens: begin with embedding, or use the model gpt" {
		t.Errorf("got %v", err)
	}
	if _, err := glyphs.BuildModel(data.Form{Shape: []int{8}, Classes: 10}); err == nil || err.Error() != "model gpt: model.layers[0] embedding: it needs tokens, as data.source text has them, and to be the first layer, here come vectors of 8 values" {
		t.Errorf("got %v", err)
	}
	if _, err := glyphs.BuildModel(data.Form{Shape: []int{1, 28, 28}, Classes: 10}); err == nil {
		t.Error("gpt takes pictures")
	}
}

// A job of text need only name its file; where that lies is not part of the job.
func TestParseJobOfText(t *testing.T) {
	parse := func(path string) Job {
		j, err := ParseJob([]byte("model: {name: gpt}\ndata: {source: text, path: " + path + "}\n"))
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	a, b := parse("/a/t"), parse("/b/t")
	want := data.DefaultText()
	if want.Path = "/a/t"; !reflect.DeepEqual(a.Data, want) {
		t.Errorf("got %+v, want %+v", a.Data, want)
	}
	da, _ := a.Digest()
	if db, _ := b.Digest(); da != db {
		t.Error("another folder makes another job")
	}
}
