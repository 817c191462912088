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
// A sample is C*H*W numbers with one label, or T tokens with a label for each (Spec.Tokens, Spec.Targets).
//
// A model is a chain of layers, some of which (residual) hold chains of their own. Batch norm uses
// the statistics of the samples of the call, always: a logical shard's in training, a chunk's of held-out data in
// evaluation. So there is no state beside the flat vector to replicate, and a unit of work stays a function of
// weights and samples; the price is that the evaluation of a sample depends a little on those beside it, so
// chunks should be about as large as shards. Running means, rejected, would have to be summed over
// the logical shards of each step and sent along with the weights, past the optimizer.
//
// It leaves out: automatic differentiation, and graphs that are not chains of such layers.
package nn
