//go:build !cuda

package cuda

import "errors"

// Built tells whether this binary can reach GPUs.
const Built = false

func openGPU(int) (gpu, error) {
	return nil, errors.New("this binary was built without CUDA; build one with: make build-cuda")
}
