package device

// Precision says how the factors of products (MatMul, Conv2D and its gradients) are rounded before they are multiplied. Sums are float32 in
// any case, and so is everything that is kept: weights, gradients, outputs of layers, slots of optimizers.
type Precision string

// The precisions.
const (
	FP32 Precision = "fp32" // not at all
	TF32 Precision = "tf32" // to 11 significant bits, with float32's range: NVIDIA's TensorFloat-32
	BF16 Precision = "bf16" // to 8 significant bits, with float32's range: bfloat16
)

// Precisions are all of them.
func Precisions() []Precision { return []Precision{FP32, TF32, BF16} }

// Products says how a run wants its products computed.
type Products struct {
	Precision Precision // "" is FP32
	// AnyOrder allows sums whose order depends on the shape, as a library of the vendor's makes them. Without it a row of a
	// product does not depend on how many rows there are.
	AnyOrder bool
}

// Chooser is a Device that has several kinds of products.
type Chooser interface {
	// Choose is the same device with such products; so its Arithmetic is another.
	Choose(Products) (Device, error)
}

// Choose is d with such products, and whether it has them: a device that is no Chooser stays as it is, in float32.
func Choose(d Device, p Products) (chosen Device, has bool, err error) {
	c, ok := d.(Chooser)
	if !ok {
		return d, p.Precision == FP32 || p.Precision == "", nil
	}
	chosen, err = c.Choose(p)
	return chosen, err == nil, err
}
