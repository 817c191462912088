package device

// Rows is the rows of a sparse table that some samples need: each of N samples has Fields of them, by their places in
// Values. A place out of range is an error of Sync.
type Rows struct {
	N, Fields, Width int
	Rows             int    // in Values
	Index            Buffer // (N, Fields), Int32, each within [0, Rows)
	Values           Buffer // (Rows, Width); backward operations do not read it unless they say so
}

// ConcatRows is y (N, C + Fields*Width) = x (N, C) and behind it the rows of the sample's fields, in their order.
type ConcatRows struct {
	Rows
	C    int
	X, Y Buffer
}

// ConcatRowsBackward is dx (N, C) and the gradient of the rows, dvalues (Rows, Width), overwritten.
//
// Order: each element of dvalues starts as 0 and adds by sample and, within it, by field.
type ConcatRowsBackward struct {
	Rows
	C       int
	DX      Buffer // optional
	DValues Buffer
	DY      Buffer
}

// PoolRows is y (N, Width) = the sum of the rows of the sample's fields, added to 0 in their order.
type PoolRows struct {
	Rows
	Y Buffer
}

// PoolRowsBackward is the gradient of the rows, dvalues (Rows, Width), overwritten; its order is that of ConcatRowsBackward.
type PoolRowsBackward struct {
	Rows
	DValues Buffer
	DY      Buffer
}

// InteractRows is the interaction of DLRM (Naumov et al., "Deep learning recommendation model for personalization and
// recommendation systems", 2019): y (N, Width + (Fields+1)*Fields/2) = x (N, Width), and behind it the dot products of all
// pairs among x and the rows of the sample's fields: of z[i] and z[j], j < i, where z[0] is x, by i and then j.
//
// Order: each product starts as 0 and adds by element, each product rounded by itself.
type InteractRows struct {
	Rows
	X, Y Buffer
}

// InteractRowsBackward is dx (N, Width) and the gradient of the rows, dvalues (Rows, Width), overwritten. It reads X and Values.
//
// Order: within a sample each z[i] gets, from 0 (x: from dy), the products with z[j] by pair (i, j) in the order of y, each
// rounded by itself; the sum of a field is then added to its row, by sample and field.
type InteractRowsBackward struct {
	Rows
	X       Buffer
	DX      Buffer // optional
	DValues Buffer
	DY      Buffer
}
