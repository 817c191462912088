package device

// SoftmaxCrossEntropy takes logits (N, Classes) and labels (Int32, N; each within
// [0, Classes)). It sums the losses and counts the rows whose largest logit (the first one of
// equals) is the label; DLogits (N, Classes), optional, is Scale times the gradient of the
// loss sum. DLogits may be Logits.
//
// Order: within a row in an order of the device's, a function of Classes alone; the rows' losses in
// float64 by row.
type SoftmaxCrossEntropy struct {
	N, Classes int
	Logits     Buffer
	Labels     Buffer
	DLogits    Buffer
	Scale      float32
	Total      *Total // valid after Sync
}

// BinaryCrossEntropy takes N logits x and as many targets t in [0, 1], of kind Float32, or Int32 for those that
// are all 0 or 1. It sums the losses max(x, 0) - x*t + ln(1 + e**-|x|), and counts the logits that are above 0
// where t > 1/2, and not above it elsewhere. DLogits (N), optional, is Scale times the gradient of the loss sum,
// sigmoid(x) - t. DLogits may be Logits. PyTorch's binary_cross_entropy_with_logits(reduction="sum").
//
// Order: everything in float64, the losses by element; so the same bits on every device of one Arithmetic.
type BinaryCrossEntropy struct {
	N       int
	Logits  Buffer
	Targets Buffer
	DLogits Buffer
	Scale   float32
	Total   *Total // valid after Sync
}

// SquaredError takes N predictions y and as many real-valued targets t. It sums (y-t)^2; DY (N), optional, is
// Scale times the gradient of that sum, 2(y-t). Total.Correct is 0. DY may be Y. PyTorch's mse_loss(reduction="sum").
//
// Order: everything in float64, by element.
type SquaredError struct {
	N       int
	Y       Buffer
	Targets Buffer
	DY      Buffer
	Scale   float32
	Total   *Total // valid after Sync
}

// Total is what a loss sums up.
type Total struct {
	Loss    float64 // sum over the samples (in nats, but for SquaredError)
	Correct int     // samples whose prediction is the label
}
