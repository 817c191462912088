package trainer

import (
	"github.com/musterml/muster/collective/vec"
	"github.com/musterml/muster/ps"
)

// Half is how values travel between trainers and servers in half the bytes, nil where sync.wire is float32 or nothing but
// whole states travels there. The servers know nothing of the kernels of package collective, so they are given them.
func (j Job) Half() ps.Half {
	if j.Sync.Wire != WireBF16 || j.Sync.Mode == ModeRing {
		return nil
	}
	return &bf16{vec.Best()}
}

// bf16 rounds each value to the nearest bf16. Nothing is remembered of what rounding took: what a trainer would remember
// would be lost with it.
type bf16 struct{ kernels *vec.Set }

func (h *bf16) Encode(words []int32, values []float32) { h.kernels.EncodeBF16(words, values) }
func (h *bf16) Decode(values []float32, words []int32) { h.kernels.DecodeBF16(values, words) }
