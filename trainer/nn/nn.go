package nn

import (
	"errors"

	"github.com/musterml/muster/trainer/data"
)

var (
	// ErrUnknownModel is returned by Build for a name it does not know.
	ErrUnknownModel = errors.New("unknown model")
	// ErrOption is returned by Build for an option that is unknown or has a bad value, and for a
	// shape of the data that the model cannot take.
	ErrOption = errors.New("bad model option")
	// ErrLabel is returned by Gradient and Loss when a label is not a class of the model, or a token none of its tokens.
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
	Start  Start  // what Init fills it with
}

// Start is a distribution of initial values.
type Start uint8

const (
	// Uniform is in (-1/sqrt(FanIn), 1/sqrt(FanIn)), PyTorch's default for linear and convolution layers,
	// where it is kaiming_uniform with a = sqrt(5).
	Uniform Start = iota
	// Zeros are the biases of norms.
	Zeros
	// Ones are the weights of norms.
	Ones
	// Normal has mean 0 and variance 1: embeddings.
	Normal
)

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
	name     string
	layers   []layer
	ends     []int // by layer: where its parameters, which come after those of the layers before, end
	start    int   // the first layer with parameters
	in       shape
	kind     data.Kind
	entries  int // of kind Sparse: the most that a sample has
	loss     Loss
	targets  int // labels of one sample
	classes  int // 0: regression
	vocab    int // tokens are in [0, vocab)
	params   int
	tensors  []Tensor
	dropouts int
	stats    int // numbers of Statistics
	listed   int // entries of all lists together
	fields   int // keys of a sample
	tables   []Table
}

// Name is the name the model was built by, or "layers".
func (s *Spec) Name() string { return s.name }

// Loss is the loss it was built for.
func (s *Spec) Loss() Loss { return s.loss }

// Params is the length of the flat parameter vector.
func (s *Spec) Params() int { return s.params }

// Features is the number of values of one sample, or of tokens.
func (s *Spec) Features() int { return s.in.size() }

// Kind is what samples are made of.
func (s *Spec) Kind() data.Kind { return s.kind }

// Targets is the number of labels of one sample: 1, or one for each token.
func (s *Spec) Targets() int { return s.targets }

// Classes is the number of classes, the range of the labels; 0 where the model finds numbers.
func (s *Spec) Classes() int { return s.classes }

// Scored is how many values the last layer puts out for each label: one for each class, before the softmax; or a single one, before
// the sigmoid of two classes, or the standardised number to be found.
func (s *Spec) Scored() int { return s.loss.outputs(s.classes) }

// Statistics is how many numbers Observe finds and Evaluate takes: a mean and a variance for each channel of each batch
// norm. Models without have none.
func (s *Spec) Statistics() int { return s.stats }

// Tensors lists the parameters in the order of the flat vector.
func (s *Spec) Tensors() []Tensor { return append([]Tensor(nil), s.tensors...) }

// Result is the outcome for one batch.
type Result struct {
	Loss    float64 // sum over the labels; of the entropies in nats
	Correct int     // labels that are the most likely class; 0 where the model finds numbers
}
