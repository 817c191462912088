package data

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The sources that Source.Source may name.
const (
	Glyphs = "glyphs" // digits drawn by the program, a function of Seed and the index
	IDX    = "idx"    // files in the format of MNIST, plain or gzip
	Text   = "text"   // a file of text, its characters as tokens
	LIBSVM = "libsvm" // labels and index:value pairs, plain or gzip
	CSV    = "csv"    // a table with a label in one column
	Criteo = "criteo" // clicks: a label, counts, and categories with a key each
	CTR    = "ctr"    // the same, drawn by the program, a function of Seed and the index

	Program = "program" // samples of a Go program's own; Own makes it
)

// What Source.Task may name.
const (
	Classification = "classification" // labels are classes
	Regression     = "regression"     // labels are numbers to be found
)

// Source is the job's description of its data, the section "data" of its YAML. Paths are
// relative to the working directory; all may be gzip or bzip2.
type Source struct {
	Source string `yaml:"source"`
	Train  int    `yaml:"train,omitempty"` // samples of a pass: pictures, or windows of text
	Test   int    `yaml:"test,omitempty"`  // samples held out, never trained on

	Seed uint64 `yaml:"seed,omitempty"` // glyphs and ctr: of the drawing; libsvm, csv and criteo: of the choice of held-out rows

	// idx only. Without TestImages the first Train samples are trained on and the last
	// Test held out; with it, the first Train of one pair and the first Test of the other.
	Images     string `yaml:"images,omitempty"`
	Labels     string `yaml:"labels,omitempty"`
	TestImages string `yaml:"test_images,omitempty"`
	TestLabels string `yaml:"test_labels,omitempty"`
	Classes    int    `yaml:"classes,omitempty"` // 0 means 10

	// text, libsvm, csv and criteo. Of text, a sample is a window of Context characters: Train windows
	// are spread evenly over the first nine tenths of the text, Test windows over the last tenth.
	Path    string `yaml:"path,omitempty"`
	Context int    `yaml:"context,omitempty"`

	// libsvm, csv and criteo: every row is a sample, so there is no Train and no Test. Both paths may
	// be patterns: part-*.csv. Without TestPath a share of the rows is held out.
	TestPath string  `yaml:"test_path,omitempty"`
	HeldOut  float64 `yaml:"held_out,omitempty"` // 0 means 0.2
	Task     string  `yaml:"task,omitempty"`     // empty: libsvm, classification; csv, as the labels look

	Features int `yaml:"features,omitempty"` // libsvm: how many there are; 0: as many as the files name

	Table `yaml:",inline"`

	Digest string `yaml:"digest,omitempty"` // program: what identifies the samples
	own    *ownSets
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
	case Criteo, CTR:
		return Keyed
	case Program:
		if s.own != nil {
			return s.own.train.form.Kind
		}
		return Dense
	default:
		return Dense
	}
}

// ofRows tells whether every row of the files is a sample.
func (s Source) ofRows() bool { return s.Source == LIBSVM || s.Source == CSV || s.Source == Criteo }

// maxSamples catches a slip of the keyboard; no single node reads more.
const maxSamples = 1_000_000_000

// Validate names everything that is wrong, each with the field and the remedy. It reads
// no file; Open does.
func (s Source) Validate() []error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("data."+format, args...)) }
	sources := []string{Glyphs, IDX, CSV, LIBSVM, Text, Criteo, CTR}
	if s.Source != Program && !slices.Contains(sources, s.Source) { // what else is wrong hangs on it
		fault("source is %q, which is not known: use one of %s", s.Source, strings.Join(sources, ", "))
		return faults
	}
	if !s.ofRows() && s.Source != Program {
		for _, c := range []struct {
			field string
			n     int
		}{{"train", s.Train}, {"test", s.Test}} {
			if c.n < 1 || c.n > maxSamples {
				fault("%s is %d: set it to a number of samples from 1 to %d", c.field, c.n, maxSamples)
			}
		}
	}
	faults = append(faults, s.misplaced()...)
	switch s.Source {
	case Glyphs:
		if s.Classes != 0 && s.Classes != len(digits) {
			fault("classes is %d, but %s are digits: remove it", s.Classes, Glyphs)
		}
	case IDX:
		s.validateIDX(fault)
	case Text:
		if s.Path == "" {
			fault("path is missing: give the path of a file of text in UTF-8")
		}
		if s.Context < 1 || s.Context > maxContext {
			fault("context is %d: set it to the number of characters in a window, 1 to %d", s.Context, maxContext)
		}
	case LIBSVM:
		s.validateRows(fault)
		if s.Features < 0 || s.Features > maxFeatures {
			fault("features is %d: set it to the number of features, 1 to %d, or remove it for as many as the files name", s.Features, maxFeatures)
		}
	case CTR:
	case Program:
		switch {
		case s.own == nil:
			fault("source is %s: such samples are in the memory of the Go program that began the run; run that program, which hands them over by data.Own", Program)
		case s.Train != s.own.train.n || s.Test != s.own.test.n:
			fault("train is %d and data.test %d, but the program's sets have %d and %d samples: leave them as data.Own sets them", s.Train, s.Test, s.own.train.n, s.own.test.n)
		}
	case Criteo:
		s.validateRows(fault)
	case CSV:
		s.validateRows(fault)
		s.Table.validate(fault)
	}
	return faults
}

func (s Source) validateIDX(fault func(string, ...any)) {
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
}

// validateRows checks what libsvm and csv have in common.
func (s Source) validateRows(fault func(string, ...any)) {
	if s.Path == "" {
		fault("path is missing: give the path of a file, or a pattern such as part-*, plain, gzip or bzip2")
	}
	switch {
	case s.TestPath != "" && s.HeldOut != 0:
		fault("held_out has no meaning with data.test_path: remove one of them")
	case !(s.HeldOut >= 0 && s.HeldOut < 1):
		fault("held_out is %v: set it to the share of rows that is not trained on, such as 0.2", s.HeldOut)
	}
	if s.Task != "" && s.Task != Classification && s.Task != Regression {
		fault("task is %q: use %s or %s", s.Task, Classification, Regression)
	}
}

// misplaced names the fields that belong to another source.
func (s Source) misplaced() []error {
	var faults []error
	for _, f := range []struct {
		field   string
		given   bool
		sources []string
	}{
		{"train", s.Train != 0, []string{Glyphs, IDX, Text, CTR, Program}}, {"test", s.Test != 0, []string{Glyphs, IDX, Text, CTR, Program}},
		{"seed", s.Seed != 0, []string{Glyphs, LIBSVM, CSV, Criteo, CTR}},
		{"images", s.Images != "", []string{IDX}}, {"labels", s.Labels != "", []string{IDX}},
		{"test_images", s.TestImages != "", []string{IDX}}, {"test_labels", s.TestLabels != "", []string{IDX}},
		{"classes", s.Classes != 0, []string{Glyphs, IDX}},
		{"path", s.Path != "", []string{Text, LIBSVM, CSV, Criteo}}, {"context", s.Context != 0, []string{Text}},
		{"test_path", s.TestPath != "", []string{LIBSVM, CSV, Criteo}}, {"held_out", s.HeldOut != 0, []string{LIBSVM, CSV, Criteo}},
		{"task", s.Task != "", []string{LIBSVM, CSV}}, {"features", s.Features != 0, []string{LIBSVM}},
		{"label", s.Label != "", []string{CSV}}, {"header", s.Header != nil, []string{CSV}}, {"delimiter", s.Delimiter != "", []string{CSV}},
		{"numeric", s.Numeric != nil, []string{CSV}}, {"categorical", s.Categorical != nil, []string{CSV}}, {"ignore", s.Ignore != nil, []string{CSV}},
		{"missing", s.Missing != nil, []string{CSV}}, {"indicate_missing", s.IndicateMissing, []string{CSV}},
		{"max_categories", s.MaxCategories != 0, []string{CSV}}, {"digest", s.Digest != "", []string{Program}},
	} {
		switch {
		case !f.given || slices.Contains(f.sources, s.Source):
		case s.ofRows() && (f.field == "train" || f.field == "test"):
			faults = append(faults, fmt.Errorf("data.%s has no meaning with source %s, of which every row is used: remove it; data.held_out or data.test_path says what is held out", f.field, s.Source))
		default:
			faults = append(faults, fmt.Errorf("data.%s has no meaning with source %s: remove it, or set data.source to %s", f.field, s.Source, strings.Join(f.sources, " or ")))
		}
	}
	return faults
}

// Open gives the training and the held-out set of a source. Drawn samples are drawn
// when asked for; files are read whole, and only the samples in use are kept. Reading stops when ctx
// ends; where it takes long, tell is called now and then, if it is not nil.
func Open(ctx context.Context, s Source, tell func(Progress)) (train, test Dataset, err error) {
	if faults := s.Validate(); len(faults) > 0 {
		return nil, nil, errors.Join(faults...)
	}
	w := &watch{ctx: ctx, tell: tell, every: tellEvery, told: time.Now()}
	switch s.Source {
	case Glyphs:
		return newGlyphs(s.Seed, trainStream, s.Train), newGlyphs(s.Seed, testStream, s.Test), nil
	case Text:
		return w.openText(s)
	case LIBSVM:
		return w.openLIBSVM(s, "")
	case CSV:
		return w.openCSV(s, "")
	case Criteo:
		return w.openCriteo(s)
	case CTR:
		return newCTR(s.Seed, trainStream, s.Train), newCTR(s.Seed, testStream, s.Test), nil
	case Program:
		return s.own.train, s.own.test, nil
	default:
		return w.openIDX(s)
	}
}
