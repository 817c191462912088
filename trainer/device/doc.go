// Package device is what a model needs of a processor: memory, and kernels on it,
// at the grain at which a processor has good ones (a whole matrix product with its
// bias and activation, a whole convolution). Layers (trainer/nn) are written once
// over it; trainer/device/cpu is the first implementation.
//
// What every implementation promises:
//
//   - The same inputs give the same bits on every device whose Arithmetic is the
//     same string, whatever the number of processors or the load. So every sum
//     has one fixed order, named in the doc comment of its operation.
//   - Operations of one Stream happen in the order of the calls. They may be
//     merely enqueued: results are there, and errors are told, after Sync.
//   - No allocation per operation once each shape has been seen.
//
// What it leaves out: automatic differentiation, broadcasting, strides. Tensors are
// dense. Images are NHWC (channels last: a vector register then holds channels of
// one pixel, and no patch has to be gathered); weights keep PyTorch's layouts, so
// that a checkpoint needs no conversion.
package device
