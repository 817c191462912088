// Package cuda computes on NVIDIA GPUs: the whole of device.Device by kernels of our own (kernels/, CUDA C++ compiled ahead
// and embedded), through the driver alone. It needs no CUDA installation where it runs.
//
// Three layers:
//
//   - kernels/: what runs on the GPU. One argument, a struct; sums in one fixed order; no atomic additions.
//   - this package: operands are checked, tiles chosen, kernels asked for (calls.go), as graphs where they repeat (graph.go); contents
//     come to the host by a second stream (handover.go). Plain Go, built everywhere.
//   - driver: the two dozen calls of a driver that this package needs. The real one (driver_cu.go, build tag cuda) goes through
//     gorgonia.org/cu. Without the tag Open says that this binary has none.
//
// The tests run the very same kernels without a GPU: emulator/ compiles them for the host, thread by thread, with the
// address sanitizer. emulator/libcuda.cc is a driver without a GPU, for the whole binary (make test-cuda). What these cannot show is
// speed, all races between threads that a GPU runs at once, and the driver's own behaviour: docs/gpu.md says what has run on which card.
//
// Products have three precisions (device.Products): float32 on the ordinary cores (kernels/gemm.cuh); tf32 and bf16 on tensor cores
// (kernels/tensor.cuh), whose factors are rounded before (factors.go); and so is attention (kernels/attention_tensor.cuh). All that is kept is float32. Where
// sums may be added in any order, matrix products go to cuBLAS, which is opened at run time if there is one (blas.go).
//
// A function of what a product has just made (GELU after a bias, or its gradient) is made at the product's end (second.go).
//
// Orders of sums: as package device says, but where it names float32 chains over rows, columns are summed in blocks of
// 256 rows, and the blocks by 32 threads whose sums are added in order (SumRows; of LayerNormBackward the gradients of gamma and beta, and BatchNorm's
// sums). Losses of rows are added by 256 threads likewise. Long sums of
// weight gradients (MatMul TN, Conv2DBackwardWeight) are cut into parts whose number is a function of the shape.
// Arithmetic names the architecture: cards of one architecture give the same bits.
package cuda
