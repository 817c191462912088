package data

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Table is what only a CSV source has: how its files are written, and what their columns
// mean. Columns are named by the header, or by their number, the first being 1.
type Table struct {
	Label           string   `yaml:"label,omitempty"`            // the column to be found
	Header          *bool    `yaml:"header,omitempty"`           // nil: as the first line looks
	Delimiter       string   `yaml:"delimiter,omitempty"`        // empty: as the first line looks
	Numeric         []string `yaml:"numeric,omitempty"`          // columns of numbers
	Categorical     []string `yaml:"categorical,omitempty"`      // columns of categories
	Ignore          []string `yaml:"ignore,omitempty"`           // columns not to be used; others are taken as they look
	Missing         []string `yaml:"missing,omitempty"`          // what stands for a missing value; nil: the usual; an empty field always does
	IndicateMissing bool     `yaml:"indicate_missing,omitempty"` // a feature beside each numeric column with missing values that tells them
	MaxCategories   int      `yaml:"max_categories,omitempty"`   // of one column, the rarer ones are taken together; 0 means 256
}

// defaultMissing is what stands for a missing value, in capitals or not.
func defaultMissing() []string { return []string{"NA", "N/A", "NaN", "null", "?"} }

const (
	defaultMaxCategories = 256
	maxMaxCategories     = 1<<16 - 2 // within a uint16, with the rest
)

func (t Table) validate(fault func(string, ...any)) {
	if t.Label == "" {
		fault("label is missing: name the column that is to be found, or give its number, the first being 1")
	}
	if d := t.Delimiter; d != "" && (utf8.RuneCountInString(d) != 1 || strings.ContainsAny(d, "\"\r\n\uFFFD")) {
		fault("delimiter is %q: set it to one character, such as \";\" or \"\\t\"", d)
	}
	if t.MaxCategories < 0 || t.MaxCategories > maxMaxCategories {
		fault("max_categories is %d: set it to 1 to %d, or remove it for %d", t.MaxCategories, maxMaxCategories, defaultMaxCategories)
	}
	seen := map[string]string{t.Label: "label"}
	for _, list := range []struct {
		field string
		names []string
	}{{"numeric", t.Numeric}, {"categorical", t.Categorical}, {"ignore", t.Ignore}} {
		for _, name := range list.names {
			if other, twice := seen[name]; twice && name != "" {
				fault("%s names the column %q, and so does data.%s: remove it from one of them", list.field, name, other)
			}
			seen[name] = list.field
		}
	}
}

// missing tells whether a field without the blanks around it stands for a missing value.
func (t Table) missing(field string) bool {
	if field == "" {
		return true
	}
	if t.Missing != nil {
		return slices.Contains(t.Missing, field)
	}
	return len(field) <= 4 && slices.ContainsFunc(defaultMissing(), func(m string) bool { return strings.EqualFold(m, field) })
}

// records are the rows of a CSV file.
type records struct {
	*file
	csv   *csv.Reader
	want  int // fields of a row; 0 before the first
	first int // the line of the first row
	last  int // the line of the row read last
}

// newRecords begins to read a file whose delimiter is given, or as its first line looks.
func newRecords(f *file, t Table) (*records, error) {
	if err := skipMark(f); err != nil {
		return nil, err
	}
	r := &records{file: f, csv: csv.NewReader(f.r)}
	r.csv.Comma, _ = utf8.DecodeRuneInString(t.Delimiter)
	if t.Delimiter == "" {
		head, _ := f.r.Peek(bufferSize) // an error comes again with the first row
		r.csv.Comma = delimiter(head)
	}
	r.csv.ReuseRecord = true
	r.csv.FieldsPerRecord = -1 // next looks at it, to name the line
	r.csv.TrimLeadingSpace = r.csv.Comma != '\t' && r.csv.Comma != ' '
	return r, nil
}

// delimiter is, of the usual ones, the one that the first line has most of outside quotes;
// the comma if there is none.
func delimiter(head []byte) rune {
	line, _, _ := bytes.Cut(bytes.TrimLeft(head, "\r\n"), []byte("\n"))
	count := map[byte]int{}
	quoted := false
	for _, c := range line {
		if c == '"' {
			quoted = !quoted
		} else if !quoted {
			count[c]++
		}
	}
	best := byte(',')
	for _, c := range []byte(";\t|") {
		if count[c] > count[best] {
			best = c
		}
	}
	return rune(best)
}

// next returns the fields of the next row without the blanks around them, valid until the
// next call, and its line; io.EOF after the last one.
func (r *records) next() (fields []string, line int, err error) {
	for {
		fields, err = r.csv.Read()
		if err != nil {
			return nil, 0, r.fault(err)
		}
		line, _ = r.csv.FieldPos(0)
		r.last = line
		for i, f := range fields {
			fields[i] = strings.TrimSpace(f)
		}
		if len(fields) > 1 || fields[0] != "" || r.want == 1 { // not a line of blanks
			break
		}
	}
	switch {
	case r.want == 0:
		r.want, r.first = len(fields), line
		if len(fields) == 1 {
			return nil, 0, r.failAt(line, "a row of several fields", "one field, "+quote(fields[0]), fmt.Sprintf("set data.delimiter, which was taken for %q, or data.source, if this is no table", r.csv.Comma), nil)
		}
	case len(fields) == r.want+1 && fields[r.want] == "": // a delimiter at the end of the line
		fields = fields[:r.want]
	case len(fields) != r.want:
		return nil, 0, r.failAt(line, fmt.Sprintf("%d fields, as in line %d", r.want, r.first), fmt.Sprint(len(fields)),
			fmt.Sprintf("correct the line; a field that contains %q must be in quotes", r.csv.Comma), nil)
	}
	return fields, line, nil
}

// fault is the sentence for an error of reading.
func (r *records) fault(err error) error {
	var of *csv.ParseError
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF
	case !errors.As(err, &of):
		return r.readError(r.last, err)
	case errors.Is(err, csv.ErrBareQuote):
		return r.failAt(of.Line, "quotes only around whole fields", fmt.Sprintf("one at character %d, within a field", of.Column),
			`put the field in quotes and write those within it twice: "5"" nails"`, err)
	default:
		return r.failAt(of.StartLine, "quotes around whole fields", "a field that begins with one and goes on after the next, or never ends", "close the quotes, and write those within a field twice", err)
	}
}

// header tells whether the first row names the columns.
func (t Table) header(first []string) bool {
	if t.Header != nil {
		return *t.Header
	}
	for _, name := range slices.Concat([]string{t.Label}, t.Numeric, t.Categorical, t.Ignore) {
		if _, err := strconv.Atoi(name); err != nil {
			return true // as the job names columns
		}
	}
	seen := map[string]bool{}
	for _, field := range first {
		_, isNumber := number(field)
		if isNumber || t.missing(field) || seen[field] {
			return false
		}
		seen[field] = true
	}
	return true
}

// names are the columns' names: those of the header, and the number of a column that has none.
func names(first []string, header bool) []string {
	list := make([]string, len(first))
	for i, field := range first {
		list[i] = strings.Clone(field)
		if !header || field == "" {
			list[i] = strconv.Itoa(i + 1)
		}
	}
	return list
}

// find is the place of the column that a field of the job names, or else of that number.
func find(f *file, field, name string, columns []string) (int, error) {
	at := slices.Index(columns, name)
	if at >= 0 && slices.Contains(columns[at+1:], name) {
		return 0, &FileError{Field: "data." + field, Path: f.path, Expected: fmt.Sprintf("one column %q", name), Found: "several", Remedy: "name it by its number, the first being 1"}
	}
	if at < 0 {
		if n, err := strconv.Atoi(name); err == nil && n >= 1 && n <= len(columns) {
			return n - 1, nil
		}
		return 0, &FileError{Field: "data." + field, Path: f.path, Expected: fmt.Sprintf("a column %q", name), Found: fmt.Sprintf("%d columns: %s", len(columns), list(columns)), Remedy: "name one of them"}
	}
	return at, nil
}

// list shows some names.
func list(names []string) string {
	const most = 20
	if len(names) > most {
		return strings.Join(names[:most], ", ") + " and more"
	}
	return strings.Join(names, ", ")
}
