package nn

import (
	"fmt"

	"github.com/musterml/muster/trainer/device"
)

// Replica is one copy of the model's working memory on a device. It is used by one goroutine
// at a time; several replicas work side by side.
type Replica struct {
	// Progress, if not nil, is called by Gradient and GradientOfTokens, in the caller's goroutine: when the backward pass
	// begins, with the number of parameters, and whenever more of grad is complete, with the offset from which on it is. The
	// last call is with 0. A device that works beside the host (no device.Synchronous) makes the first and the last call only.
	Progress func(complete int)

	spec   *Spec
	stream device.Stream
	batch  int // the most samples per call

	w, grad, x, labels device.Memory // ports; x is int32 for tokens
	states             []state       // by layer
	pass               pass          // the current one; here so that it is not allocated for each
	total              device.Total
	layerDone          func(layer int) // tells Progress; nil where the device does not know when a layer is done
}

// samples are a batch as a model takes it: one of the two.
type samples struct {
	x      []float32 // (n, C, H, W)
	tokens []int32   // (n, T)
}

// NewReplica allocates what calls with up to maxBatch samples need.
func (s *Spec) NewReplica(dev device.Device, maxBatch int) (*Replica, error) {
	if maxBatch < 1 {
		return nil, fmt.Errorf("a replica for %d samples per call: %w: at least 1 is needed", maxBatch, ErrArgument)
	}
	stream, err := dev.NewStream()
	if err != nil {
		return nil, fmt.Errorf("replica of model %s on %s: %w", s.name, dev.Name(), err)
	}
	r := &Replica{spec: s, stream: stream, batch: maxBatch}
	if _, ok := stream.(device.Synchronous); ok {
		r.layerDone = r.tellProgress
	}
	if err := r.allocate(); err != nil {
		_ = stream.Close() // the first error is the one to tell
		return nil, fmt.Errorf("replica of model %s on %s: %w", s.name, dev.Name(), err)
	}
	return r, nil
}

func (r *Replica) allocate() error {
	s := r.spec
	a := &allocator{stream: r.stream, batch: r.batch}
	r.w = a.port(device.Float32, s.params)
	r.grad = a.port(device.Float32, s.params)
	r.labels = a.port(device.Int32, r.batch*s.targets)
	kind := device.Float32
	if s.tokens {
		kind = device.Int32
	}
	r.x = a.port(kind, r.batch*s.Features())
	a.measure(s.layers, 0)
	r.states = a.chain(s.layers, 0, device.Buffer{})
	return a.err
}

// Close frees the replica's memory. The replica must not be used any more.
func (r *Replica) Close() error { return r.stream.Close() }

// Loss runs the samples x (n, C*H*W) with the parameters w and compares with the n labels.
func (r *Replica) Loss(w, x []float32, labels []int32) (Result, error) {
	return r.run(w, samples{x: x}, labels, 0, nil)
}

// Gradient is Loss, and grad = scale * d(sum of losses)/dw, overwritten.
func (r *Replica) Gradient(w, x []float32, labels []int32, scale float32, grad []float32) (Result, error) {
	return r.gradient(w, samples{x: x}, labels, scale, grad)
}

// LossOfTokens is Loss for a model of tokens: tokens (n, T) and labels (n, T).
func (r *Replica) LossOfTokens(w []float32, tokens, labels []int32) (Result, error) {
	return r.run(w, samples{tokens: tokens}, labels, 0, nil)
}

// GradientOfTokens is Gradient for a model of tokens: tokens (n, T) and labels (n, T).
func (r *Replica) GradientOfTokens(w []float32, tokens, labels []int32, scale float32, grad []float32) (Result, error) {
	return r.gradient(w, samples{tokens: tokens}, labels, scale, grad)
}

func (r *Replica) gradient(w []float32, in samples, labels []int32, scale float32, grad []float32) (Result, error) {
	if len(grad) != r.spec.params {
		return Result{}, fmt.Errorf("gradient of model %s: %w: room for %d values given, the model has %d parameters", r.spec.name, ErrArgument, len(grad), r.spec.params)
	}
	return r.run(w, in, labels, scale, grad)
}

func (r *Replica) run(w []float32, in samples, labels []int32, scale float32, grad []float32) (Result, error) {
	if err := r.check(w, in, labels); err != nil {
		return Result{}, err
	}
	s := r.spec
	r.pass = pass{Stream: r.stream, n: len(labels) / s.targets, w: device.Whole(r.w)}
	p := &r.pass
	r.stream.Bind(r.w, w, device.In)
	if s.tokens {
		r.stream.BindInt32(r.x, in.tokens)
	} else {
		r.stream.Bind(r.x, in.x, device.In)
	}
	r.stream.BindInt32(r.labels, labels)
	x := device.Whole(r.x)
	loss := device.SoftmaxCrossEntropy{N: len(labels), Classes: s.classes, Logits: p.forwardChain(s.layers, r.states, x),
		Labels: device.Whole(r.labels), Total: &r.total}
	if grad != nil {
		r.stream.Bind(r.grad, grad, device.Out)
		p.grad = device.Whole(r.grad)
		loss.DLogits, loss.Scale = r.states[len(r.states)-1].dy, scale
	}
	r.stream.SoftmaxCrossEntropy(loss)
	if grad != nil {
		r.progress(s.params)
		p.backwardChain(s.layers, r.states, x, device.Buffer{}, r.layerDone) // nobody asks for the gradient of the data
		r.stream.Flush(r.grad)
	}
	if err := r.stream.Sync(); err != nil {
		return Result{}, fmt.Errorf("model %s: %w", s.name, err)
	}
	if grad != nil {
		r.progress(0)
	}
	return Result{Loss: r.total.Loss, Correct: r.total.Correct}, nil
}

func (r *Replica) progress(complete int) {
	if r.Progress != nil {
		r.Progress(complete)
	}
}

// tellProgress is called when the backward pass of a layer is done. The layers before it may own any of the parameters
// that had been declared when the last of them was added, and no others.
func (r *Replica) tellProgress(layer int) {
	if layer > 0 {
		r.progress(r.spec.declared[layer-1])
	}
}

// check refuses arguments here, on the host, where labels and tokens can still be read.
func (r *Replica) check(w []float32, in samples, labels []int32) error {
	s := r.spec
	n, given, kind, other := len(labels)/s.targets, len(in.x), "values", len(in.tokens)
	if s.tokens {
		given, kind, other = other, "tokens", given
	}
	switch {
	case len(w) != s.params:
		return fmt.Errorf("model %s: %w: %d parameters given, the model has %d", s.name, ErrArgument, len(w), s.params)
	case other > 0:
		return fmt.Errorf("model %s: %w: the model takes %s", s.name, ErrArgument, kind)
	case n < 1 || n > r.batch:
		return fmt.Errorf("model %s: %w: %d samples given, the replica takes 1 to %d", s.name, ErrArgument, n, r.batch)
	case len(labels)%s.targets != 0:
		return fmt.Errorf("model %s: %w: %d labels given, each sample has %d", s.name, ErrArgument, len(labels), s.targets)
	case given != n*s.Features():
		return fmt.Errorf("model %s: %w: %d %s given, %d samples of %d %s are needed", s.name, ErrArgument, given, kind, n, s.Features(), kind)
	}
	for i, l := range labels {
		if l < 0 || int(l) >= s.classes {
			return fmt.Errorf("model %s: %w: sample %d has label %d, the model has classes 0 to %d", s.name, ErrLabel, i/s.targets, l, s.classes-1)
		}
	}
	for i, t := range in.tokens {
		if t < 0 || int(t) >= s.classes {
			return fmt.Errorf("model %s: %w: sample %d has token %d, the model has tokens 0 to %d", s.name, ErrLabel, i/s.Features(), t, s.classes-1)
		}
	}
	return nil
}
