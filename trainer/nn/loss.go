package nn

import "github.com/musterml/muster/trainer/data"

// Loss is what training makes small.
type Loss string

// The losses.
const (
	CrossEntropy       Loss = "cross_entropy"        // of the softmax, over classes
	BinaryCrossEntropy Loss = "binary_cross_entropy" // of the sigmoid of one output, for two classes
	SquaredError       Loss = "squared_error"        // for data that has numbers to be found, not classes
)

// lossFor is the loss of a model on data of a form: the one that it names, or else the one that suits.
func (m Model) lossFor(f data.Form) (Loss, error) {
	loss := m.Loss
	if loss == "" {
		loss = CrossEntropy
		if f.Regression() {
			loss = SquaredError
		} else if (m.Name == "logistic" || f.Kind == data.Keyed) && f.Classes == 2 {
			loss = BinaryCrossEntropy
		}
	}
	switch {
	case f.Regression() && loss != SquaredError:
		return loss, faultf("model.loss is %s, but the data has numbers to be found and no classes: use %s", loss, SquaredError)
	case !f.Regression() && loss == SquaredError:
		return loss, faultf("model.loss is %s, but the data has %d classes: use %s", loss, f.Classes, CrossEntropy)
	case f.Regression() && m.Name == "logistic":
		return loss, faultf("model.name is logistic, which needs classes, but the data has numbers to be found: use linear")
	case loss == BinaryCrossEntropy && f.Classes != 2:
		return loss, faultf("model.loss is %s, which is for 2 classes, but the data has %d: use %s", loss, f.Classes, CrossEntropy)
	}
	return loss, nil
}

// outputs is how many values of the last layer the loss takes for each label.
func (l Loss) outputs(classes int) int {
	if l == CrossEntropy {
		return classes
	}
	return 1
}
