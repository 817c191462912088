package data

import (
	"bytes"
	"fmt"
	"math"
)

// The format of Criteo's data sets of clicks (Display Advertising Challenge, Kaggle 2014; the terabyte): a line is a
// label, 1 for a click, 13 counts and 26 categories of up to 16 hexadecimal digits, parted by tabs. Any of them but the label may be
// missing. Lines parted by commas, and a first line of names, are read too.
//
// Counts become their logarithm, standardised by the rows that are trained on; one that is missing, or below 0, becomes
// the mean, which is 0, or that of 0. A category is known by its column and its digits; a missing one is a category as well.

const (
	criteoNumbers = ctrNumbers
	criteoFields  = ctrFields
)

func criteoForm() Form {
	return Form{Kind: Keyed, Shape: []int{criteoNumbers}, Fields: criteoFields, Classes: 2}
}

// criteo is Criteo files being read.
type criteo struct {
	watch *watch
	rows  int
}

// criteoRows are rows whose counts are not yet standardised: NaN is missing.
type criteoRows struct {
	keyed
}

func (w *watch) openCriteo(s Source) (train, test Dataset, err error) {
	r := &criteo{watch: w}
	a, b := &criteoRows{}, &criteoRows{}
	split := splitOf(s)
	err = r.read("data.path", s.Path, func(row int) *criteoRows {
		if split.holdsOut(row) {
			return b
		}
		return a
	})
	if err == nil && s.TestPath != "" {
		err = r.read("data.test_path", s.TestPath, func(int) *criteoRows { return b })
	}
	if err == nil {
		err = enough(s, a.Len(), b.Len())
	}
	if err != nil {
		return nil, nil, err
	}
	var columns [criteoNumbers]moments
	for i, v := range a.numbers {
		if v == v {
			columns[i%criteoNumbers].add(float64(v))
		}
	}
	for _, part := range []*criteoRows{a, b} {
		for i, v := range part.numbers {
			part.numbers[i] = 0
			if v == v {
				part.numbers[i] = columns[i%criteoNumbers].scale().of(float64(v))
			}
		}
		part.seal(criteoForm())
	}
	a.count()
	return &a.keyed, &b.keyed, nil
}

// count counts the different keys, for people.
func (k *keyed) count() {
	seen := make(map[uint64]struct{})
	for _, key := range k.keys {
		seen[key] = struct{}{}
	}
	k.distinct = len(seen)
}

func (r *criteo) read(field, pattern string, into func(row int) *criteoRows) error {
	r.rows = 0
	return r.watch.eachFile(field, pattern, func(f *file) error { return r.readFile(f, into) })
}

func (r *criteo) readFile(f *file, into func(row int) *criteoRows) error {
	before, delimiter := r.rows, byte('\t')
	err := eachLine(f, func(l *lines, line []byte) error {
		if l.n == 1 {
			if bytes.IndexByte(line, '\t') < 0 && bytes.IndexByte(line, ',') >= 0 {
				delimiter = ','
			}
			if bytes.HasPrefix(line, []byte("label")) {
				return nil
			}
		}
		if err := into(r.rows).line(l, line, delimiter); err != nil {
			return err
		}
		r.rows++
		return nil
	})
	if err != nil {
		return err
	}
	if r.rows == before {
		return f.fail("lines of a label, 13 counts and 26 categories", "an empty file", "name a file that holds some", nil)
	}
	return nil
}

const criteoRemedy = "correct the line, or name a file in Criteo's format: label, 13 counts and 26 categories, parted by tabs"

// line adds a row.
func (k *criteoRows) line(l *lines, line []byte, delimiter byte) error {
	if n := bytes.Count(line, []byte{delimiter}) + 1; n != 1+criteoNumbers+criteoFields {
		return l.failAt(l.n, fmt.Sprintf("%d fields", 1+criteoNumbers+criteoFields), fmt.Sprint(n), criteoRemedy, nil)
	}
	next := func() (field []byte) {
		field, line, _ = bytes.Cut(line, []byte{delimiter})
		return field
	}
	label := next()
	if len(label) != 1 || label[0] != '0' && label[0] != '1' {
		return l.failAt(l.n, "the label 0 or 1", quote(label), criteoRemedy, nil)
	}
	k.labels = append(k.labels, int32(label[0]-'0'))
	for j := range criteoNumbers {
		v, err := count(l, j, next())
		if err != nil {
			return err
		}
		if v != v {
			k.missing++
		}
		k.numbers = append(k.numbers, v)
	}
	for f := range criteoFields {
		category, ok := hexadecimal(next())
		if !ok {
			return l.failAt(l.n, fmt.Sprintf("up to 16 hexadecimal digits in column C%d", f+1), "another text", criteoRemedy, nil)
		}
		if category == absent {
			k.missing++
		}
		k.keys = append(k.keys, keyOf(f, category))
	}
	return nil
}

// count is the logarithm of a count, NaN where it is missing.
func count(l *lines, column int, field []byte) (float32, error) {
	if len(field) == 0 {
		return float32(math.NaN()), nil
	}
	x, ok := number(field)
	if !ok || !(math.Abs(x) < 1<<53) {
		return 0, l.failAt(l.n, fmt.Sprintf("a count in column I%d", column+1), quote(field), criteoRemedy, nil)
	}
	return logarithm(uint64(max(x, 0))), nil
}

// hexadecimal reads digits; none are absent. Leading zeros count for nothing.
func hexadecimal(field []byte) (v uint64, ok bool) {
	if len(field) == 0 {
		return absent, true
	}
	if len(field) > 16 {
		return 0, false
	}
	for _, c := range field {
		switch {
		case '0' <= c && c <= '9':
			v = v<<4 | uint64(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			v = v<<4 | uint64(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return v, true
}
