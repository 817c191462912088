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

// untrained is a model as a job has it before its first step, and its data.
type untrained struct {
	job         Job
	spec        *nn.Spec
	weights     []float32
	device      *cpu.Device
	train, test data.Dataset
}

func newUntrained(t *testing.T, text string) (m untrained) {
	t.Helper()
	fatal := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	m.job, err = ParseJob([]byte(text))
	fatal(err)
	m.train, m.test, err = data.Open(t.Context(), m.job.Data, nil)
	fatal(err)
	m.spec, err = m.job.BuildModel(m.train.Form())
	fatal(err)
	m.weights = make([]float32, m.spec.Params())
	fatal(m.spec.Init(m.weights, 3))
	m.device, err = cpu.New()
	fatal(err)
	return m
}

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
	for name, text := range map[string]string{
		"classes":     "model: {name: lenet}\ndata: {source: glyphs, train: 64, test: 37}",
		"two classes": "model: {name: logistic}\ndata: {source: csv, label: kind, path: " + table + "}",
		"numbers":     "model: {name: mlp, hidden: [8]}\ndata: {source: csv, label: size, path: " + table + "}",
	} {
		t.Run(name, func(t *testing.T) {
			m := newUntrained(t, text+"\nbatch: {size: 16, logical_shards: 3}\n")
			want, err := Evaluate(t.Context(), m.job, m.spec, m.device, m.weights, nil, m.train, m.test)
			if err != nil {
				t.Fatal(err)
			}
			scores, err := Predict(t.Context(), m.job, m.spec, m.device, m.weights, nil, m.train, m.test)
			if err != nil {
				t.Fatal(err)
			}
			loss, k, one := 0.0, m.spec.Scored(), data.NewBatch(m.test, 1)
			for i := range m.test.Len() {
				m.test.Sample(i, one)
				loss += lossOf(m.spec.Loss(), scores[i*k:(i+1)*k], one)
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
