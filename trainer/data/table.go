package data

import (
	"fmt"
	"math"
)

// table is rows of numbers and categories, kept as they are compact: a Sample spreads them.
type table struct {
	plan    *plan
	form    Form
	numbers []float32 // (n, numeric columns) standardised; NaN: missing
	codes   []uint16  // (n, categorical columns)
	answers
	n      int
	blank  bool // its rows have no answers
	digest Digest
}

func newTable(p *plan) *table {
	return &table{
		plan: p, form: Form{Shape: []int{p.width}, Classes: len(p.classes), Unit: p.target.deviation},
		answers: answers{names: p.classes, scale: p.target},
	}
}

func (t *table) Len() int       { return t.n }
func (t *table) Form() Form     { return t.form }
func (t *table) Digest() Digest { return t.digest }

func (t *table) Sample(i int, into Batch) {
	clear(into.X)
	numbers := t.numbers[len(t.numbers)/t.n*i:]
	codes := t.codes[len(t.codes)/t.n*i:]
	for _, c := range t.plan.columns {
		if c.kind == categorical {
			into.X[c.at+int(codes[0])] = 1
			codes = codes[1:]
			continue
		}
		if v := numbers[0]; !math.IsNaN(float64(v)) {
			into.X[c.at] = v
		} else if c.indicator {
			into.X[c.at+1] = 1
		}
		numbers = numbers[1:]
	}
	t.give(i, into)
}

// openCSV reads the files of a valid source, and instead of the held-out set the rows of another path, if one is given.
func (w *watch) openCSV(s Source, rows string) (train, test Dataset, err error) {
	r := &tableReader{source: s, watch: w, split: splitOf(s)}
	if err := r.each("data.path", s.Path, r.look); err != nil {
		return nil, nil, err
	}
	p, err := r.plan()
	if err != nil {
		return nil, nil, err
	}
	a, b := newTable(p), newTable(p)
	err = r.each("data.path", s.Path, func(f *records, line, row int, fields []string) error {
		if r.split.holdsOut(row) {
			return b.add(f, line, fields, s)
		}
		return a.add(f, line, fields, s)
	})
	rest := func(f *records, line, _ int, fields []string) error { return b.add(f, line, fields, s) }
	switch {
	case err != nil:
	case rows != "":
		b, r.planned = newTable(p), p
		b.blank = true
		err = r.each(rowsField, rows, rest)
	case s.TestPath != "":
		err = r.each("data.test_path", s.TestPath, rest)
	}
	if err == nil {
		err = enough(s, a.n, b.n)
	}
	if err != nil {
		return nil, nil, err
	}
	a.seal()
	b.seal()
	return a, b, nil
}

// add makes a row a sample.
func (t *table) add(f *records, line int, fields []string, s Source) error {
	for _, c := range t.plan.columns {
		field := fields[c.field]
		missing := s.Table.missing(field)
		switch {
		case c.kind == categorical && missing:
			t.codes = append(t.codes, 0)
		case c.kind == categorical:
			t.codes = append(t.codes, c.codes[field])
		case missing:
			t.numbers = append(t.numbers, float32(math.NaN()))
		default:
			x, ok := number(field)
			if !ok || !fits(x) {
				return f.failAt(line, fmt.Sprintf("a number of 32 bits in column %q, as in %s", c.name, s.Path), quote(field), "correct it, add it to data.missing, or name the column in data.categorical", nil)
			}
			t.numbers = append(t.numbers, c.scale.of(x))
		}
	}
	t.n++
	if t.blank {
		t.none(t.form)
		return nil
	}
	return t.answer(f, line, fields[t.plan.field], s)
}

func (t *table) answer(f *records, line int, field string, s Source) error {
	p := t.plan
	if p.classes == nil {
		x, ok := number(field)
		if !ok || !fits(x) {
			return f.failAt(line, fmt.Sprintf("a number of 32 bits in column %q", p.label), quote(field), "correct it, or remove the line", nil)
		}
		t.targets = append(t.targets, p.target.of(x))
		return nil
	}
	k, known := p.class[field]
	if !known {
		k, known = p.byValue(field)
	}
	if !known {
		return f.failAt(line, fmt.Sprintf("a label in column %q that occurs in %s", p.label, s.Path), quote(field), "name files that belong together, or write their labels alike", nil)
	}
	t.labels = append(t.labels, int32(k))
	return nil
}

// seal is called when the table is complete.
func (t *table) seal() {
	d := newDigester("table, %d rows\n%v", t.n, t.plan)
	d.floats(t.numbers)
	for _, c := range t.codes {
		d.uint32(uint32(c))
	}
	d.answers(t.answers)
	t.digest = d.sum()
}
