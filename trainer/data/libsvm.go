package data

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
)

// The format of LIBSVM and SVMlight (C.-C. Chang and C.-J. Lin, "LIBSVM: a library for
// support vector machines", README; T. Joachims, SVMlight): a line is a label and pairs
// index:value in ascending order of the index, what is not named being 0. A # begins a
// comment. A pair qid:number, which groups the lines of ranking problems, is passed over.
//
// Indices begin with 1. If an index 0 occurs anywhere in the files, they begin with 0.

const (
	// maxFeatures keeps indices within an int32.
	maxFeatures = math.MaxInt32 - 1

	// maxClasses bounds the labels that are taken for classes: more than any known problem has,
	// but numbers that are no classes soon show.
	maxClasses = 1 << 16
)

// libsvm is LIBSVM files being read.
type libsvm struct {
	source  Source
	watch   *watch
	classes map[float64]int32 // the different labels, in no order; nil in regression
	closed  bool              // no further classes: those of the training files are all there are
	asked   bool              // rows to be answered: their labels count for nothing, and nor do features that have not occurred
	rows    int               // of all files of a path
	zero    bool              // an index 0 has occurred

	most      int32 // the largest index
	mostField string
	mostPath  string
	mostLine  int
}

// libsvmRows are rows as they stand in the files: indices as written, labels as numbers.
type libsvmRows struct {
	sparse
	raw []float64
}

func newLIBSVMRows() *libsvmRows { return &libsvmRows{sparse: sparse{starts: []int64{0}}} }

// openLIBSVM reads the files of a valid source, and instead of the held-out set the rows of another path, if one is given.
func (w *watch) openLIBSVM(s Source, rows string) (train, test Dataset, err error) {
	r := &libsvm{source: s, watch: w}
	if s.Task != Regression {
		r.classes = map[float64]int32{}
	}
	a, b := newLIBSVMRows(), newLIBSVMRows()
	split := splitOf(s)
	err = r.read("data.path", s.Path, func(row int) *libsvmRows {
		if split.holdsOut(row) {
			return b
		}
		return a
	})
	if err == nil && s.TestPath != "" {
		r.closed = true
		err = r.read("data.test_path", s.TestPath, func(int) *libsvmRows { return b })
	}
	if err == nil && rows != "" {
		b, r.asked = newLIBSVMRows(), true
		err = r.read(rowsField, rows, func(int) *libsvmRows { return b })
	}
	if err == nil {
		err = enough(s, a.Len(), b.Len())
	}
	if err != nil {
		return nil, nil, err
	}
	return r.finish(a, b)
}

// enough checks that there is something to train on and something held out.
func enough(s Source, train, test int) error {
	if train > 0 && test > 0 {
		return nil
	}
	return &FileError{Field: "data.path", Path: s.Path, Expected: "rows to train on and rows to hold out",
		Found: fmt.Sprintf("%d and %d", train, test), Remedy: "name a file that has more rows, change data.held_out, or name one that is held out in data.test_path"}
}

// read reads all files of a path; into gives the rows that a row belongs to.
func (r *libsvm) read(field, pattern string, into func(row int) *libsvmRows) error {
	r.rows = 0
	return r.watch.eachFile(field, pattern, func(f *file) error { return r.readFile(f, into) })
}

func (r *libsvm) readFile(f *file, into func(row int) *libsvmRows) error {
	before := r.rows
	err := eachLine(f, func(l *lines, line []byte) error {
		if line = content(line); len(line) == 0 {
			return nil
		}
		if err := r.line(l, line, into(r.rows)); err != nil {
			return err
		}
		r.rows++
		return nil
	})
	if err != nil {
		return err
	}
	if r.rows == before {
		return f.fail("lines of a label and index:value pairs", "an empty file", "name a file that holds some", nil)
	}
	return nil
}

// eachFile opens the files of a path one after another.
func (w *watch) eachFile(field, pattern string, do func(f *file) error) error {
	paths, err := several(field, pattern)
	if err != nil {
		return err
	}
	for _, path := range paths {
		f, err := w.openFile(field, path)
		if err != nil {
			return err
		}
		err = do(f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// content is a line without its comment and the blanks around it.
func content(line []byte) []byte {
	if at := bytes.IndexByte(line, '#'); at >= 0 {
		line = line[:at]
	}
	return bytes.TrimSpace(line)
}

// word splits off the first word of a line that does not begin with a blank.
func word(line []byte) (first, rest []byte) {
	for i, c := range line {
		if c == ' ' || c == '\t' {
			return line[:i], bytes.TrimLeft(line[i:], " \t")
		}
	}
	return line, nil
}

// line adds a row. The line is not empty.
func (r *libsvm) line(l *lines, line []byte, into *libsvmRows) error {
	first, rest := word(line)
	label, err := r.label(l, first)
	if err != nil {
		return err
	}
	last := int32(-1)
	for len(rest) > 0 {
		var pair []byte
		pair, rest = word(rest)
		index, value, err := r.pair(l, pair)
		if err != nil {
			return err
		}
		if index == qid || r.asked && (index > r.most || index == 0 && !r.zero) {
			continue
		}
		if index <= last {
			return l.failAt(l.n, "indices that ascend", fmt.Sprintf("index %d after %d", index, last), "sort the pairs of the line, each index once", nil)
		}
		last = index
		into.columns, into.values = append(into.columns, index), append(into.values, value)
	}
	if last > r.most {
		r.most, r.mostField, r.mostPath, r.mostLine = last, l.field, l.path, l.n
	}
	into.starts, into.raw = append(into.starts, int64(len(into.columns))), append(into.raw, label)
	return nil
}

func (r *libsvm) label(l *lines, word []byte) (float64, error) {
	x, ok := number(word)
	switch {
	case bytes.IndexByte(word, ':') >= 0:
		return 0, l.failAt(l.n, "a label before the pairs", "none, but "+quote(word), "begin each line with its label, or name a file that has labels", nil)
	case !ok && bytes.IndexByte(word, ',') >= 0:
		return 0, l.failAt(l.n, "one label, a number", quote(word), "name a file with one label a line, or, for fields parted by commas, set data.source to csv", nil)
	case !ok || !fits(x):
		return 0, l.failAt(l.n, "a label, a number such as 1 or -1", quote(word), "name a file in the format of LIBSVM: label index:value index:value", nil)
	case r.classes == nil || r.asked:
		return x, nil
	case x != math.Trunc(x):
		return 0, l.failAt(l.n, "a label that is a whole number, for a class", quote(word), "set data.task to "+Regression+" if such numbers are to be found", nil)
	}
	if _, known := r.classes[x]; !known {
		switch {
		case r.closed:
			return 0, l.failAt(l.n, "a label that occurs in "+r.source.Path, quote(word), "name files that belong together", nil)
		case len(r.classes) == maxClasses:
			return 0, l.failAt(l.n, fmt.Sprintf("at most %d different labels", maxClasses), "one more, "+quote(word), "set data.task to "+Regression+" if such numbers are to be found", nil)
		}
		r.classes[x] = 0
	}
	return x, nil
}

// qid is the index of a pair that says no feature.
const qid = -1

func (r *libsvm) pair(l *lines, pair []byte) (index int32, value float32, err error) {
	colon := bytes.IndexByte(pair, ':')
	if colon < 0 {
		return 0, 0, l.failAt(l.n, "pairs index:value after the label", quote(pair), "name a file in the format of LIBSVM: label index:value index:value", nil)
	}
	at, ok := 0, colon > 0
	for _, c := range pair[:colon] {
		if ok = ok && '0' <= c && c <= '9' && at <= maxFeatures/10; !ok {
			break
		}
		at = 10*at + int(c-'0')
	}
	x, isNumber := number(pair[colon+1:])
	switch {
	case !ok && string(pair[:colon]) == "qid":
		return qid, 0, nil
	case !ok || at > maxFeatures:
		return 0, 0, l.failAt(l.n, fmt.Sprintf("an index from 0 to %d before the colon", maxFeatures), quote(pair), "correct the line", nil)
	case r.source.Features > 0 && at > r.source.Features && !r.asked:
		return 0, 0, l.failAt(l.n, fmt.Sprintf("indices up to %d (data.features)", r.source.Features), quote(pair), "raise data.features", nil)
	case !isNumber:
		return 0, 0, l.failAt(l.n, "a number after the colon", quote(pair), "correct the line", nil)
	case !fits(x):
		return 0, 0, l.failAt(l.n, "finite numbers of 32 bits", quote(pair), "correct or remove the line", nil)
	}
	r.zero = r.zero || at == 0 && !r.asked
	return int32(at), float32(x), nil
}

// quote shows a piece of a file that may be anything and of any length.
func quote[T string | []byte](s T) string {
	const most = 40
	if len(s) > most {
		return fmt.Sprintf("%q and more", string(s[:most]))
	}
	return fmt.Sprintf("%q", string(s))
}

// finish makes features of indices, and classes or standardised targets of labels.
func (r *libsvm) finish(train, test *libsvmRows) (a, b Dataset, err error) {
	features, base := int(r.most), int32(1)
	if r.zero {
		features, base = features+1, 0
	}
	if given := r.source.Features; given > 0 {
		if features > given {
			return nil, nil, &FileError{Field: r.mostField, Path: r.mostPath, Line: r.mostLine, Expected: fmt.Sprintf("indices up to %d, as they begin with 0 and data.features is %d", given-1, given),
				Found: fmt.Sprint(r.most), Remedy: "raise data.features"}
		}
		features = given
	}
	form := Form{Kind: Sparse, Shape: []int{max(features, 1)}, Entries: max(train.most(), test.most(), 1)}
	if r.classes == nil {
		form.Unit = standardise(train, test)
	} else {
		names := r.number()
		if err := distinct(r.source, names, train.Len()+test.Len()); err != nil {
			return nil, nil, err
		}
		form.Classes = len(names)
		for _, part := range []*libsvmRows{train, test} {
			part.names, part.labels = names, make([]int32, len(part.raw))
			for i, x := range part.raw {
				part.labels[i] = r.classes[x]
			}
		}
	}
	large := magnitudes(train)
	for _, part := range []*libsvmRows{train, test} {
		part.divide(large)
		for i := range part.columns {
			part.columns[i] -= base
		}
		part.raw = nil // the data set lives on
		part.seal(form)
	}
	return &train.sparse, &test.sparse, nil
}

// magnitudes are, of the features that go beyond 1 or -1, the largest magnitudes in the rows.
func magnitudes(rows *libsvmRows) map[int32]float32 {
	large := map[int32]float32{}
	for i, v := range rows.values {
		if v = max(v, -v); v > 1 {
			large[rows.columns[i]] = max(large[rows.columns[i]], v)
		}
	}
	return large
}

// divide brings large features to the magnitude that a learning rate suits. Zeros stay zeros,
// and features that are scaled already, as they are.
func (r *libsvmRows) divide(large map[int32]float32) {
	r.divided = len(large)
	if len(large) == 0 {
		return
	}
	for i, c := range r.columns {
		if by, ok := large[c]; ok {
			r.values[i] /= by
		}
	}
}

// number numbers the classes in ascending order of their labels, and lists these.
func (r *libsvm) number() (names []string) {
	labels := slices.Sorted(maps.Keys(r.classes))
	for i, x := range labels {
		r.classes[x] = int32(i)
		names = append(names, fmt.Sprint(x))
	}
	return names
}

// standardise makes targets of labels, by the mean and the deviation of those to train on.
func standardise(train, test *libsvmRows) (unit float64) {
	var m moments
	for _, x := range train.raw {
		m.add(x)
	}
	for _, part := range []*libsvmRows{train, test} {
		part.scale, part.targets = m.scale(), make([]float32, len(part.raw))
		for i, x := range part.raw {
			part.targets[i] = part.scale.of(x)
		}
	}
	return m.scale().deviation
}

// distinct checks that labels can be classes: there are several, and they do not name the rows.
func distinct(s Source, names []string, rows int) error {
	switch {
	case len(names) < 2:
		return &FileError{Field: "data.path", Path: s.Path, Expected: "labels of at least 2 classes", Found: "only " + list(names), Remedy: "name files that have something to learn"}
	case len(names) >= fewValues && 2*len(names) > rows:
		return &FileError{Field: "data.path", Path: s.Path, Expected: "labels that come again and again, as classes do", Found: fmt.Sprintf("%d different ones in %d rows", len(names), rows),
			Remedy: "take another column for the label, or, if numbers are to be found, set data.task to " + Regression}
	default:
		return nil
	}
}
