package trainer

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/musterml/muster/internal/safetensors"
	"github.com/musterml/muster/trainer/nn"
)

// WriteModel writes weights as a safetensors file, as a whole or not at all. The same
// weights give the same bytes.
func WriteModel(path string, spec *nn.Spec, w []float32) error {
	return safetensors.WriteFile(path, tensors(spec, w), metadata(spec))
}

// Digest is the SHA-256 of the file that WriteModel writes, in hexadecimal.
func Digest(spec *nn.Spec, w []float32) (string, error) {
	h := sha256.New()
	if err := safetensors.Encode(h, tensors(spec, w), metadata(spec)); err != nil {
		return "", fmt.Errorf("digest of model %s: %w", spec.Name(), err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// ReadModel reads the weights of a model from a file that holds exactly its tensors.
func ReadModel(path string, spec *nn.Spec) ([]float32, error) {
	f, err := safetensors.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if made := f.Metadata["model"]; made != "" && made != spec.Name() {
		return nil, fmt.Errorf("%s holds a %s, but the job's model is %s; give the job it was trained with", path, made, spec.Name())
	}
	w := make([]float32, spec.Params())
	for _, t := range spec.Tensors() {
		have, ok := f.Tensor(t.Name)
		if !ok || !slices.Equal(have.Shape, t.Shape) {
			return nil, fmt.Errorf("%s has no tensor %s of shape %v, which model %s needs; give the job it was trained with", path, t.Name, t.Shape, spec.Name())
		}
		copy(w[t.Offset:], have.Data)
	}
	if len(f.Tensors) != len(spec.Tensors()) {
		return nil, fmt.Errorf("%s holds %d tensors, model %s has %d; give the job it was trained with", path, len(f.Tensors), spec.Name(), len(spec.Tensors()))
	}
	return w, nil
}

func tensors(spec *nn.Spec, w []float32) []safetensors.Tensor {
	var ts []safetensors.Tensor
	for _, t := range spec.Tensors() {
		ts = append(ts, safetensors.Tensor{Name: t.Name, Shape: t.Shape, Data: w[t.Offset : t.Offset+t.Len()]})
	}
	return ts
}

func metadata(spec *nn.Spec) map[string]string {
	return map[string]string{"format": "muster", "model": spec.Name()}
}
