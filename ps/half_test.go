package ps

import (
	"math"
	"strings"
	"testing"
)

// upperHalves is Half by cutting off the lower half of each float32: two neighbours in a word.
type upperHalves struct{}

func (upperHalves) Encode(words []int32, values []float32) {
	clear(words)
	for i, v := range values {
		words[i/2] |= int32(math.Float32bits(v) >> 16 << (16 * (i % 2)))
	}
}

func (upperHalves) Decode(values []float32, words []int32) {
	for i := range values {
		values[i] = math.Float32frombits(uint32(words[i/2]) >> (16 * (i % 2)) << 16)
	}
}

// cutOff is what a vector is after a journey in half the bytes.
func cutOff(h Half, x []float32) []float32 {
	if h == nil {
		return x
	}
	out, words := make([]float32, len(x)), make([]int32, halfWords(len(x)))
	h.Encode(words, x)
	h.Decode(out, words)
	return out
}

// A server without half the bytes says so, whatever is asked of it.
func TestHalfIsRefusedWhereItIsNotSpoken(t *testing.T) {
	c := newTestCluster(t, 1, Layout{Params: 100, BlockSize: 33, Shards: 1}, optimizers()["sgd"], nil)
	client := c.client(func(cfg *ClientConfig) { cfg.Half = upperHalves{} })
	w := make([]float32, 100)
	if err := client.Put(t.Context(), 0, 0, 0, 4, State{W: w}); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"push": client.Push(t.Context(), 0, 0, 4, w, w), "pull": client.Pull(t.Context(), 0, 0, 4, State{W: w}),
	} {
		if err == nil || !strings.Contains(err.Error(), noHalf) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
