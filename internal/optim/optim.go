package optim

import (
	"errors"
	"fmt"
	"math"
	"sort"
	"strings"

	"github.com/musterml/muster/internal/id"
)

// Config names an optimizer and its constants. Zero values of Beta1, Beta2 and
// Epsilon mean PyTorch's defaults (0.9, 0.999, 1e-8).
type Config struct {
	Name         string  // "sgd" or "adam"
	LR           float64 // learning rate, > 0
	Momentum     float64 // sgd: 0 is plain descent; in [0, 1)
	Beta1, Beta2 float64 // adam: in (0, 1)
	Epsilon      float64 // adam: > 0
	WeightDecay  float64 // L2, added to the gradient; >= 0
}

// Optimizer updates a range of parameters. It holds no state of its own and may be
// used by many goroutines.
type Optimizer interface {
	// Slots is the number of float32 values kept for each parameter besides itself.
	// Slots start as zeros at step 0.
	Slots() int

	// Update goes from the state at step to the state at step+1 in place.
	// w, grad and every slot have the same length.
	Update(step id.Step, w, grad []float32, slots [][]float32)

	// UpdateTo is Update with the new state written to dstW and dstSlots; w and slots
	// are only read. A destination is its source or does not overlap it.
	UpdateTo(step id.Step, dstW []float32, dstSlots [][]float32, w, grad []float32, slots [][]float32)
}

// ErrConfig is returned by New when the configuration names no optimizer or holds a
// constant out of range.
var ErrConfig = errors.New("optim: bad configuration")

// makers holds every optimizer by name; each adds the errors of its own constants.
func makers() map[string]func(Config) (Optimizer, []string) {
	return map[string]func(Config) (Optimizer, []string){"sgd": newSGD, "adam": newAdam}
}

// Names are the known optimizers, sorted.
func Names() []string {
	var names []string
	for n := range makers() {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// New checks the whole configuration and returns its optimizer; the error names every
// field that is wrong.
func New(c Config) (Optimizer, error) {
	mk, ok := makers()[c.Name]
	if !ok {
		return nil, fmt.Errorf("%w: unknown optimizer %q; known: %s", ErrConfig, c.Name, strings.Join(Names(), ", "))
	}
	o, wrong := mk(c)
	if !(c.LR > 0) || math.IsInf(c.LR, 0) {
		wrong = append(wrong, fmt.Sprintf("lr is %v, must be a number above 0", c.LR))
	}
	if !(c.WeightDecay >= 0) || math.IsInf(c.WeightDecay, 0) {
		wrong = append(wrong, fmt.Sprintf("weight_decay is %v, must be a number of at least 0", c.WeightDecay))
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("%w: %s: %s", ErrConfig, c.Name, strings.Join(wrong, "; "))
	}
	return o, nil
}

// power is b to the n by repeated squaring. There are only products, so there is
// nothing to fuse, and IEEE 754 fixes the bits on every machine.
func power(b float64, n uint64) float64 {
	p := 1.0
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			p *= b
		}
		b *= b
	}
	return p
}
