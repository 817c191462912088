// Package optim is the arithmetic of the optimizers, shared by the trainers (mode
// ring), the parameter servers (the other modes) and devices, and their learning-rate schedules.
//
// What it promises: an update is a pure function of (step, w, grad, slots) and, but for
// lamb, element-wise, so any range of the parameters may be updated by itself, by anyone,
// and gives the same bits; the replicas of a shard and the trainers rely on it.
// The in-place form and the source-to-destination form run the same loop.
//
// How it is cut: an Optimizer is a configuration. For a step it gives a Rule, which is plain data: a formula (Kind) with
// every scalar computed, the learning rate of the step among them. Rule.Apply does it, and so may any other device
// that keeps to the formula.
//
// Same bits, how: every product that feeds a sum is converted to float32 explicitly,
// which by the language's rules forbids the compiler to fuse the two into one
// multiply-add (arm64 would, amd64 would not); the assembly of package vec does not fuse either. Square roots and
// quotients are correctly rounded by IEEE 754. Factors that depend on the step are computed
// once for an update in float64 by package samebits, never by package math, whose last bit may depend on the
// architecture. Sums over a tensor or over the whole gradient have one order (vec.Partials), in float64.
//
// The formulas are PyTorch's (torch.optim) where PyTorch has them; the others are named at their Kind. PyTorch
// itself uses fused multiply-adds where its vector unit has them, so its numbers agree to rounding, not to the bit.
//
// What it leaves out: variants behind options of PyTorch (amsgrad, centered, dampening, maximize), sparse rows.
package optim
