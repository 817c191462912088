package data

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// rowsSource writes a file of rows, and one that is held out unless it is empty.
func rowsSource(t *testing.T, source, content, test string) Source {
	t.Helper()
	dir := t.TempDir()
	s := Source{Source: source, Path: filepath.Join(dir, "rows")}
	write(t, s.Path, []byte(content))
	if test != "" {
		s.TestPath = filepath.Join(dir, "test")
		write(t, s.TestPath, []byte(test))
	}
	return s
}

// sparseRows prints a sparse data set: label or target, then column:value.
func sparseRows(d Dataset) string {
	var b strings.Builder
	room := NewBatch(d, 1)
	for i := range d.Len() {
		d.Sample(i, room)
		in := room.first(1)
		if in.Labels != nil {
			fmt.Fprint(&b, in.Labels[0])
		} else {
			fmt.Fprint(&b, in.Targets[0])
		}
		for k, column := range in.Columns {
			fmt.Fprintf(&b, " %d:%v", column, in.Values[k])
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestLIBSVM(t *testing.T) {
	for _, c := range []struct {
		name, train, test   string
		wantTrain, wantTest string
		features, classes   int
		entries             int
	}{
		{"as a1a", "-1 3:1 11:1 14:1 \n+1 5:1 7:1 \n-1 14:1\n", "+1 2:1 16:1\n",
			"0 2:1 10:1 13:1\n1 4:1 6:1\n0 13:1\n", "1 1:1 15:1\n", 16, 2, 3},
		{"as covtype: classes from 1, decimals, no line end at the last", "7 1:0.368684 2:0.141667 3:-4.5e-2\n2 1:.5 2:2.\n5 3:1e3", "2 1:1\n",
			"2 0:0.368684 1:0.0708335 2:-4.5e-05\n0 0:0.5 1:1\n1 2:1\n", "0 0:1\n", 3, 3, 3},
		{"blanks, comments, CRLF, a mark, empty rows", "\xef\xbb\xbf# from a tool\r\n\r\n1\t1:1   3:2 # first\r\n 0 qid:4 2:1\r\n1\r\n   \r\n", "0 1:1\r\n",
			"1 0:1 2:1\n0 1:1\n1\n", "0 0:1\n", 3, 2, 2},
		{"an index 0, in the held-out file only", "1 1:1 2:2\n2 3:3\n", "1 0:5\n",
			"0 1:1 2:1\n1 3:1\n", "0 0:5\n", 4, 2, 2},
		{"labels of equal value", "1 1:1\n+1.0 1:2\n1e0 1:3\n-0 1:4\n", "0 1:5\n",
			"1 0:0.25\n1 0:0.5\n1 0:0.75\n0 0:1\n", "0 0:1.25\n", 1, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			train, test := open(t, rowsSource(t, LIBSVM, c.train, c.test))
			if got := sparseRows(train); got != c.wantTrain {
				t.Errorf("train:\n%swant\n%s", got, c.wantTrain)
			}
			if got := sparseRows(test); got != c.wantTest {
				t.Errorf("test:\n%swant\n%s", got, c.wantTest)
			}
			want := Form{Kind: Sparse, Shape: []int{c.features}, Classes: c.classes, Entries: c.entries}
			if a, b := train.Form(), test.Form(); fmt.Sprint(a) != fmt.Sprint(want) || fmt.Sprint(b) != fmt.Sprint(want) {
				t.Errorf("%+v and %+v, want %+v", a, b, want)
			}
		})
	}
}

func TestLIBSVMFeaturesGiven(t *testing.T) {
	s := rowsSource(t, LIBSVM, "1 1:1\n2 7:1\n", "1 3:1\n")
	s.Features = 9
	train, _ := open(t, s)
	if got := train.Form().Shape[0]; got != 9 {
		t.Errorf("%d features", got)
	}
}

func TestLIBSVMRegression(t *testing.T) {
	s := rowsSource(t, LIBSVM, "1.5 1:1\n2.5 2:1\n3.5 3:1\n2.5 1:1\n", "4.5 1:1\n")
	s.Task = Regression
	train, test := open(t, s)
	// Mean 2.5, variance (1+0+1+0)/4.
	if got, want := sparseRows(train)+sparseRows(test), "-1.4142135 0:1\n0 1:1\n1.4142135 2:1\n0 0:1\n2.828427 0:1\n"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if f := train.Form(); !f.Regression() || f.Classes != 0 {
		t.Errorf("%+v", f)
	}
}

// The held-out rows are a function of the seed and the number of the row; every row is in one
// of the parts, in its order.
func TestRowsAreHeldOutByHash(t *testing.T) {
	var content strings.Builder
	const n = 2000
	for i := range n {
		fmt.Fprintf(&content, "%d %d:1\n", i%2, i+1)
	}
	s := rowsSource(t, LIBSVM, content.String(), "")
	train, test := open(t, s)
	if got := test.Len(); got < n/5-80 || got > n/5+80 || train.Len()+got != n {
		t.Errorf("%d and %d rows", train.Len(), got)
	}
	next := map[string]bool{}
	for _, d := range []Dataset{train, test} {
		last, rows := -1, strings.Split(strings.TrimSpace(sparseRows(d)), "\n")
		for _, row := range rows {
			var label, value int
			if _, err := fmt.Sscanf(row, "%d %d:1", &label, &value); err != nil || label != value%2 || value <= last || next[row] {
				t.Fatalf("row %q after %d: %v", row, last, err)
			}
			last, next[row] = value, true
		}
	}
	again, _ := open(t, s)
	if again.Digest() != train.Digest() {
		t.Error("the same file is split differently")
	}
	s.Seed = 5
	other, _ := open(t, s)
	if sparseRows(other) == sparseRows(train) {
		t.Error("another seed holds the same rows out")
	}
	s.HeldOut = 0.5
	if _, half := open(t, s); half.Len() < n/2-110 || half.Len() > n/2+110 {
		t.Errorf("%d of %d rows for a half", half.Len(), n)
	}
}

// Several files under one pattern are one, in the order of their names; compressed or not.
func TestRowsOfSeveralFiles(t *testing.T) {
	parts := []string{"1 1:1\n0 2:2\n", "1 3:3\n", "0 4:4\n1 1:5"}
	whole := rowsSource(t, LIBSVM, parts[0]+parts[1]+parts[2], "1 2:1\n")
	want, _ := open(t, whole)
	several := whole
	dir := t.TempDir()
	several.Path = filepath.Join(dir, "part-*")
	write(t, filepath.Join(dir, "part-2"), []byte(parts[2]))
	write(t, filepath.Join(dir, "part-0"), []byte(parts[0]))
	write(t, filepath.Join(dir, "part-1"), gzipped([]byte(parts[1])))
	got, _ := open(t, several)
	if sparseRows(got) != sparseRows(want) || got.Digest() != want.Digest() {
		t.Errorf("got\n%swant\n%s", sparseRows(got), sparseRows(want))
	}
}

func TestLIBSVMIdentity(t *testing.T) {
	const content, test = "1 1:1 2:3\n0 2:2\n2 1:1\n", "1 3:1\n"
	base := Identity(open(t, rowsSource(t, LIBSVM, content, test)))
	if Identity(open(t, rowsSource(t, LIBSVM, "# the same\n+1 1:1.0 2:3\n0 2:2e0\n2 1:1\n", test))) != base {
		t.Error("the same rows written otherwise have another digest")
	}
	for name, other := range map[string]string{
		"value":                     "1 1:1 2:3\n0 2:2.5\n2 1:1\n",
		"column":                    "1 1:1 2:3\n0 1:2\n2 1:1\n",
		"class":                     "1 1:1 2:3\n0 2:2\n1 1:1\n2 1:1\n",
		"names of classes":          "1 1:1 2:3\n0 2:2\n3 1:1\n",
		"order":                     "0 2:2\n1 1:1 2:3\n2 1:1\n",
		"where rows end":            "1 1:1\n0 2:3\n2 1:1\n",
		"a feature that is never 0": "1 1:1 2:3\n0 2:2\n2 1:1 4:0\n",
	} {
		if Identity(open(t, rowsSource(t, LIBSVM, other, test))) == base {
			t.Errorf("%s: the digest is the same", name)
		}
	}
}

func TestLIBSVMFaults(t *testing.T) {
	folder := rowsSource(t, LIBSVM, "1 1:1\n", "")
	folder.Path = filepath.Dir(folder.Path)
	long := "1 1:1\n" + strings.Repeat("0", 70<<10) + " 2:x\n"
	few := "1 1:1\n0 1:1\n"
	manyLabels := &strings.Builder{}
	for i := range 50 {
		fmt.Fprintf(manyLabels, "%d 1:1\n", 1900+i)
	}
	given := rowsSource(t, LIBSVM, "1 1:1\n0 9:1\n", few)
	given.Features = 8
	zero := rowsSource(t, LIBSVM, "1 1:1\n0 8:1\n", "1 0:1\n")
	zero.Features = 8
	missing := rowsSource(t, LIBSVM, few, few)
	missing.TestPath += "-*"
	of := func(train string) Source { return rowsSource(t, LIBSVM, train, few) }
	for name, c := range map[string]struct {
		s    Source
		line int
		want string // after the path and line
	}{
		"empty":               {of(""), 0, "expected lines of a label and index:value pairs, found an empty file: name a file that holds some"},
		"comments only":       {of("# nothing\n\n"), 0, "expected lines of a label and index:value pairs, found an empty file: name a file that holds some"},
		"a folder":            {folder, 0, "expected a file, found a directory: name the file in it, or several with a pattern such as " + filepath.Join(folder.Path, "*")},
		"no label":            {of("1 1:1\n2:3 4:5\n"), 2, `expected a label before the pairs, found none, but "2:3": begin each line with its label, or name a file that has labels`},
		"several labels":      {of("1 1:1\n1,2 4:5\n"), 2, `expected one label, a number, found "1,2": name a file with one label a line, or, for fields parted by commas, set data.source to csv`},
		"a text for label":    {of("spam 1:1\n"), 1, `expected a label, a number such as 1 or -1, found "spam": name a file in the format of LIBSVM: label index:value index:value`},
		"nan for label":       {of("nan 1:1\n"), 1, `expected a label, a number such as 1 or -1, found "nan": name a file in the format of LIBSVM: label index:value index:value`},
		"a fraction":          {of("1 1:1\n1.5 1:1\n"), 2, `expected a label that is a whole number, for a class, found "1.5": set data.task to regression if such numbers are to be found`},
		"no pair":             {of("1 1:1 7\n"), 1, `expected pairs index:value after the label, found "7": name a file in the format of LIBSVM: label index:value index:value`},
		"a text for index":    {of("1 a:1\n"), 1, `expected an index from 0 to 2147483646 before the colon, found "a:1": correct the line`},
		"a huge index":        {of("1 99999999999999999999:1\n"), 1, `expected an index from 0 to 2147483646 before the colon, found "99999999999999999999:1": correct the line`},
		"no index":            {of("1 :1\n"), 1, `expected an index from 0 to 2147483646 before the colon, found ":1": correct the line`},
		"no value":            {of("1 1:\n"), 1, `expected a number after the colon, found "1:": correct the line`},
		"not a value":         {of("1 1:1:1\n"), 1, `expected a number after the colon, found "1:1:1": correct the line`},
		"nan":                 {of("1 1:1\n0 1:NaN\n"), 2, `expected finite numbers of 32 bits, found "1:NaN": correct or remove the line`},
		"beyond float32":      {of("1 1:4e38\n"), 1, `expected finite numbers of 32 bits, found "1:4e38": correct or remove the line`},
		"order":               {of("1 1:1\n\n0 7:1 3:1\n"), 3, "expected indices that ascend, found index 3 after 7: sort the pairs of the line, each index once"},
		"twice":               {of("0 3:1 3:1\n"), 1, "expected indices that ascend, found index 3 after 3: sort the pairs of the line, each index once"},
		"one class":           {rowsSource(t, LIBSVM, "3 1:1\n3 1:1\n", "3 1:1\n"), 0, "expected labels of at least 2 classes, found only 3: name files that have something to learn"},
		"years":               {of(manyLabels.String() + few), 0, "expected labels that come again and again, as classes do, found 52 different ones in 54 rows: take another column for the label, or, if numbers are to be found, set data.task to regression"},
		"other labels":        {rowsSource(t, LIBSVM, few, "1 1:1\n2 1:1\n"), 2, `expected a label that occurs in ROWS, found "2": name files that belong together`},
		"too few features":    {given, 2, `expected indices up to 8 (data.features), found "9:1": raise data.features`},
		"from 0":              {zero, 2, "expected indices up to 7, as they begin with 0 and data.features is 8, found 8: raise data.features"},
		"nothing to train on": {rowsSource(t, LIBSVM, "1 1:1\n", ""), 0, "expected rows to train on and rows to hold out, found 0 and 1: name a file that has more rows, change data.held_out, or name one that is held out in data.test_path"},
		"no match":            {missing, 0, "expected a readable file, found no file that matches the pattern: check the path"},
		"UTF-16":              {of("\xff\xfe1\x00"), 1, "expected text in UTF-8, found text in UTF-16: convert the file, for example with iconv -f UTF-16 -t UTF-8"},
		"a long line":         {of(long), 2, `expected a number after the colon, found "2:x": correct the line`},
		"xz":                  {of("\xfd7zXZ\x00rest"), 0, "expected a file that is plain, gzip or bzip2, found one in the format xz: unpack it with xz -d"},
		"bzip2 damaged":       {of("BZh91AY&SYrest of it"), 1, "expected whole compressed data, found"},
		"gzip truncated":      {of(string(gzipped([]byte(few))[:20])), 3, "expected whole compressed data, found the end in the middle of it: the file is truncated; fetch the file again"},
	} {
		_, _, err := Open(t.Context(), c.s, nil)
		field, path := "data.path", c.s.Path
		if name == "other labels" || name == "no match" {
			field, path = "data.test_path", c.s.TestPath
		}
		want := field + ": " + path
		if c.line > 0 {
			want += fmt.Sprintf(", line %d", c.line)
		}
		want += ": " + strings.Replace(c.want, "ROWS", c.s.Path, 1)
		var of *FileError
		if err == nil || !strings.HasPrefix(err.Error(), want) || !errors.As(err, &of) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s:\n got %v\nwant %s", name, err, want)
		}
	}
}

func TestNumber(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "-0": "-0", "+1": "1", "12.50": "12.5", ".5": "0.5", "7.": "7", "0.1": "0.1", "123456789012345": "1.23456789012345e+14",
		"0.123456789012345": "0.123456789012345", "1234567890123456789012": "1.2345678901234568e+21", "1e5": "100000", "-2.5E-3": "-0.0025",
		"NaN": "NaN", "-inf": "-Inf", "": "", "-": "", ".": "", "1.2.3": "", "1,5": "", "1 2": "", "abc": "", "1e": "", "1e999": "", "--1": "", "٣": "",
	} {
		x, ok := number(text)
		y, okToo := number([]byte(text))
		got := ""
		if ok {
			got = fmt.Sprint(x)
		}
		if got != want || ok != okToo || ok && fmt.Sprint(y) != got {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func FuzzLIBSVM(f *testing.F) {
	f.Add([]byte("-1 3:1 11:1\n+1 5:.5\n"), false)
	f.Add([]byte("1.5 1:1 # c\n\n2 qid:1 0:1e3"), true)
	f.Add([]byte("\xef\xbb\xbf0 1:1\r\n1\r\n"), false)
	f.Add(gzipped([]byte("1 1:1\n0 2:1\n")), false)
	f.Add([]byte("BZh91AY&SY"), true)
	f.Fuzz(func(t *testing.T, content []byte, regression bool) {
		r := &libsvm{}
		if !regression {
			r.classes = map[float64]int32{}
		}
		in, err := newFile("data.path", "rows", bytes.NewReader(content), 0)
		if err != nil {
			return
		}
		rows := newLIBSVMRows()
		if r.readFile(in, func(int) *libsvmRows { return rows }) != nil {
			return
		}
		a, _, err := r.finish(rows, newLIBSVMRows())
		if err != nil {
			return
		}
		room := NewBatch(a, 1)
		for i := range a.Len() {
			a.Sample(i, room)
			one, last := room.first(1), int32(-1)
			for k, c := range one.Columns {
				if c <= last || int(c) >= a.Form().Width() || !fits(float64(one.Values[k])) {
					t.Fatalf("row %d: columns %v of %d, values %v", i, one.Columns, a.Form().Width(), one.Values)
				}
				last = c
			}
			if !regression && (one.Labels[0] < 0 || int(one.Labels[0]) >= a.Form().Classes) {
				t.Fatalf("row %d: label %d", i, one.Labels[0])
			}
		}
	})
}
