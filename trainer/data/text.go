package data

import (
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

// A file of text. Its tokens are its characters (Unicode code points) and nothing is
// learnt or normalised, so that what a run trains on can be seen by reading the file: token
// t is the t-th of the file's different characters in the order of their code points.
//
// The last tenth of the characters is held out. A sample is a window of T characters, with
// the character after each as its label, so a window covers T+1 characters of its part. The n
// windows of a part lie spread over it evenly, however many they are: window i of n begins at
// i*P/n of the P places where one may begin. n = P is one window at every place.

const (
	maxContext   = 1 << 16 // characters of a window
	maxTextBytes = 1 << 30 // a larger file is most likely not meant; it is read whole

	// maxCharacters bounds the vocabulary: more than a text in any one language needs,
	// and within a uint16.
	maxCharacters = 1 << 15
)

// text is one of the two parts of a file of text.
type text struct {
	tokens  []uint16 // at least context+1
	letters []rune   // by token
	context int
	n       int // windows
	digest  Digest
}

func newText(tokens []uint16, vocabulary []rune, context, n int) *text {
	s := &text{tokens: tokens, letters: vocabulary, context: context, n: n}
	h := sha256.New()
	fmt.Fprintf(h, "text, %d windows of %d tokens, %d characters: %q\n", n, context, len(tokens), string(vocabulary))
	bytes := make([]byte, 0, 64<<10)
	for part := range slices.Chunk(tokens, cap(bytes)/2) {
		bytes = bytes[:0]
		for _, t := range part {
			bytes = append(bytes, byte(t), byte(t>>8))
		}
		h.Write(bytes)
	}
	h.Sum(s.digest[:0])
	return s
}

func (s *text) Len() int { return s.n }
func (s *text) Form() Form {
	return Form{Kind: Tokens, Shape: []int{s.context}, Classes: len(s.letters)}
}
func (s *text) Digest() Digest { return s.digest }

// Characters implements Written.
func (s *text) Characters() []rune { return s.letters }

// Written is a Dataset of text.
type Written interface {
	Dataset
	Characters() []rune // by token
}

func (s *text) Sample(i int, into Batch) {
	places := uint64(len(s.tokens) - s.context)
	at := int(uint64(i) * places / uint64(s.n)) // below 2^30 * 2^30
	window := s.tokens[at : at+s.context+1]
	for k := range s.context {
		into.Tokens[k], into.Labels[k] = int32(window[k]), int32(window[k+1])
	}
}

// openText reads the file of a valid source.
func (w *watch) openText(s Source) (train, test Dataset, err error) {
	f, err := w.openFile("data.path", s.Path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	b, err := readText(f)
	if err != nil {
		return nil, nil, err
	}
	tokens, vocabulary, err := tokenise(f, b)
	if err != nil {
		return nil, nil, err
	}
	split := len(tokens) - len(tokens)/10
	for _, part := range []struct {
		field, name string
		n           int
		tokens      []uint16
	}{
		{"train", "first nine tenths", s.Train, tokens[:split]}, {"test", "last tenth", s.Test, tokens[split:]},
	} {
		places := len(part.tokens) - s.Context
		if places < 1 {
			return nil, nil, f.fail(fmt.Sprintf("more than %d characters (data.context) in the %s of the text", s.Context, part.name),
				fmt.Sprint(len(part.tokens)), "lower data.context, or name a longer text", nil)
		}
		if part.n > places {
			return nil, nil, f.fail(fmt.Sprintf("room for %d windows of %d characters in the %s of the text", part.n, s.Context, part.name),
				fmt.Sprintf("%d characters", len(part.tokens)), fmt.Sprintf("lower data.%s to %d at most", part.field, places), nil)
		}
	}
	return newText(tokens[:split], vocabulary, s.Context, s.Train), newText(tokens[split:], vocabulary, s.Context, s.Test), nil
}

// readText reads a whole file.
func readText(f *file) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(f.r, maxTextBytes+1))
	switch {
	case err != nil:
		return nil, f.readError(0, err)
	case len(b) == 0:
		return nil, f.fail("text", "an empty file", "name a file that holds some", nil)
	case len(b) > maxTextBytes:
		return nil, f.fail(fmt.Sprintf("at most %d bytes", maxTextBytes), "more", "name a smaller file, for example a part of this one", nil)
	}
	return b, nil
}

// tokenise numbers the different characters of b and gives b as such numbers.
func tokenise(f *file, b []byte) (tokens []uint16, vocabulary []rune, err error) {
	seen := map[rune]uint16{}
	line := 1
	for at := 0; at < len(b); {
		r, size := utf8.DecodeRune(b[at:])
		if r == utf8.RuneError && size == 1 {
			return nil, nil, f.failAt(line, "text in UTF-8", fmt.Sprintf("the byte %#02x (byte %d of the file)", b[at], at+1),
				"convert the file, for example with iconv -f LATIN1 -t UTF-8", nil)
		}
		if r == '\n' {
			line++
		}
		seen[r] = 0
		at += size
	}
	for r := range seen {
		vocabulary = append(vocabulary, r)
	}
	slices.Sort(vocabulary)
	switch n := len(vocabulary); {
	case n > maxCharacters:
		return nil, nil, f.fail(fmt.Sprintf("at most %d different characters", maxCharacters), fmt.Sprint(n),
			"each is a token of the model; name a text in one language", nil)
	case n < 2:
		return nil, nil, f.fail("at least 2 different characters", fmt.Sprintf("only %q", vocabulary[0]), "name a text that has something to learn", nil)
	}
	for i, r := range vocabulary {
		seen[r] = uint16(i)
	}
	tokens = make([]uint16, 0, utf8.RuneCount(b))
	for at := 0; at < len(b); {
		r, size := utf8.DecodeRune(b[at:])
		tokens = append(tokens, seen[r])
		at += size
	}
	return tokens, vocabulary, nil
}
