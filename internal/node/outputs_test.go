package node

import (
	"strings"
	"testing"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/trainer"
)

// Every line says what it is: a share of classes that are right, or R², which is another thing and may be negative; and the
// learning rate of the step, which the schedule of the whole run gives.
func TestMetricsLines(t *testing.T) {
	o := trainer.Optimizer{Name: "sgd", LR: 0.5, Schedule: trainer.Schedule{Name: "polynomial", Power: 1}}
	metrics := []*pb.StepMetrics{
		{Step: 0, Loss: 2, Accuracy: 0, GradNorm: 1.5},
		{Step: 1, Loss: 1, Accuracy: -0.25, Regression: true, Evaluated: true, TestLoss: 3, TestAccuracy: -2},
		{Step: 2, Evaluated: true, TestLoss: 4, TestAccuracy: 0.5},
	}
	want := `{"step":0,"loss":2,"accuracy":0,"lr":0.5,"grad_norm":1.5,"time":"1970-01-01T00:00:00Z"}
{"state_at":1,"test_loss":3,"test_r_squared":-2,"time":"1970-01-01T00:00:00Z"}
{"step":1,"loss":1,"r_squared":-0.25,"lr":0.25,"time":"1970-01-01T00:00:00Z"}
{"state_at":2,"test_loss":4,"test_accuracy":0.5,"time":"1970-01-01T00:00:00Z"}
`
	got := string(metricsLines(metrics, 2, func(at id.Step) float64 { return o.Rate(at, 2) }))
	if got != want {
		t.Errorf("got\n%swant\n%s", got, strings.TrimSpace(want))
	}
}
