package nn

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Model describes a model: the name of one that package nn knows with its options, or a list of layers.
type Model struct {
	Name    string         // one of Names; "" with Layers
	Options map[string]any // of a model by name
	Layers  []Layer
	Loss    Loss // "" leaves it to the model and the data
}

// Expand is the same model as a list of layers. It checks what can be checked without data: names and options.
func (m Model) Expand() (Model, error) {
	var errs []error
	fault := func(text string, args ...any) { errs = append(errs, faultf("model."+text, args...)) }
	if !slices.Contains([]Loss{"", CrossEntropy, BinaryCrossEntropy, SquaredError}, m.Loss) {
		fault("loss is %.40q: use %s, %s or %s", string(m.Loss), CrossEntropy, BinaryCrossEntropy, SquaredError)
	}
	layers := m.Layers
	switch known, ok := models[m.Name]; {
	case m.Name == "" && len(m.Layers) == 0:
		fault("name is missing: name a model (%s), or give layers", strings.Join(Names(), ", "))
	case m.Name == "" && len(m.Options) > 0:
		fault("%s is no option: beside layers there is only loss", strings.Join(slices.Sorted(maps.Keys(m.Options)), ", "))
	case m.Name != "" && len(m.Layers) > 0:
		fault("name (%s) and model.layers are given: remove one", m.Name)
	case m.Name != "" && !ok:
		errs = append(errs, fmt.Errorf("model.name: %w %.40q: known models are %s", ErrUnknownModel, m.Name, strings.Join(Names(), ", ")))
	case m.Name != "":
		o := &options{known: known.options, given: m.Options}
		o.checkNames()
		layers = known.layers(o)
		for _, f := range o.faults {
			fault("%s (%s)", f, m.Name)
		}
	}
	return Model{Layers: layers, Loss: m.Loss}, errors.Join(errs...)
}

// title is what the model is called in errors and in files.
func (m Model) title() string {
	if m.Name == "" {
		return "layers"
	}
	return m.Name
}

// known is an entry of the list of models.
type known struct {
	options []string // the names it knows
	layers  func(o *options) []Layer
}

// models is the list of models; it is never written to.
//
//	linear    one linear layer: softmax regression, or linear regression; no options
//	logistic  the same; of two classes with one output and the loss binary_cross_entropy; no options
//	mlp       dense layers with ReLU; hidden: sizes of the layers between ([512, 256])
//	lenet     two 3x3 convolutions with ReLU and 2x2 max pooling, then two dense layers;
//	          channels: of the convolutions ([32, 64]), hidden: size of the first dense layer (128)
//	resnet18  eight residual blocks of two 3x3 convolutions with batch norm, behind a 3x3 convolution (the stem for
//	          images of 32x32); channels: of each two blocks ([64, 128, 256, 512])
//	resnet50  residual blocks of 1x1, 3x3 and 1x1 convolutions with batch norm, behind the stem for images of 224x224 (He et al.
//	          2015, with torchvision's stride in the 3x3); channels: of the 3x3 convolutions of each stage
//	          ([64, 128, 256, 512]), blocks: in each stage ([3, 4, 6, 3])
//	wide_deep a weight for each category, and a multilayer perceptron over numbers and embeddings of categories; width: of
//	          embeddings (16), hidden: sizes of the layers between ([256, 128, 64])
//	dlrm      products of pairs of embeddings between two multilayer perceptrons; width: of embeddings (16), bottom: sizes
//	          of the layers over numbers ([128, 64]), top: of those over the products ([256, 128])
//	gpt       a causal transformer with layer norm first, on tokens; width: channels (256), heads: of attention (8), layers: blocks
//	          (4), vocab: rows of the table of tokens (as many as the data has), context: rows of the table of
//	          positions (the length of the samples), dropout: behind the tables and in each block, twice (0)
var models = map[string]known{
	"linear":    {layers: func(*options) []Layer { return []Layer{Linear{}} }},
	"logistic":  {layers: func(*options) []Layer { return []Layer{Linear{}} }},
	"mlp":       {options: []string{"hidden"}, layers: mlp},
	"lenet":     {options: []string{"channels", "hidden"}, layers: leNet},
	"resnet18":  {options: []string{"channels"}, layers: resNet18},
	"resnet50":  {options: []string{"channels", "blocks"}, layers: resNet50},
	"wide_deep": {options: []string{"width", "hidden"}, layers: wideDeep},
	"dlrm":      {options: []string{"width", "bottom", "top"}, layers: dlrm},
	"gpt":       {options: []string{"vocab", "width", "heads", "layers", "context", "dropout"}, layers: gpt},
}

// Names lists the models, sorted.
func Names() []string { return slices.Sorted(maps.Keys(models)) }

// mlp is nn.Sequential(Linear, ReLU, Linear, ReLU, ..., Linear).
func mlp(o *options) (list []Layer) {
	for _, n := range o.sizes("hidden", []int{512, 256}, -1) {
		list = append(list, Linear{Size: n}, ReLU{})
	}
	return append(list, Linear{})
}

// leNet is lenet of ../shared/peers/torch/models.py.
func leNet(o *options) []Layer {
	channels, hidden := o.sizes("channels", []int{32, 64}, 2), o.size("hidden", 128)
	return []Layer{
		Conv{Channels: channels[0], Kernel: 3, Pad: 1}, ReLU{}, MaxPool{Size: 2},
		Conv{Channels: channels[1], Kernel: 3, Pad: 1}, ReLU{}, MaxPool{Size: 2},
		Flatten{}, Linear{Size: hidden}, ReLU{}, Linear{},
	}
}

// resNet18 is ResNet18 of ../shared/peers/torch/models.py.
func resNet18(o *options) []Layer {
	channels := o.sizes("channels", []int{64, 128, 256, 512}, 4)
	list := []Layer{
		Conv{Channels: channels[0], Kernel: 3, Pad: 1, NoBias: true, Name: "features.0"},
		BatchNorm{Name: "features.1"}, ReLU{},
	}
	before := channels[0]
	for i := range 8 {
		out, stride := channels[i/2], 1
		if i > 0 && i%2 == 0 {
			stride = 2
		}
		block := Residual{Name: fmt.Sprintf("features.%d", i+3), Body: []Layer{
			Conv{Channels: out, Kernel: 3, Stride: stride, Pad: 1, NoBias: true, Name: "conv1"}, BatchNorm{Name: "bn1"}, ReLU{},
			Conv{Channels: out, Kernel: 3, Pad: 1, NoBias: true, Name: "conv2"}, BatchNorm{Name: "bn2"},
		}}
		if stride != 1 || before != out {
			block.Shortcut = []Layer{Conv{Channels: out, Kernel: 1, Stride: stride, NoBias: true}, BatchNorm{}}
		}
		list, before = append(list, block, ReLU{}), out
	}
	return append(list, AveragePool{}, Linear{Name: "classifier"})
}

// resNet50 is torchvision's resnet50.
func resNet50(o *options) []Layer {
	channels, blocks := o.sizes("channels", []int{64, 128, 256, 512}, 4), o.sizes("blocks", []int{3, 4, 6, 3}, 4)
	list := []Layer{
		Conv{Channels: channels[0], Kernel: 7, Stride: 2, Pad: 3, NoBias: true, Name: "conv1"}, BatchNorm{Name: "bn1"}, ReLU{},
		MaxPool{Size: 3, Stride: 2, Pad: 1},
	}
	for stage, width := range channels {
		for i := range min(blocks[stage], maxBlocks) {
			block := bottleneck(width, 1)
			if i == 0 {
				stride := min(stage+1, 2) // the first stage keeps the size
				block = bottleneck(width, stride)
				block.Shortcut = []Layer{
					Conv{Channels: 4 * width, Kernel: 1, Stride: stride, NoBias: true, Name: "downsample.0"}, BatchNorm{Name: "downsample.1"},
				}
			}
			block.Name = fmt.Sprintf("layer%d.%d", stage+1, i)
			list = append(list, block, ReLU{})
		}
	}
	return append(list, AveragePool{}, Linear{Name: "fc"})
}

// maxBlocks bounds what a slip of the keyboard can do.
const maxBlocks = 1000

func bottleneck(width, stride int) Residual {
	return Residual{Body: []Layer{
		Conv{Channels: width, Kernel: 1, NoBias: true, Name: "conv1"}, BatchNorm{Name: "bn1"}, ReLU{},
		Conv{Channels: width, Kernel: 3, Stride: stride, Pad: 1, NoBias: true, Name: "conv2"}, BatchNorm{Name: "bn2"}, ReLU{},
		Conv{Channels: 4 * width, Kernel: 1, NoBias: true, Name: "conv3"}, BatchNorm{Name: "bn3"},
	}}
}

// gpt is GPT of ../shared/peers/torch/models.py, its tensors in the order of the computation.
func gpt(o *options) []Layer {
	vocab, context, p := o.size("vocab", 0), o.size("context", 0), o.probability("dropout")
	width, heads, blocks := o.size("width", 256), o.size("heads", 8), o.size("layers", 4)
	if width%heads != 0 {
		o.fail("width is %d, it must be a multiple of heads, which is %d", width, heads)
	}
	list := []Layer{Embedding{Width: width, Vocab: vocab, Name: "token_emb"}, Positions{Context: context, Name: "pos_emb"}}
	if p > 0 {
		list = append(list, Dropout{P: p})
	}
	for i := range min(blocks, maxBlocks) {
		list = append(list, Transformer{Heads: heads, Causal: true, Dropout: p, Name: fmt.Sprintf("blocks.%d", i)})
	}
	return append(list, LayerNorm{Name: "norm"}, Linear{Size: vocab, NoBias: true, Name: "head"})
}
