// Package nn has the models: layers written once over a device (trainer/device), with
// forward and backward passes by hand.
//
// A model's parameters are one flat vector and its gradient another, in the order and with the
// names and layouts of PyTorch's state_dict, so that a block of the parameter servers is a slice
// and a checkpoint needs no conversion. Initial values follow PyTorch's default distributions,
// drawn from a generator of our own that is a pure function of (seed, tensor, index).
//
// Build makes a Spec (what the model is), Spec.NewReplica a Replica (its memory on a device).
// Replica.Gradients is a pure function of its arguments, and each part's gradient one of the part: the same bits on every
// device of one Arithmetic, whatever ran before and whatever else is in the batch, and it allocates nothing.
//
// A sample is C*H*W numbers, the entries of sparse features, or T tokens, with one label (or a number to be found), or with a
// label for each token (Spec.Kind, Spec.Targets).
//
// A model is a chain of layers, some of which (residual) hold chains of their own. In training batch norm uses
// the statistics of the samples of a part, those of a logical shard. So there is no state beside the flat
// vector to replicate, and a unit of work stays a function of weights and samples. Evaluation observes the statistics of
// some training batches anew for the weights at hand (Observe, Population, Evaluate). Running means, rejected, would have
// to be summed over the logical shards of each step and sent along with the weights, past the optimizer.
//
// It leaves out: automatic differentiation, and graphs that are not chains of such layers.
package nn
