package data

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// CSV files are read twice: a survey finds out what each column is, and a second reading
// turns rows into numbers, by what the survey found. So memory is needed for what is kept,
// not for what is read.

// role is what the job says of a column: the field of Table that names it.
type role string

const (
	asItLooks       role = ""
	labelRole       role = "label"
	numericRole     role = "numeric"
	categoricalRole role = "categorical"
	ignoredRole     role = "ignore"
)

const (
	// looksNumeric is the share of numbers from which on a column that has other values too is
	// more likely one of numbers with a fault than one of categories.
	looksNumeric = 0.9

	// fewValues is how many different values make a column of categories, whatever they are. A
	// column of more texts is most likely no category, but a name or a key, if more than half of
	// its rows have a text of their own.
	fewValues = 20

	// mostTexts and mostNumbers bound the different values of a column that are counted, while
	// they are text and while all of them are numbers. With more it is no category.
	mostTexts   = 100_000
	mostNumbers = 1000

	// mostNumberClasses is how many different whole numbers are taken for classes where the
	// job does not say what they are.
	mostNumberClasses = 100
)

// survey gathers what a column holds.
type survey struct {
	name string
	role role

	values, numbers int    // of all rows: not missing, and those that are numbers
	odd             string // the first value that is no number
	oddLine         int

	whole    bool    // all numbers are
	first    float64 // number, and whether each is one more than the one before
	counting bool

	moments                 // of the rows to train on
	missing int             // rows to train on
	counts  map[string]*int // by different value; of rows to train on, for the label of all; nil if too many
	lost    bool            // counts was given up
}

// tableReader reads the files of a source.
type tableReader struct {
	source  Source
	watch   *watch
	split   split
	columns []*survey // nil before the first row
	label   *survey
	header  bool
	rows    int // of all files of a path, so far

	planned *plan    // of rows to be answered, which need not have all columns, nor in the same order
	places  []int    // where a file of such rows has each column; -1: nowhere
	row     []string // a row in the order of columns
}

// rowFunc is called for a row, numbered from 0 over the files of a path.
type rowFunc func(f *records, line, row int, fields []string) error

// each goes through the rows of the files of a path.
func (r *tableReader) each(field, pattern string, do rowFunc) error {
	r.rows = 0
	return r.watch.eachFile(field, pattern, func(f *file) error { return r.readFile(f, do) })
}

// readFile goes through the rows of a file. It checks that it has the columns of those before.
func (r *tableReader) readFile(f *file, do rowFunc) error {
	in, err := newRecords(f, r.source.Table)
	if err != nil {
		return err
	}
	before := r.rows
	for {
		fields, line, err := in.next()
		if errors.Is(err, io.EOF) {
			break
		}
		data := true
		if err == nil && line == in.first {
			data, err = r.begin(in, line, fields)
		}
		if err == nil && data {
			err = do(in, line, r.rows, r.arranged(fields))
			r.rows++
		}
		if err != nil {
			return err
		}
	}
	if r.rows == before {
		return f.fail("rows of fields", "none", "name a file that holds some", nil)
	}
	return nil
}

// begin takes the first row of a file. It tells whether that is data.
func (r *tableReader) begin(f *records, line int, fields []string) (data bool, err error) {
	if r.columns == nil {
		r.header = r.source.Table.header(fields)
		return !r.header, r.assign(f, line, names(fields, r.header))
	}
	if r.planned != nil {
		return !r.header, r.place(f, line, names(fields, r.header))
	}
	var have []string
	for _, c := range r.columns {
		have = append(have, c.name)
	}
	if len(fields) != len(have) {
		return false, f.failAt(line, fmt.Sprintf("%d fields, as in %s", len(have), r.source.Path), fmt.Sprint(len(fields)), "name files that have the same columns", nil)
	}
	if r.header && !slices.Equal(names(fields, true), have) {
		return false, f.failAt(line, "the same header as in "+r.source.Path+": "+list(have), list(fields), "name files that have the same columns", nil)
	}
	return !r.header, nil
}

// assign gives the columns the roles that the job names.
func (r *tableReader) assign(f *records, line int, columns []string) error {
	for _, name := range columns {
		if !utf8.ValidString(name) {
			return f.failAt(line, "text in UTF-8", quote(name), "convert the file, for example with iconv -f LATIN1 -t UTF-8", nil)
		}
		r.columns = append(r.columns, &survey{name: name, whole: true, counting: true, counts: map[string]*int{}})
	}
	t := r.source.Table
	for _, given := range []struct {
		role  role
		names []string
	}{{labelRole, []string{t.Label}}, {numericRole, t.Numeric}, {categoricalRole, t.Categorical}, {ignoredRole, t.Ignore}} {
		for _, name := range given.names {
			at, err := find(f.file, string(given.role), name, columns)
			if err != nil {
				return err
			}
			if other := r.columns[at].role; other != asItLooks {
				return &FileError{Field: "data." + string(given.role), Path: f.path, Expected: "a column that no other field names",
					Found: fmt.Sprintf("%q, which is the column %q of data.%s", name, columns[at], other), Remedy: "remove one of them"}
			}
			r.columns[at].role = given.role
			if given.role == labelRole {
				r.label = r.columns[at]
			}
		}
	}
	return nil
}

// look surveys one row.
func (r *tableReader) look(f *records, line, row int, fields []string) error {
	train := !r.split.holdsOut(row)
	for i, c := range r.columns {
		if c.role == ignoredRole {
			continue
		}
		if err := c.look(f, line, fields[i], r.source.Table.missing(fields[i]), train); err != nil {
			return err
		}
	}
	return nil
}

func (c *survey) look(f *records, line int, field string, missing, train bool) error {
	if missing {
		if c.role == labelRole {
			return f.failAt(line, fmt.Sprintf("a label in column %q", c.name), "none, but "+quote(field), "remove the line, or fill in its label", nil)
		}
		if train {
			c.missing++
		}
		return nil
	}
	x, isNumber := number(field)
	isNumber = isNumber && fits(x)
	c.values++
	if isNumber {
		c.number(x, train)
	} else {
		if !utf8.ValidString(field) {
			return f.failAt(line, "text in UTF-8", quote(field), "convert the file, for example with iconv -f LATIN1 -t UTF-8", nil)
		}
		if c.odd == "" {
			c.odd, c.oddLine = strings.Clone(field), line
		}
		if c.role == numericRole {
			return f.failAt(line, fmt.Sprintf("a number of 32 bits in column %q (data.numeric)", c.name), quote(field), "correct it, or add it to data.missing", nil)
		}
	}
	if train || c.role == labelRole {
		c.count(field)
	}
	return nil
}

func (c *survey) number(x float64, train bool) {
	c.numbers++
	if c.numbers == 1 {
		c.first = x
	}
	c.counting = c.counting && x == c.first+float64(c.numbers-1)
	c.whole = c.whole && x == math.Trunc(x)
	if train {
		c.moments.add(x)
	}
}

// count counts a value while there are not too many different ones.
func (c *survey) count(field string) {
	if c.lost || c.role == numericRole {
		return
	}
	if n, known := c.counts[field]; known {
		*n++
		return
	}
	most := mostTexts
	switch {
	case c.role == categoricalRole:
		most = maxSamples
	case c.role == labelRole:
		most = maxClasses
	case c.odd == "":
		most = mostNumbers
	}
	if len(c.counts) == most {
		c.counts, c.lost = nil, true
		return
	}
	one := 1
	c.counts[strings.Clone(field)] = &one
}

// kind is what a column turns out to be; why, the reason if it is of no use.
func (c *survey) kind(f *FileError) (k columnKind, why string, err error) {
	switch c.role {
	case ignoredRole:
		return unused, "as the job says", nil
	case numericRole:
		return numeric, "", nil
	case categoricalRole:
		return categorical, "", nil
	}
	rows := c.values
	switch {
	case rows == 0:
		return unused, "no values", nil
	case c.numbers == rows && c.m2 == 0:
		return unused, "always the same number", nil
	case c.numbers == rows && c.counting && (c.first == 0 || c.first == 1) && rows >= fewValues && c.missing == 0:
		return unused, "numbers of the rows", nil
	case c.numbers == rows:
		return numeric, "", nil
	case float64(c.numbers) >= looksNumeric*float64(rows) && (c.lost || len(c.counts) >= fewValues):
		f.Line = c.oddLine
		f.Expected = fmt.Sprintf("a number of 32 bits in column %q, as in %d of its %d rows", c.name, c.numbers, rows)
		f.Found = quote(c.odd)
		f.Remedy = "correct it, add it to data.missing, or name the column in data.categorical or data.ignore"
		return unused, "", f
	case c.lost || len(c.counts) >= fewValues && 2*len(c.counts) > c.total():
		return unused, "a text of its own in most rows", nil
	case len(c.counts) == 0 || len(c.counts) == 1 && c.missing == 0:
		return unused, "always the same text", nil
	}
	return categorical, "", nil
}

// total is the number of values that counts has counted.
func (c *survey) total() int {
	n := 0
	for _, count := range c.counts {
		n += *count
	}
	return n
}

// categories are the most frequent values, sorted.
func (c *survey) categories(most int) []string {
	all := slices.SortedFunc(maps.Keys(c.counts), func(a, b string) int {
		return cmp.Or(*c.counts[b]-*c.counts[a], cmp.Compare(a, b))
	})
	all = all[:min(len(all), most)]
	slices.Sort(all)
	return all
}
