// Package nn has the models: layers written once over a device (trainer/device), with
// forward and backward passes by hand.
//
// A model's parameters are one flat vector and its gradient another, in the order and with the
// names and layouts of PyTorch's state_dict, so that a block of the parameter servers is a slice
// and a checkpoint needs no conversion. Initial values follow PyTorch's default distributions,
// drawn from a generator of our own that is a pure function of (seed, tensor, index).
//
// Build makes a Spec (what the model is), Spec.NewReplica a Replica (its memory on a device).
// Replica.Gradient is a pure function of its arguments: the same bits on every device of one
// Arithmetic, whatever ran before, and it allocates nothing.
//
// It leaves out: automatic differentiation, and any model that is not a chain of layers.
package nn
