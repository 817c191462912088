package data

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// columnKind is what features are made of a column.
type columnKind uint8

const (
	unused      columnKind = iota
	numeric                // one feature, standardised; a missing value is the mean, which is 0
	categorical            // a feature for the rest and one for each category; one of them is 1
)

// maxWidth bounds the features of a table, which are all held side by side in a Batch.
const maxWidth = 1 << 17

// column is a column that features are made of.
type column struct {
	name       string
	field      int // of a row
	kind       columnKind
	at         int   // its first feature
	scale      scale // numeric
	indicator  bool  // numeric: a feature after it tells missing values
	missing    int   // of the rows to train on
	categories []string
	codes      map[string]uint16 // categorical: by value, from 1; 0 is the rest: rare, unknown, missing
}

// unusedColumn is a column that no feature is made of.
type unusedColumn struct{ name, why string }

func (c *column) width() int {
	switch {
	case c.kind == categorical:
		return 1 + len(c.categories)
	case c.indicator:
		return 2
	default:
		return 1
	}
}

// plan is how rows become samples, a function of the files under Source.Path and the job.
type plan struct {
	columns []*column // those in use, in the order of the files
	unused  []unusedColumn
	width   int

	label   string         // the column to be found
	field   int            // of a row, the label
	classes []string       // by number, sorted; nil in regression
	class   map[string]int // their number by text
	target  scale          // of regression
}

// plan decides what to make of the columns that were surveyed.
func (r *tableReader) plan() (*plan, error) {
	t := r.source.Table
	p := &plan{label: r.label.name, field: slices.Index(r.columns, r.label)}
	for i, s := range r.columns {
		if s == r.label {
			continue
		}
		kind, why, err := s.kind(&FileError{Field: "data.path", Path: r.source.Path})
		if err != nil {
			return nil, err
		}
		if kind == unused {
			p.unused = append(p.unused, unusedColumn{s.name, why})
			continue
		}
		c := &column{name: s.name, field: i, kind: kind, at: p.width, missing: s.missing}
		if kind == numeric {
			c.scale, c.indicator = s.moments.scale(), t.IndicateMissing && s.missing > 0
		} else {
			c.categories = s.categories(cmp.Or(t.MaxCategories, defaultMaxCategories))
			c.codes = map[string]uint16{}
			for k, name := range c.categories {
				c.codes[name] = uint16(k + 1)
			}
		}
		p.columns = append(p.columns, c)
		p.width += c.width()
	}
	switch {
	case len(p.columns) == 0:
		return nil, r.fail("at least one column to learn from", "none: "+p.reasons(), "name columns in data.numeric or data.categorical")
	case p.width > maxWidth:
		return nil, r.fail(fmt.Sprintf("at most %d features", maxWidth), fmt.Sprint(p.width), "lower data.max_categories, or name columns in data.ignore")
	}
	return p, r.planLabel(p)
}

func (r *tableReader) fail(expected, found, remedy string) *FileError {
	return &FileError{Field: "data.path", Path: r.source.Path, Expected: expected, Found: found, Remedy: remedy}
}

// planLabel decides whether labels are classes. Where the job does not say, they are, unless
// they are numbers that are not whole or that are too many.
func (r *tableReader) planLabel(p *plan) error {
	l := r.label
	numbers := l.numbers == l.values
	task := r.source.Task
	if task == "" {
		task = Classification
		if numbers && (!l.whole || l.lost || len(l.counts) > mostNumberClasses) {
			task = Regression
		}
	}
	if task == Regression {
		if !numbers {
			err := r.fail(fmt.Sprintf("a number of 32 bits in column %q", l.name), quote(l.odd), "correct it, or set data.task to "+Classification)
			err.Line = l.oddLine
			return err
		}
		p.target = l.moments.scale()
		return nil
	}
	if l.lost {
		return r.fail(fmt.Sprintf("at most %d classes in column %q", maxClasses, l.name), "more", "name another column in data.label, or set data.task to "+Regression)
	}
	p.classes, p.class = classes(l, numbers)
	return distinct(r.source, p.classes, l.values)
}

// classes numbers the different labels in ascending order: of their values where all are
// numbers, so that 1 and 1.0 are one class, and otherwise as texts.
func classes(l *survey, numbers bool) (names []string, class map[string]int) {
	texts := slices.Sorted(maps.Keys(l.counts))
	value := func(text string) float64 { x, _ := number(text); return x }
	if numbers {
		slices.SortStableFunc(texts, func(a, b string) int { return cmp.Compare(value(a), value(b)) })
	}
	class = map[string]int{}
	for i, text := range texts {
		if i == 0 || !numbers || value(text) != value(texts[i-1]) {
			names = append(names, text)
		}
		class[text] = len(names) - 1
	}
	return names, class
}

// reasons says why columns are not used.
func (p *plan) reasons() string {
	var each []string
	for _, u := range p.unused {
		each = append(each, fmt.Sprintf("%s (%s)", u.name, u.why))
	}
	return list(each)
}

// byValue finds the class of a number that is written in a way that was not seen before.
func (p *plan) byValue(field string) (class int, known bool) {
	x, ok := number(field)
	for i, name := range p.classes {
		if y, isNumber := number(name); ok && isNumber && x == y {
			return i, true
		}
	}
	return 0, false
}

// String says everything that the plan decides, for people and for digests.
func (p *plan) String() string {
	var b strings.Builder
	for _, c := range p.columns {
		if c.kind == numeric {
			fmt.Fprintf(&b, "%s: a number, less %v, by %v", c.name, c.scale.mean, c.scale.deviation)
			if c.indicator {
				b.WriteString(", and whether it is missing")
			}
		} else {
			fmt.Fprintf(&b, "%s: one of %q, or the rest", c.name, c.categories)
		}
		b.WriteByte('\n')
	}
	for _, u := range p.unused {
		fmt.Fprintf(&b, "not used: %s (%s)\n", u.name, u.why)
	}
	if p.classes != nil {
		fmt.Fprintf(&b, "to be found: %s, one of %q\n", p.label, p.classes)
	} else {
		fmt.Fprintf(&b, "to be found: %s, a number, less %v, by %v\n", p.label, p.target.mean, p.target.deviation)
	}
	return b.String()
}
