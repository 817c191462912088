//go:build !cuda

package cuda

import "errors"

// Built tells whether this binary can reach GPUs.
const Built = false

var errWithout = errors.New("this binary was built without CUDA; build one with: make build-cuda")

func countGPUs() (int, error)  { return 0, errWithout }
func openGPU(int) (gpu, error) { return nil, errWithout }
