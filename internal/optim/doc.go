// Package optim is the arithmetic of the optimizers, shared by the trainers (mode
// ring) and the parameter servers (the other modes).
//
// What it promises: an update is a pure function of (step, w, grad, slots) and is
// element-wise, so any range of the parameters may be updated by itself, by anyone,
// and gives the same bits; the replicas of a shard and the trainers rely on it.
// The in-place form and the source-to-destination form run the same loop.
//
// Same bits, how: every product that feeds a sum is converted to float32 explicitly,
// which by the language's rules forbids the compiler to fuse the two into one
// multiply-add (arm64 would, amd64 would not). Square roots and quotients are
// correctly rounded by IEEE 754. The factors that depend on the step are computed
// once for an update in float64 with products only (see power), never with math.Pow,
// whose last bit may depend on the architecture.
//
// The formulas are PyTorch's (torch.optim.SGD, torch.optim.Adam, both with L2 weight
// decay and their defaults otherwise). PyTorch itself uses fused multiply-adds where
// its vector unit has them, so its numbers agree to rounding, not to the bit.
//
// What it leaves out: Nesterov's momentum, AdamW's decoupled decay, learning-rate
// schedules, sparse rows. They come with the modes that need them.
package optim
