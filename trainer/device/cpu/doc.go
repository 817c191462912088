// Package cpu computes on the processor: Go plus assembly generated with avo
// (asm/), no cgo, no other library.
//
// # How
//
// Everything expensive is one shape of loop: a tile of MR x NR results stays in
// registers while k runs; for each k the kernel loads NR consecutive values of B and
// broadcasts MR values of A, each found at base + ro[row] + ko[k] (see tile). With two
// small offset tables the same kernel does matrix products with A in either layout, and
// convolutions without gathering patches: a row is an output pixel, and ko walks over its
// window in the zero-padded image, which is NHWC so that B (the weights) has NR output
// channels side by side. The gradient of the weights exchanges the two tables. Tiles at an edge are
// computed by programs for their number of rows, and by masks within a row.
//
// Around that are blocks (stream.multiplyTiles). B is packed in panels of NR columns, and each panel then meets a block
// of rows of A that stays in the second-level cache. A is read as it lies, except one stored transposed whose elements
// are far apart. Sums stay in registers for up to 1024 k: starting and storing a tile costs some 200 cycles where C
// comes from memory, more than is lost by a panel that exceeds the first-level cache.
//
// Where the operands are near, or few rows meet them, packing would cost more than it saves: there strips of some rows
// are computed from the operands as they lie (see strip). Either B lies as it is multiplied, and a program for each
// number of rows and of registers in a row reads it in place; or it is stored transposed, and squares of it are turned
// in registers and used at once. A product is computed as the transpose of B'A' where that fills
// registers better, and its last columns another way than the rest; what is cheapest, paths.go estimates.
//
// Rejected: im2col (writes and reads nine copies of each image); packing A always as BLIS does (a tenth slower here
// where A lies along k); prefetching the next panel (no gain); Winograd's convolution (other roundings, and nothing that
// we compare with needs it).
//
// # Same bits
//
// Every result is one chain of additions, from k = 0 upwards, starting at the bias, zero, or
// what an earlier block of k left in memory (float32 as in the register). So neither the tile, nor
// the blocking of k, nor the width of the vectors can change a bit. AVX-512 and AVX2 both use
// fused multiply-add and are one class of Arithmetic; plain Go multiplies and adds with two
// roundings and is another. In plain Go every product is converted explicitly (float32(a*b)):
// the language lets a compiler fuse x*y + z, and the one for arm64 does, but never across a
// conversion.
//
// Sums along a row (of a softmax, a layer's norm) are sixteen partial sums, which one AVX-512 register
// or two of AVX2 hold, added in a fixed tree; elements left over are added by plain Go. Exponentials and the
// normal distribution are polynomials of ours, so no library's last bit matters. See type rowKernels.
//
// A stream runs in the goroutine that calls it; to use more processors, run more replicas of the model.
package cpu
