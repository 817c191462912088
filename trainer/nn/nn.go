package nn

import (
	"errors"
	"fmt"

	"github.com/musterml/muster/trainer/device"
)

var (
	// ErrUnknownModel is returned by Build for a name it does not know.
	ErrUnknownModel = errors.New("unknown model")
	// ErrOption is returned by Build for an option that is unknown or has a bad value, and for a
	// shape of the data that the model cannot take.
	ErrOption = errors.New("bad model option")
	// ErrLabel is returned by Gradient and Loss when a label is not a class of the model.
	ErrLabel = errors.New("label out of range")
	// ErrArgument is returned when a slice has another length than the model needs.
	ErrArgument = errors.New("wrong length")
)

// Tensor is a named part of the flat parameter vector.
type Tensor struct {
	Name   string // as in PyTorch's state_dict: "0.weight"
	Shape  []int  // as in PyTorch: (out, in), (out, in, kh, kw), (out)
	Offset int    // of its first element in the flat vector
	FanIn  int    // of the layer it belongs to, for Init
}

// Len is the number of elements.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Spec is a model: its layers and where their parameters are. It is immutable.
type Spec struct {
	name    string
	layers  []layer
	in      shape
	classes int
	params  int
	tensors []Tensor
}

// Name is the name the model was built by.
func (s *Spec) Name() string { return s.name }

// Params is the length of the flat parameter vector.
func (s *Spec) Params() int { return s.params }

// Features is the number of values of one sample.
func (s *Spec) Features() int { return s.in.size() }

// Classes is the number of classes, the range of the labels.
func (s *Spec) Classes() int { return s.classes }

// Tensors lists the parameters in the order of the flat vector.
func (s *Spec) Tensors() []Tensor { return append([]Tensor(nil), s.tensors...) }

// Result is the outcome for one batch.
type Result struct {
	Loss    float64 // sum of the samples' losses, in nats
	Correct int     // samples whose most likely class is the label
}

// Replica is one copy of the model's working memory on a device. It is used by one goroutine
// at a time; several replicas work side by side.
type Replica struct {
	spec   *Spec
	stream device.Stream
	batch  int // the most samples per call

	w, grad, x, labels device.Memory // ports
	states             []state       // by layer
	pass               pass          // the current one; here so that it is not allocated for each
	total              device.Total
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
	if err := r.allocate(); err != nil {
		_ = stream.Close() // the first error is the one to tell
		return nil, fmt.Errorf("replica of model %s on %s: %w", s.name, dev.Name(), err)
	}
	return r, nil
}

// Close frees the replica's memory. The replica must not be used any more.
func (r *Replica) Close() error { return r.stream.Close() }

// Loss runs the samples x (n, C*H*W) with the parameters w and compares with the n labels.
func (r *Replica) Loss(w, x []float32, labels []int32) (Result, error) {
	return r.run(w, x, labels, 0, nil)
}

// Gradient is Loss, and grad = scale * d(sum of losses)/dw, overwritten.
func (r *Replica) Gradient(w, x []float32, labels []int32, scale float32, grad []float32) (Result, error) {
	if len(grad) != r.spec.params {
		return Result{}, fmt.Errorf("gradient of model %s: %w: room for %d values given, the model has %d parameters", r.spec.name, ErrArgument, len(grad), r.spec.params)
	}
	return r.run(w, x, labels, scale, grad)
}

func (r *Replica) run(w, x []float32, labels []int32, scale float32, grad []float32) (Result, error) {
	if err := r.check(w, x, labels); err != nil {
		return Result{}, err
	}
	r.pass = pass{Stream: r.stream, n: len(labels), w: device.Whole(r.w)}
	p := &r.pass
	r.stream.Bind(r.w, w, device.In)
	r.stream.Bind(r.x, x, device.In)
	r.stream.BindInt32(r.labels, labels)
	in := device.Whole(r.x)
	for i, l := range r.spec.layers {
		l.forward(p, &r.states[i], in)
		in = r.states[i].y
	}
	loss := device.SoftmaxCrossEntropy{N: p.n, Classes: r.spec.classes, Logits: in, Labels: device.Whole(r.labels), Total: &r.total}
	if grad != nil {
		r.stream.Bind(r.grad, grad, device.Out)
		p.grad = device.Whole(r.grad)
		loss.DLogits, loss.Scale = r.states[len(r.states)-1].dy, scale
	}
	r.stream.SoftmaxCrossEntropy(loss)
	if grad != nil {
		r.backward(p)
		r.stream.Flush(r.grad)
	}
	if err := r.stream.Sync(); err != nil {
		return Result{}, fmt.Errorf("model %s: %w", r.spec.name, err)
	}
	return Result{Loss: r.total.Loss, Correct: r.total.Correct}, nil
}

func (r *Replica) backward(p *pass) {
	for i := len(r.spec.layers) - 1; i >= 0; i-- {
		in, dx := device.Whole(r.x), device.Buffer{} // nobody asks for the gradient of the data
		if i > 0 {
			in, dx = r.states[i-1].y, r.states[i-1].dy
		}
		r.spec.layers[i].backward(p, &r.states[i], in, dx)
	}
}

// check refuses arguments here, on the host, where the labels can still be read.
func (r *Replica) check(w, x []float32, labels []int32) error {
	s := r.spec
	switch {
	case len(w) != s.params:
		return fmt.Errorf("model %s: %w: %d parameters given, the model has %d", s.name, ErrArgument, len(w), s.params)
	case len(labels) < 1 || len(labels) > r.batch:
		return fmt.Errorf("model %s: %w: %d samples given, the replica takes 1 to %d", s.name, ErrArgument, len(labels), r.batch)
	case len(x) != len(labels)*s.Features():
		return fmt.Errorf("model %s: %w: %d values given, %d samples of %d values are needed", s.name, ErrArgument, len(x), len(labels), s.Features())
	}
	for i, l := range labels {
		if l < 0 || int(l) >= s.classes {
			return fmt.Errorf("model %s: %w: sample %d has label %d, the model has classes 0 to %d", s.name, ErrLabel, i, l, s.classes-1)
		}
	}
	return nil
}

func (r *Replica) allocate() error {
	var err error
	keep := func(m device.Memory, e error) device.Memory {
		if err == nil {
			err = e
		}
		return m
	}
	s := r.spec
	r.w = keep(r.stream.Port(device.Float32, s.params))
	r.grad = keep(r.stream.Port(device.Float32, s.params))
	r.x = keep(r.stream.Port(device.Float32, r.batch*s.Features()))
	r.labels = keep(r.stream.Port(device.Int32, r.batch))
	r.states = make([]state, len(s.layers))
	for i, l := range s.layers {
		n := r.batch * l.out().size()
		y, dy := keep(r.stream.Alloc(device.Float32, n)), keep(r.stream.Alloc(device.Float32, n))
		if err != nil {
			return err
		}
		r.states[i] = state{y: device.Whole(y), dy: device.Whole(dy)}
		if n := l.indices(); n > 0 {
			m := keep(r.stream.Alloc(device.Uint8, r.batch*n))
			if err != nil {
				return err
			}
			r.states[i].index = device.Whole(m)
		}
	}
	return err
}
