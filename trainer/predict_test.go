package trainer

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device/cpu"
	"github.com/musterml/muster/trainer/nn"
)

// What is predicted of held-out samples has the loss that Evaluate finds, in float64, with each loss.
func TestPredict(t *testing.T) {
	table := filepath.Join(t.TempDir(), "table.csv")
	rows := "x,y,kind,size\n"
	for i := range 200 {
		rows += strings.Join([]string{"-" + string(rune('0'+i%10)), string(rune('0' + i*7%10)), []string{"a", "b"}[i*i%3%2], string(rune('0'+i%9)) + ".5"}, ",") + "\n"
	}
	if err := os.WriteFile(table, []byte(rows), 0o644); err != nil {
		t.Fatal(err)
	}
	dev, err := cpu.New()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"classes":     "model: {name: lenet}\ndata: {source: glyphs, train: 64, test: 37}",
		"two classes": "model: {name: logistic}\ndata: {source: csv, label: kind, path: " + table + "}",
		"numbers":     "model: {name: mlp, hidden: [8]}\ndata: {source: csv, label: size, path: " + table + "}",
	} {
		t.Run(name, func(t *testing.T) {
			j, err := ParseJob([]byte(text + "\nbatch: {size: 16, logical_shards: 3}\n"))
			if err != nil {
				t.Fatal(err)
			}
			train, test, err := data.Open(t.Context(), j.Data, nil)
			if err != nil {
				t.Fatal(err)
			}
			spec, err := j.BuildModel(train.Form())
			if err != nil {
				t.Fatal(err)
			}
			w := make([]float32, spec.Params())
			if err := spec.Init(w, 3); err != nil {
				t.Fatal(err)
			}
			want, err := Evaluate(t.Context(), j, spec, dev, w, nil, train, test)
			if err != nil {
				t.Fatal(err)
			}
			scores, err := Predict(t.Context(), j, spec, dev, w, nil, train, test)
			if err != nil {
				t.Fatal(err)
			}
			loss, k, one := 0.0, spec.Scored(), data.NewBatch(test, 1)
			for i := range test.Len() {
				test.Sample(i, one)
				loss += lossOf(spec.Loss(), scores[i*k:(i+1)*k], one)
			}
			if math.Abs(loss-want.Loss) > 1e-5*want.Loss {
				t.Errorf("the loss of what is predicted is %v, measured %v", loss, want.Loss)
			}
		})
	}
}

// lossOf is the loss of one sample.
func lossOf(l nn.Loss, scores []float32, of data.Batch) float64 {
	switch l {
	case nn.SquaredError:
		d := float64(scores[0]) - float64(of.Targets[0])
		return d * d
	case nn.BinaryCrossEntropy:
		z := float64(scores[0])
		return math.Log1p(math.Exp(z)) - z*float64(of.Labels[0])
	}
	sum := 0.0
	for _, s := range scores {
		sum += math.Exp(float64(s))
	}
	return math.Log(sum) - float64(scores[of.Labels[0]])
}
