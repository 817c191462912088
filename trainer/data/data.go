package data

import (
	"crypto/sha256"
	"encoding/hex"
)

// Samples is a fixed, numbered set of labelled samples. Every method is safe for
// concurrent use, and Sample gives the same numbers for the same i on every machine.
type Samples interface {
	// Len is the number of samples, at least 1.
	Len() int
	// Form is what the samples look like, the same of a training and its held-out set.
	Form() Form
	// Sample fills a Batch of one sample: every value, of kind Sparse by SetEntries. It allocates
	// nothing. i is in [0, Len).
	Sample(i int, into Batch)
}

// Dataset is Samples that can be told from others.
type Dataset interface {
	Samples
	// Digest identifies the samples, their order, their form and their normalisation: two
	// nodes with equal digests train on equal numbers.
	Digest() Digest
}

// Form is what samples look like: a model is built for it, and a Batch made.
type Form struct {
	Kind    Kind
	Shape   []int // of one sample, channels first: {1, 28, 28}; {T} of tokens; {F} of F features
	Classes int   // labels lie in [0, Classes); 0: regression, a number for each sample is to be found
	Entries int   // the most entries that a sample of kind Sparse has
	Fields  int   // the keys that a sample of kind Keyed has

	Unit float64 // of regression: what 1 of a target is in the data; models do not depend on it
}

// Kind is what a sample is made of.
type Kind uint8

const (
	Dense  Kind = iota // numbers, all of them
	Tokens             // T numbers of tokens, in [0, Classes), and a label for each
	Sparse             // features most of which are 0: only the others are listed
	Keyed              // numbers, all of them, and keys of rows in sparse tables
)

// Regression tells whether numbers are to be found, not classes.
func (f Form) Regression() bool { return f.Classes == 0 }

// Width is the number of values of one sample, of tokens, or of features.
func (f Form) Width() int {
	w := 1
	for _, d := range f.Shape {
		w *= d
	}
	return w
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
