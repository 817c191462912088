package data

import "slices"

// Batch is room for n samples side by side, as a model takes them. Which fields are in use,
// the Form of the Dataset says; the others are nil.
type Batch struct {
	X      []float32 // of kind Dense: (n, C*H*W), or Keyed: (n, C)
	Tokens []int32   // of kind Tokens: (n, T)

	// Of kind Sparse, the rows of a matrix in compressed form (CSR): sample i has the entries
	// [Starts[i], Starts[i+1]) of Columns and Values. Starts begins with 0; the columns of a
	// sample ascend, in [0, features).
	Starts  []int32 // (n+1)
	Columns []int32
	Values  []float32

	// Of kind Keyed, Keys are those of each sample. A model takes them as Rows, which whoever reads the tables fills in.
	Keys   []uint64 // (n, Fields)
	Fields int
	Rows   *Rows

	Labels  []int32   // (n) classes, or (n, T) of tokens
	Targets []float32 // (n), of regression

	n     int
	width int // values or tokens of one sample
}

// Rows are the rows of sparse tables that the samples of a Batch need.
type Rows struct {
	Keys   []uint64    // ascending, each once
	Index  []int32     // (n, Fields): the place in Keys
	Values [][]float32 // by table: (len(Keys), its width)
	Grads  [][]float32 // by table, the same: the gradient of Values, where it is asked for
}

// Sort makes Keys and Index of the keys of a batch.
func (r *Rows) Sort(keys []uint64) {
	r.Keys = append(r.Keys[:0], keys...)
	slices.Sort(r.Keys)
	r.Keys = slices.Compact(r.Keys)
	r.Index = slices.Grow(r.Index[:0], len(keys))
	for _, k := range keys {
		at, _ := slices.BinarySearch(r.Keys, k)
		r.Index = append(r.Index, int32(at))
	}
}

// NewBatch makes room for n samples of a data set.
func NewBatch(d Dataset, n int) Batch {
	f := d.Form()
	b := Batch{n: n, width: f.Width()}
	labels := n
	switch f.Kind {
	case Dense:
		b.X = make([]float32, n*b.width)
	case Tokens:
		b.Tokens = make([]int32, n*b.width)
		labels = n * b.width
	case Keyed:
		b.X = make([]float32, n*b.width)
		b.Keys, b.Fields = make([]uint64, n*f.Fields), f.Fields
	case Sparse:
		b.Starts = make([]int32, n+1)
		b.Columns, b.Values = make([]int32, n*f.Entries), make([]float32, n*f.Entries)
	}
	if f.Regression() {
		b.Targets = make([]float32, labels)
	} else {
		b.Labels = make([]int32, labels)
	}
	return b
}

// Len is the number of samples.
func (b Batch) Len() int { return b.n }

// Room is room for n samples, in the same memory; at most Len.
func (b Batch) Room(n int) Batch { return b.part(0, n) }

// part is the samples [from, to), in the same memory. Of kind Sparse it keeps all the room
// there is: a sample begins where the one before it ends.
func (b Batch) part(from, to int) Batch {
	b.n = to - from
	labels := 1
	switch {
	case b.Tokens != nil:
		b.Tokens, labels = b.Tokens[from*b.width:to*b.width], b.width
	case b.Starts != nil:
		b.Starts = b.Starts[from : to+1]
	default:
		b.X = b.X[from*b.width : to*b.width]
		b.Keys = b.Keys[from*b.Fields : to*b.Fields]
	}
	if b.Targets != nil {
		b.Targets = b.Targets[from*labels : to*labels]
	} else {
		b.Labels = b.Labels[from*labels : to*labels]
	}
	return b
}

// first is the first n samples, all of them filled, and no room beyond.
func (b Batch) first(n int) Batch {
	b = b.part(0, n)
	if b.Starts != nil {
		end := b.Starts[n]
		b.Columns, b.Values = b.Columns[:end], b.Values[:end]
	}
	return b
}

// SetEntries fills the one sample of a Batch of kind Sparse: a value for each of the columns, which ascend; at most Form.Entries.
func (b Batch) SetEntries(columns []int32, values []float32) {
	at := b.Starts[0]
	copy(b.Columns[at:], columns)
	copy(b.Values[at:], values)
	b.Starts[1] = at + int32(len(columns))
}
