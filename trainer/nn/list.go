package nn

// Layer is an entry of a list of layers, of which a model is made: one of the types below. A job file has it by its
// kind, which is the name of the type in small letters, with the options that the tags name (see ParseLayers). Where an option
// has a default, zero stands for it.
//
// Name is how the tensors of a layer begin: a linear layer named fc has fc.weight and fc.bias. The default is
// the layer's place in its list, counted from 0, as in PyTorch's nn.Sequential.
type Layer interface {
	kind() string
	build(b *builder, name string)
}

// Linear is PyTorch's nn.Linear: on the whole sample (an image is flattened first), or on each position of a sequence.
type Linear struct {
	Size   int    `job:"size,outputs"` // values that come out; "outputs", the default, is as many as the loss needs
	NoBias bool   `job:"bias,not"`
	Name   string `job:"name"`
}

// Conv is PyTorch's nn.Conv2d, on images, with a square kernel.
type Conv struct {
	Channels int    `job:"channels,needed"` // that come out
	Kernel   int    `job:"kernel,needed"`
	Stride   int    `job:"stride"`   // default 1
	Pad      int    `job:"pad,zero"` // zeros on each side
	NoBias   bool   `job:"bias,not"`
	Name     string `job:"name"`
}

// MaxPool is PyTorch's nn.MaxPool2d, on images.
type MaxPool struct {
	Size   int `job:"size,needed"`
	Stride int `job:"stride"` // default: Size
	Pad    int `job:"pad,zero"`
}

// AveragePool is PyTorch's nn.AvgPool2d; without a size nn.AdaptiveAvgPool2d(1), the mean over all pixels.
type AveragePool struct {
	Size   int `job:"size"`
	Stride int `job:"stride"` // default: Size
}

// BatchNorm is PyTorch's nn.BatchNorm2d or nn.BatchNorm1d, over the samples of a logical shard; see the package's comment.
type BatchNorm struct {
	Name string `job:"name"`
}

// LayerNorm is PyTorch's nn.LayerNorm over the channels: of each position of a sequence, of each pixel, of a vector.
type LayerNorm struct {
	Name string `job:"name"`
}

// ReLU is PyTorch's nn.ReLU, done together with the layer before it where that can be.
type ReLU struct{}

// GELU is PyTorch's nn.GELU, by the error function.
type GELU struct{}

// SiLU is PyTorch's nn.SiLU.
type SiLU struct{}

// Tanh is PyTorch's nn.Tanh.
type Tanh struct{}

// Sigmoid is PyTorch's nn.Sigmoid. None is needed before the loss binary_cross_entropy, which takes logits.
type Sigmoid struct{}

// Dropout is PyTorch's nn.Dropout: in training each value is zero with probability P. Which, is a function of the job's seed, the
// step, the logical shard and the place of the layer.
type Dropout struct {
	P float64 `job:"p,needed"` // from 0 to below 1
}

// Flatten is PyTorch's nn.Flatten: an image becomes a vector, channel by channel.
type Flatten struct{}

// Embedding turns tokens into vectors: PyTorch's nn.Embedding.
type Embedding struct {
	Width int    `job:"width,needed"`
	Vocab int    `job:"vocab"` // rows of the table; default: the tokens of the data
	Name  string `job:"name"`
}

// Positions adds a learned vector to each position, another nn.Embedding; it stands directly behind Embedding.
type Positions struct {
	Context int    `job:"context"` // rows of the table; default: the length of the samples
	Name    string `job:"name"`
}

// Attention is self-attention on sequences: a linear layer to queries, keys and values (qkv), scaled dot-product
// attention by heads, and a linear layer (proj).
type Attention struct {
	Heads  int    `job:"heads,needed"`
	Causal bool   `job:"causal"` // a position sees only those up to itself
	Name   string `job:"name"`
}

// Transformer is a block with layer norm first, on sequences: x + attention(norm1(x)), then x + fc2(gelu(fc1(norm2(x)))).
type Transformer struct {
	Heads   int     `job:"heads,needed"`
	Causal  bool    `job:"causal"`
	Hidden  int     `job:"hidden"`       // values between fc1 and fc2; default: 4 times the width
	Dropout float64 `job:"dropout,zero"` // of what is added to x, both times
	Name    string  `job:"name"`
}

// ConcatRows appends to a vector the rows of the sample's keys in a sparse table, an embedding of each: for data with keys. The
// table has the layer's name.
type ConcatRows struct {
	Width int    `job:"width,needed"` // values of a row
	Name  string `job:"name"`
}

// PoolRows is the sum of the rows of the sample's keys: a weight for each category. What comes in is not looked at.
type PoolRows struct {
	Width int    `job:"width,outputs"` // values of a row; "outputs", the default, is as many as the loss needs
	Name  string `job:"name"`
}

// InteractRows appends to a vector the dot products of all pairs among it and the rows of the sample's keys, which are as wide:
// the interaction of DLRM.
type InteractRows struct {
	Name string `job:"name"`
}

// Residual is body(x) + shortcut(x), or body(x) + x. The tensors of the body's layers are named Name.N, or by their own names
// Name.NAME; those of the shortcut Name.shortcut.N or Name.NAME.
type Residual struct {
	Body     []Layer `job:"body,needed"`
	Shortcut []Layer `job:"shortcut"`
	Name     string  `job:"name"`
}

// kinds lists a layer of each kind; the list is never written to.
var kinds = []Layer{
	Linear{}, Conv{}, MaxPool{}, AveragePool{}, BatchNorm{}, LayerNorm{}, ReLU{}, GELU{}, SiLU{}, Tanh{}, Sigmoid{},
	Dropout{}, Flatten{}, Embedding{}, Positions{}, Attention{}, Transformer{}, Residual{},
	ConcatRows{}, PoolRows{}, InteractRows{},
}

func (Linear) kind() string       { return "linear" }
func (Conv) kind() string         { return "conv" }
func (MaxPool) kind() string      { return "max_pool" }
func (AveragePool) kind() string  { return "average_pool" }
func (BatchNorm) kind() string    { return "batch_norm" }
func (LayerNorm) kind() string    { return "layer_norm" }
func (ReLU) kind() string         { return "relu" }
func (GELU) kind() string         { return "gelu" }
func (SiLU) kind() string         { return "silu" }
func (Tanh) kind() string         { return "tanh" }
func (Sigmoid) kind() string      { return "sigmoid" }
func (Dropout) kind() string      { return "dropout" }
func (Flatten) kind() string      { return "flatten" }
func (Embedding) kind() string    { return "embedding" }
func (Positions) kind() string    { return "positions" }
func (Attention) kind() string    { return "attention" }
func (Transformer) kind() string  { return "transformer" }
func (Residual) kind() string     { return "residual" }
func (ConcatRows) kind() string   { return "concat_rows" }
func (PoolRows) kind() string     { return "pool_rows" }
func (InteractRows) kind() string { return "interact_rows" }
