package data

// Pictures become numbers as (grey/255 - mean) / std with MNIST's published mean and
// standard deviation over all its pixels. They are constants, not measured on the data
// at hand, so that a sample's value never depends on which other samples a node holds;
// glyphs are drawn to about the same darkness and use them too, so one learning rate
// serves both.
const (
	greyMean = 0.1307
	greyStd  = 0.3081

	// normalisation names the rule in digests.
	normalisation = "(grey/255-0.1307)/0.3081"
)

// greyTable maps a grey byte to the model's input.
type greyTable [256]float32

func newGreyTable() *greyTable {
	var t greyTable
	for i := range t {
		// Divisions and one subtraction, each correctly rounded; nothing here that a
		// compiler may fuse.
		scaled := float64(float64(i) / 255)
		t[i] = float32(float64(scaled-greyMean) / greyStd)
	}
	return &t
}

// expand fills x with the pixels' values; x is at least as long.
func (t *greyTable) expand(x []float32, pixels []byte) {
	x = x[:len(pixels)]
	for i, p := range pixels {
		x[i] = t[p]
	}
}
