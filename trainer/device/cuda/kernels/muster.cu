// All kernels, one module. The order counts: norm.cuh uses reduce.cuh, tensor.cuh and attention_tensor.cuh mma.cuh, and
// the latter attention.cuh, and all use common.cuh.
#include "common.cuh"

#include "attention.cuh"
#include "elementwise.cuh"
#include "embedding.cuh"
#include "gemm.cuh"
#include "loss.cuh"
#include "optimizers.cuh"
#include "pool.cuh"
#include "reduce.cuh"
#include "rows.cuh"
#include "sums.cuh"

#include "norm.cuh"

#include "mma.cuh"
#include "attention_tensor.cuh"
#include "tensor.cuh"
