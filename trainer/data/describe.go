package data

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Describe says, for people, what was made of the files of a job.
func Describe(out io.Writer, train, test Dataset) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "samples\t%d to train on, %d held out\n", train.Len(), test.Len())
	f := train.Form()
	switch f.Kind {
	case Tokens:
		fmt.Fprintf(w, "a sample\ta window of %d tokens, of which there are %d, and for each the one after it\n", f.Shape[0], f.Classes)
	case Keyed:
		fmt.Fprintf(w, "a sample\t%d numbers and %d keys of sparse tables\n", f.Shape[0], f.Fields)
		if k, ok := train.(*keyed); ok {
			fmt.Fprintf(w, "to be trained on\t%d different keys, %d values missing\n", k.distinct, k.missing)
		}
		if j, ok := test.(Judged); ok {
			fmt.Fprintf(w, "to be found\tclicks; the truth has an AUC of %.4f on the held-out samples: nobody can do better but by chance\n", j.BestAUC())
		}
	case Sparse:
		s := train.(*sparse)
		fmt.Fprintf(w, "a sample\t%d features, of which %.4g on average and %d at most are listed, the others being 0\n", f.Shape[0], float64(len(s.columns))/float64(s.Len()), f.Entries)
		if s.divided > 0 {
			fmt.Fprintf(w, "scale\t%d of them go beyond 1 or -1, and are divided by their largest magnitude\n", s.divided)
		}
		s.describe(w, "")
	default:
		if t, ok := train.(*table); ok {
			fmt.Fprintf(w, "a sample\t%d numbers, made of %d columns\n", f.Shape[0], len(t.plan.columns))
			t.plan.describe(w)
			t.describe(w, fmt.Sprintf("%q, ", t.plan.label))
			break
		}
		fmt.Fprintf(w, "a sample\ta picture of %d by %d, %d channels\nto be found\tone of %d classes\n", f.Shape[1], f.Shape[2], f.Shape[0], f.Classes)
	}
	fmt.Fprintf(w, "identity\t%v, the same on every node\n", Identity(train, test))
	return w.Flush()
}

// describe says what became of each column.
func (p *plan) describe(w io.Writer) {
	for _, c := range p.columns {
		what := fmt.Sprintf("a number, mean %.6g, standard deviation %.6g", c.scale.mean, c.scale.deviation)
		if c.kind == categorical {
			what = fmt.Sprintf("one of %d: %s", len(c.categories), some(c.categories, func(i int) string { return shown(c.categories[i]) }))
		}
		if c.missing > 0 {
			what += fmt.Sprintf("; %d missing", c.missing)
		}
		fmt.Fprintf(w, "column %q\t%s\n", c.name, what)
	}
	for _, u := range p.unused {
		fmt.Fprintf(w, "column %q\tnot used: %s\n", u.name, u.why)
	}
}

// describe says what is to be found, and how often it is to be trained on.
func (a answers) describe(w io.Writer, column string) {
	if a.labels == nil {
		fmt.Fprintf(w, "to be found\t%sa number, mean %.6g, standard deviation %.6g\n", column, a.scale.mean, a.scale.deviation)
		return
	}
	counts := make([]int, len(a.names))
	for _, k := range a.labels {
		counts[k]++
	}
	each := some(a.names, func(k int) string { return fmt.Sprintf("%s (%d)", shown(a.names[k]), counts[k]) })
	fmt.Fprintf(w, "to be found\t%sone of %d classes: %s\n", column, len(a.names), each)
}

// some shows the first of many names, each as text says.
func some(names []string, text func(i int) string) string {
	const most = 10
	var b strings.Builder
	for i := range names {
		switch {
		case i == most:
			fmt.Fprintf(&b, " and %d more", len(names)-most)
			return b.String()
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(text(i))
	}
	return b.String()
}

// shown is a name from a file, in quotes where it would be misread without.
func shown(name string) string {
	if quoted := strconv.Quote(name); strings.ContainsAny(name, ",;()\"") || len(quoted) != len(name)+2 {
		return quoted
	}
	return name
}
