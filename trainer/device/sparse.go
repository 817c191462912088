package device

// Sparse is a matrix (Rows, Cols) of which few elements are not zero, by row (CSR): those of row i are the entries
// [Starts[i], Starts[i+1]) of Columns and Values. Starts never falls and ends within Entries; columns need
// not be in order, and one that comes twice counts twice. A row may be empty, and so may all (Entries = 0).
type Sparse struct {
	Rows, Cols int
	Entries    int    // in Columns and Values
	Starts     Buffer // (Rows+1), Int32
	Columns    Buffer // (Entries), Int32, each within [0, Cols)
	Values     Buffer // (Entries)
}

// SparseMatMul is y (Rows, Out) = act(x w' + bias), with a sparse x (Rows, Cols) and w (Out, Cols): a linear layer
// over sparse features. A column or a start out of range is an error of Sync.
//
// Order: each element starts as its bias (or 0) and adds its products in the order of the row's entries, in
// one chain.
type SparseMatMul struct {
	X    Sparse
	Out  int
	Y    Buffer // (Rows, Out)
	W    Buffer // (Out, Cols), PyTorch's layout
	Bias Buffer // (Out), optional
	Act  Activation
}

// SparseMatMulBackwardWeight is dw (Out, Cols) = dy' x, overwritten: zero but in columns that x has entries in.
// (The gradient of a bias is SumRows; nobody needs that of x.)
//
// Order: each element adds its products by row of x and, within it, in the order of the entries, in one chain.
type SparseMatMulBackwardWeight struct {
	X   Sparse
	Out int
	DW  Buffer // (Out, Cols)
	DY  Buffer // (Rows, Out)
}
