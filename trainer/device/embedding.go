package device

// Embedding is y (N, T, Width): row tokens[n][t] of the table (Vocab, Width) plus row t of the positions.
type Embedding struct {
	N, T, Width, Vocab int
	Y                  Buffer
	Tokens             Buffer // (N, T), Int32, each within [0, Vocab)
	Table              Buffer // (Vocab, Width)
	Positions          Buffer // (T, Width) or more, optional
}

// EmbeddingBackward is dtable (Vocab, Width) and dpositions (T, Width), overwritten, from dy (N, T, Width).
// Order: (n, t).
type EmbeddingBackward struct {
	N, T, Width, Vocab int
	DY, Tokens         Buffer
	DTable             Buffer
	DPositions         Buffer // optional
}
