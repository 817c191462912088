package data

// Batch is room for samples side by side, as a model takes them. Of X and Tokens one is
// empty: which, Dataset.Tokens says.
type Batch struct {
	X      []float32 // (n, C*H*W)
	Tokens []int32   // (n, T)
	Labels []int32   // (n), or (n, T) of tokens

	width  int // numbers or tokens of one sample
	labels int // labels of one sample
}

// NewBatch makes room for n samples of a data set.
func NewBatch(d Dataset, n int) Batch {
	b := Batch{width: 1, labels: 1}
	for _, s := range d.Shape() {
		b.width *= s
	}
	if d.Tokens() {
		b.labels = b.width
		b.Tokens = make([]int32, n*b.width)
	} else {
		b.X = make([]float32, n*b.width)
	}
	b.Labels = make([]int32, n*b.labels)
	return b
}

// Len is the number of samples.
func (b Batch) Len() int { return len(b.Labels) / b.labels }

// part is the samples [from, to), in the same memory.
func (b Batch) part(from, to int) Batch {
	b.Labels = b.Labels[from*b.labels : to*b.labels]
	if b.Tokens != nil {
		b.Tokens = b.Tokens[from*b.width : to*b.width]
	} else {
		b.X = b.X[from*b.width : to*b.width]
	}
	return b
}
