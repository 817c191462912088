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
)

// Source is the job's description of its data, the section "data" of its YAML. Paths are
// relative to the working directory.
type Source struct {
	Source string `yaml:"source"`
	Train  int    `yaml:"train"` // samples to train on
	Test   int    `yaml:"test"`  // samples held out, never trained on

	Seed uint64 `yaml:"seed,omitempty"` // glyphs only

	// idx only. Without TestImages the first Train samples are trained on and the last
	// Test held out; with it, the first Train of one pair and the first Test of the other.
	Images     string `yaml:"images,omitempty"`
	Labels     string `yaml:"labels,omitempty"`
	TestImages string `yaml:"test_images,omitempty"`
	TestLabels string `yaml:"test_labels,omitempty"`
	Classes    int    `yaml:"classes,omitempty"` // 0 means 10
}

// DefaultSource is what a job trains on that says nothing of its data.
func DefaultSource() Source { return Source{Source: Glyphs, Train: 20000, Test: 2000, Seed: 1} }

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
	paths := []struct{ field, value string }{
		{"images", s.Images}, {"labels", s.Labels}, {"test_images", s.TestImages}, {"test_labels", s.TestLabels},
	}
	switch s.Source {
	case Glyphs:
		for _, p := range paths {
			if p.value != "" {
				fault("%s has no meaning with source %s: remove it, or set data.source to %s", p.field, Glyphs, IDX)
			}
		}
		if s.Classes != 0 && s.Classes != len(digits) {
			fault("classes is %d, but %s are digits: remove it", s.Classes, Glyphs)
		}
	case IDX:
		for _, p := range paths[:2] {
			if p.value == "" {
				fault("%s is missing: give the path of an IDX file, plain or gzip", p.field)
			}
		}
		if (s.TestImages == "") != (s.TestLabels == "") {
			fault("test_images and data.test_labels belong together: give both, or neither to hold out the last samples of data.images")
		}
		if s.Seed != 0 {
			fault("seed is %d, but has no meaning with source %s: remove it", s.Seed, IDX)
		}
		if s.Classes < 0 || s.Classes > 256 {
			fault("classes is %d: set it to the number of labels, 1 to 256, or remove it for 10", s.Classes)
		}
	default:
		fault("source is %q, which is not known: use one of %s", s.Source, strings.Join([]string{Glyphs, IDX}, ", "))
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
	default:
		return openIDX(s)
	}
}
