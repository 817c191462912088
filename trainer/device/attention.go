package device

import (
	"fmt"
	"math"
)

// AttentionShape is the geometry of self-attention with several heads side by side.
type AttentionShape struct {
	N, T   int // samples, positions of each
	Heads  int
	Width  int  // of one head
	Causal bool // a position sees itself and those before it; else all
}

// Validate tells what is wrong with the geometry.
func (s AttentionShape) Validate() error {
	if s.N < 1 || s.T < 1 || s.Heads < 1 || s.Width < 1 {
		return fmt.Errorf("attention %+v: sizes must be at least 1", s)
	}
	return nil
}

// Scale is what scores are multiplied by: 1/sqrt(Width).
func (s AttentionShape) Scale() float32 { return float32(1 / math.Sqrt(float64(s.Width))) }

// Attention is y (N, T, Heads, Width) = softmax(Q K' * Scale) V for each sample and head, from
// qkv (N, T, 3, Heads, Width), which holds Q, K and V side by side. The scores (T, T) are never kept;
// LSE (N, Heads, T) gets the logarithm of each softmax's denominator, from which backward finds them again.
//
// Order: sums over a row of scores in an order of the device's, a function of T alone; products as in MatMul.
type Attention struct {
	Shape  AttentionShape
	Y, QKV Buffer
	LSE    Buffer
}

// AttentionBackward is dqkv (N, T, 3, Heads, Width), overwritten, from dy, qkv, and y and lse as Attention left them.
// Order: gradients of K and V by the position of Q.
type AttentionBackward struct {
	Shape     AttentionShape
	DQKV, QKV Buffer
	DY, Y     Buffer
	LSE       Buffer
}
