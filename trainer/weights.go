package trainer

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/musterml/muster/internal/safetensors"
	"github.com/musterml/muster/trainer/nn"
)

// begin fills w with the weights that a run of the job begins with: those of the seed, and in their place the tensors of the job's file of
// weights, as far as they have the names and shapes of the model's.
func (j Job) begin(spec *nn.Spec, w []float32) error {
	if err := spec.Init(w, j.Seed); err != nil || j.Weights == "" {
		return err
	}
	f, err := safetensors.ReadFile(j.Weights)
	if err != nil {
		return fmt.Errorf("weights: %w", err)
	}
	for _, t := range spec.Tensors() {
		if have, ok := f.Tensor(t.Name); ok && slices.Equal(have.Shape, t.Shape) {
			copy(w[t.Offset:], have.Data)
		}
	}
	return nil
}

// GivenWeights is what a job's file of weights holds of a model.
type GivenWeights struct {
	Tensors int      // of the model, in the file
	Drawn   []string // those that are not, or have another shape there; the seed gives them
	Digest  [sha256.Size]byte
}

// CheckWeights reads the file of weights that the job names. One that holds nothing of the model is an error.
func (j Job) CheckWeights(spec *nn.Spec) (g GivenWeights, err error) {
	b, err := os.ReadFile(j.Weights)
	if err != nil {
		return g, fmt.Errorf("weights: %w; give the path of a safetensors file", err)
	}
	f, err := safetensors.Decode(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return g, fmt.Errorf("weights: %s: %w", j.Weights, err)
	}
	g.Digest = sha256.Sum256(b)
	var needs []string
	for _, t := range spec.Tensors() {
		needs = append(needs, t.Name)
		if have, ok := f.Tensor(t.Name); ok && slices.Equal(have.Shape, t.Shape) {
			g.Tensors++
		} else {
			g.Drawn = append(g.Drawn, t.Name)
		}
	}
	if g.Tensors == 0 {
		return g, fmt.Errorf("weights: %s has no tensor that model %s has, in name and shape (%s): name a file of that model's weights", j.Weights, spec.Name(), some(needs))
	}
	return g, nil
}

// some shows the first of many names.
func some(names []string) string {
	const most = 6
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

func (g GivenWeights) String() string {
	if len(g.Drawn) == 0 {
		return fmt.Sprintf("all %d tensors of the model", g.Tensors)
	}
	return fmt.Sprintf("%d tensors of the model; the seed gives the others: %s", g.Tensors, some(g.Drawn))
}
