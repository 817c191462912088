package data

import (
	"errors"
	"fmt"
	"strings"
)

// The sources that Source.Source may name.
const (
	Glyphs = "glyphs" // digits drawn by the program, a function of Seed and the index
	IDX    = "idx"    // files in the format of MNIST, plain or gzip
	Text   = "text"   // a file of text, its characters as tokens
	LIBSVM = "libsvm" // labels and index:value pairs, plain or gzip
	CSV    = "csv"    // a table with a label in one column
)

// Source is the job's description of its data, the section "data" of its YAML. Paths are
// relative to the working directory.
type Source struct {
	Source string `yaml:"source"`
	Train  int    `yaml:"train"` // samples of a pass: pictures, or windows of text
	Test   int    `yaml:"test"`  // samples held out, never trained on

	Seed uint64 `yaml:"seed,omitempty"` // glyphs only

	// idx only. Without TestImages the first Train samples are trained on and the last
	// Test held out; with it, the first Train of one pair and the first Test of the other.
	Images     string `yaml:"images,omitempty"`
	Labels     string `yaml:"labels,omitempty"`
	TestImages string `yaml:"test_images,omitempty"`
	TestLabels string `yaml:"test_labels,omitempty"`
	Classes    int    `yaml:"classes,omitempty"` // 0 means 10

	// text only. A sample is a window of Context characters. Train windows are spread evenly
	// over the first nine tenths of the text, Test windows over the last tenth.
	Path    string `yaml:"path,omitempty"`
	Context int    `yaml:"context,omitempty"`
}

// DefaultSource is what a job trains on that says nothing of its data.
func DefaultSource() Source { return Source{Source: Glyphs, Train: 20000, Test: 2000, Seed: 1} }

// DefaultText is what a job of text trains on that names only its path.
func DefaultText() Source { return Source{Source: Text, Train: 10000, Test: 1000, Context: 128} }

// Kind is what the samples of a source are made of, as Dataset.Form says once it is open.
func (s Source) Kind() Kind {
	switch s.Source {
	case Text:
		return Tokens
	case LIBSVM:
		return Sparse
	default:
		return Dense
	}
}

// maxSamples catches a slip of the keyboard; no single node reads more.
const maxSamples = 1_000_000_000

// Validate names everything that is wrong, each with the field and the remedy. It reads
// no file; Open does.
func (s Source) Validate() []error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("data."+format, args...)) }
	for _, c := range []struct {
		field string
		n     int
	}{{"train", s.Train}, {"test", s.Test}} {
		if c.n < 1 || c.n > maxSamples {
			fault("%s is %d: set it to a number of samples from 1 to %d", c.field, c.n, maxSamples)
		}
	}
	faults = append(faults, s.misplaced()...)
	switch s.Source {
	case Glyphs:
		if s.Classes != 0 && s.Classes != len(digits) {
			fault("classes is %d, but %s are digits: remove it", s.Classes, Glyphs)
		}
	case IDX:
		for _, p := range []struct{ field, value string }{{"images", s.Images}, {"labels", s.Labels}} {
			if p.value == "" {
				fault("%s is missing: give the path of an IDX file, plain or gzip", p.field)
			}
		}
		if (s.TestImages == "") != (s.TestLabels == "") {
			fault("test_images and data.test_labels belong together: give both, or neither to hold out the last samples of data.images")
		}
		if s.Classes < 0 || s.Classes > 256 {
			fault("classes is %d: set it to the number of labels, 1 to 256, or remove it for 10", s.Classes)
		}
	case Text:
		if s.Path == "" {
			fault("path is missing: give the path of a file of text in UTF-8")
		}
		if s.Context < 1 || s.Context > maxContext {
			fault("context is %d: set it to the number of characters in a window, 1 to %d", s.Context, maxContext)
		}
		if s.Classes != 0 {
			fault("classes is %d, but those of a %s are its different characters: remove it", s.Classes, Text)
		}
	default:
		fault("source is %q, which is not known: use one of %s", s.Source, strings.Join([]string{Glyphs, IDX, Text}, ", "))
	}
	return faults
}

// misplaced names the fields that belong to another source.
func (s Source) misplaced() []error {
	var faults []error
	for _, f := range []struct {
		field, source string
		given         bool
	}{
		{"seed", Glyphs, s.Seed != 0},
		{"images", IDX, s.Images != ""}, {"labels", IDX, s.Labels != ""},
		{"test_images", IDX, s.TestImages != ""}, {"test_labels", IDX, s.TestLabels != ""},
		{"path", Text, s.Path != ""}, {"context", Text, s.Context != 0},
	} {
		if f.given && f.source != s.Source {
			faults = append(faults, fmt.Errorf("data.%s has no meaning with source %s: remove it, or set data.source to %s", f.field, s.Source, f.source))
		}
	}
	return faults
}

// Open gives the training and the held-out set of a source. Drawn pictures are drawn
// when first asked for; files are read whole, and only the samples in use are kept.
func Open(s Source) (train, test Dataset, err error) {
	if faults := s.Validate(); len(faults) > 0 {
		return nil, nil, errors.Join(faults...)
	}
	switch s.Source {
	case Glyphs:
		return newGlyphs(s.Seed, trainStream, s.Train), newGlyphs(s.Seed, testStream, s.Test), nil
	case Text:
		return openText(s)
	default:
		return openIDX(s)
	}
}
