package data

import (
	"crypto/sha256"
	"encoding/hex"
)

// Dataset is a fixed, numbered set of labelled samples. Every method is safe for
// concurrent use, and Sample gives the same numbers for the same i on every machine.
type Dataset interface {
	// Len is the number of samples, at least 1.
	Len() int
	// Shape is the shape of one sample, channels first: {1, 28, 28}; {T} of tokens.
	Shape() []int
	// Tokens tells what samples are: false, numbers X with one label; true, T Tokens in
	// [0, Classes) with a label for each.
	Tokens() bool
	// Classes is the number of labels; labels lie in [0, Classes).
	Classes() int
	// Sample fills a Batch of one sample. It allocates nothing. i is in [0, Len).
	Sample(i int, into Batch)
	// Digest identifies the samples, their order and their normalisation: two nodes
	// with equal digests train on equal numbers.
	Digest() Digest
}

// Digest is the SHA-256 that identifies the content of a Dataset.
type Digest [sha256.Size]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

func digestOf(text string) Digest { return sha256.Sum256([]byte(text)) }

// Identity is the digest of a training and a held-out set together, which every
// node of a run must share.
func Identity(train, test Dataset) Digest {
	a, b := train.Digest(), test.Digest()
	return sha256.Sum256(append(a[:], b[:]...))
}
