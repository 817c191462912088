package device

// Embedding is y (N, T, Width): row tokens[n][t] of the table (Vocab, Width) plus row t of the positions.
type Embedding struct {
	N, T, Width, Vocab int
	Context            int // rows of Positions, at least T
	Y                  Buffer
	Tokens             Buffer // (N, T), Int32, each within [0, Vocab)
	Table              Buffer // (Vocab, Width)
	Positions          Buffer // (Context, Width), optional
}

// EmbeddingBackward is dtable (Vocab, Width) and dpositions (Context, Width), overwritten, from dy (N, T, Width).
// Order: (n, t).
type EmbeddingBackward struct {
	N, T, Width, Vocab int
	Context            int
	DY, Tokens         Buffer
	DTable             Buffer
	DPositions         Buffer // optional
}
