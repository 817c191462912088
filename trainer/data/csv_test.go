package data

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// tableRows prints a table: label or target, then the features.
func tableRows(d Dataset) string {
	var b strings.Builder
	in := NewBatch(d, 1)
	for i := range d.Len() {
		for k := range in.X {
			in.X[k] = 99 // what an earlier sample left
		}
		d.Sample(i, in)
		if in.Labels != nil {
			fmt.Fprint(&b, in.Labels[0], ":")
		} else {
			fmt.Fprintf(&b, "%.3g:", in.Targets[0])
		}
		for _, v := range in.X {
			fmt.Fprintf(&b, " %.3g", v)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// csvSource names a file of rows, and one that is held out.
func csvSource(t *testing.T, content, test string, table Table) Source {
	t.Helper()
	s := rowsSource(t, CSV, content, test)
	s.Table = table
	return s
}

func byLabel(name string) Table { return Table{Label: name} }

func TestCSV(t *testing.T) {
	for _, c := range []struct {
		name                string
		train, test         string
		table               Table
		task                string
		wantTrain, wantTest string
		classes             int
	}{
		{
			"numbers, standardised by the rows to train on", "x,y,class\n1,10,b\n3,20,a\n", "x,y,class\n5,30,b\n", byLabel("class"), "",
			"1: -1 -1\n0: 1 1\n", "1: 3 3\n", 2,
		},
		{
			"as Adult: no header, blanks after commas, ?, an empty line at the end",
			"39, State-gov, 77516, <=50K\n50, Private, 83311, >50K\n?, ?, 83311, >50K\n39, Private, 77516, <=50K\n\n", "40, Never-worked, ?, >50K\n", byLabel("4"), "",
			"0: -0.707 0 0 1 -1\n1: 1.41 0 1 0 1\n1: 0 1 0 0 1\n0: -0.707 0 1 0 -1\n", "1: -0.514 1 0 0 0\n", 2,
		},
		{
			"as Titanic: quotes, commas and quotes within them, CRLF, a mark, no line end at the last",
			"\xef\xbb\xbfName,Age,\"Fare\",Survived\r\n\"Cumings, Mrs. \"\"Florence\"\"\",38,1,1\r\n\"x\",,2,0\r\nx, 40 ,3,1", "Name,Age,Fare,Survived\r\nz,39,2,0", byLabel("Survived"), "",
			"1: 0 1 0 -1 -1.22\n0: 0 0 1 0 0\n1: 0 0 1 1 1.22\n", "0: 1 0 0 0 0\n", 2,
		},
		{
			"semicolons, a delimiter at the end of rows, a column without a name",
			"a;b;;label\n1;x;7;yes;\n2;y;8;no;\n", "a;b;;label\n2;y;8;no\n", byLabel("label"), "",
			"1: -1 0 1 0 -1\n0: 1 0 0 1 1\n", "0: 1 0 0 1 1\n", 2,
		},
		{
			"tabs, and empty fields between them", "a\tb\tlabel\n1\t\t0\n\t5\t1\n3\t9\t1\n", "a\tb\tlabel\n\t\t0\n", byLabel("label"), "",
			"0: -1 0\n1: 0 -1\n1: 1 1\n", "0: 0 0\n", 2,
		},
		{
			"numbers that are found", "size,price\n1,100.5\n2,200.5\n3,300.5\n", "size,price\n2,250.5\n", byLabel("price"), "",
			"-1.22: -1.22\n0: 0\n1.22: 1.22\n", "0.612: 0\n", 0,
		},
		{
			"whole numbers that are found as the job says", "size,rooms\n1,1\n2,3\n", "size,rooms\n1,2\n", byLabel("rooms"), Regression,
			"-1: -1\n1: 1\n", "0: -1\n", 0,
		},
		{
			"classes in the order of their numbers", "x,class\n1,10\n2,9\n3,9.0\n4,-1\n", "x,class\n1,10.0\n", byLabel("class"), "",
			"2: -1.34\n1: -0.447\n1: 0.447\n0: 1.34\n", "2: -1.34\n", 3,
		},
		{
			"columns as the job says", "id,code,x,class\n1,7,5,a\n2,8,1,b\n3,7,?,b\n4,7,1,b\n", "id,code,x,class\n1,9,0,a\n", Table{Label: "class", Categorical: []string{"code"}, Numeric: []string{"x"}, Ignore: []string{"1"}, IndicateMissing: true}, "",
			"0: 0 1 0 1.41 0\n1: 0 0 1 -0.707 0\n1: 0 1 0 0 1\n1: 0 1 0 -0.707 0\n", "0: 1 0 0 -1.24 0\n", 2,
		},
		{
			"what stands for missing as the job says", "x,class\n1,a\n-9,b\n3,b\nnone,b\n,b\n", "x,class\n-9,a\n", Table{Label: "class", Missing: []string{"-9", "none"}}, "",
			"0: -1\n1: 0\n1: 1\n1: 0\n1: 0\n", "0: 0\n", 2,
		},
		{
			"the rarer categories together", "c,x,class\nu,1,a\nv,2,b\nv,1,a\nw,2,b\nw,1,a\n", "c,x,class\nu,1,a\n", Table{Label: "class", MaxCategories: 2}, "",
			"0: 1 0 0 -0.816\n1: 0 1 0 1.22\n0: 0 1 0 -0.816\n1: 0 0 1 1.22\n0: 0 0 1 -0.816\n", "0: 1 0 0 -0.816\n", 2,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := csvSource(t, c.train, c.test, c.table)
			s.Task = c.task
			train, test := open(t, s)
			if got := tableRows(train); got != c.wantTrain {
				t.Errorf("train:\n%swant\n%s%v", got, c.wantTrain, train.(*table).plan)
			}
			if got := tableRows(test); got != c.wantTest {
				t.Errorf("test:\n%swant\n%s", got, c.wantTest)
			}
			if f := train.Form(); f.Classes != c.classes || f.Kind != Dense || fmt.Sprint(f) != fmt.Sprint(test.Form()) {
				t.Errorf("%+v and %+v, want %d classes", f, test.Form(), c.classes)
			}
		})
	}
}

// What columns are taken for when the job names the label alone.
func TestCSVColumnsAsTheyLook(t *testing.T) {
	var content strings.Builder
	content.WriteString("id,name,constant,grade,doors,size,mostly,same,class\n")
	for i := range 60 {
		doors, mostly := fmt.Sprint(2+i%3), "x"
		if i == 30 {
			doors = "five" // one text among few different numbers: categories
		}
		if i%10 == 0 {
			mostly = ""
		}
		fmt.Fprintf(&content, "%d,name %d,7,%c,%s,%d.5,%s,s,%d\n", i+1, i, 'A'+i%4, doors, i*i, mostly, i%2)
	}
	s := csvSource(t, content.String(), "id,name,constant,grade,doors,size,mostly,same,class\n1,n,7,A,2,1.5,x,s,0\n", byLabel("class"))
	train, _ := open(t, s)
	plan := train.(*table).plan.String()
	for _, want := range []string{
		"grade: one of [\"A\" \"B\" \"C\" \"D\"], or the rest\n", "doors: one of [\"2\" \"3\" \"4\" \"five\"], or the rest\n", "size: a number, less 1170.6", "mostly: one of [\"x\"], or the rest\n",
		"not used: id (numbers of the rows)\n", "not used: name (a text of its own in most rows)\n", "not used: constant (always the same number)\n", "not used: same (always the same text)\n",
		"to be found: class, one of [\"0\" \"1\"]\n",
	} {
		if !strings.Contains(plan, want) {
			t.Errorf("no %q in\n%s", want, plan)
		}
	}
}

// Means, deviations and categories are those of the rows that are trained on.
func TestCSVHeldOutRowsAreNotLearnt(t *testing.T) {
	var content strings.Builder
	content.WriteString("x,c,class\n")
	split := split{share: defaultHeldOut}
	for i := range 100 {
		if split.holdsOut(i) {
			fmt.Fprintf(&content, "1000,rare%d,%d\n", i, i%2)
		} else {
			fmt.Fprintf(&content, "%d,common,%d\n", i%2, i%2)
		}
	}
	s := csvSource(t, content.String(), "", Table{Label: "class", Categorical: []string{"c"}})
	train, test := open(t, s)
	plan := train.(*table).plan.String()
	if !strings.Contains(plan, "x: a number, less 0.") || !strings.Contains(plan, `c: one of ["common"], or the rest`) {
		t.Error(plan)
	}
	in := NewBatch(test, 1)
	test.Sample(0, in)
	if in.X[0] < 100 || in.X[1] != 1 || in.X[2] != 0 {
		t.Errorf("the first held-out row is %v", in.X)
	}
}

func TestCSVIdentity(t *testing.T) {
	const content, test = "x,c,y\n1,u,0\n2,v,1\n3,u,1\n", "x,c,y\n1,v,0\n"
	base := Identity(open(t, csvSource(t, content, test, byLabel("y"))))
	if Identity(open(t, csvSource(t, strings.ReplaceAll(content, ",", " ; "), strings.ReplaceAll(test, ",", ";"), byLabel("y")))) != base {
		t.Error("the same rows written otherwise have another digest")
	}
	for name, other := range map[string]Source{
		"value":             csvSource(t, strings.Replace(content, "2,v", "2.5,v", 1), test, byLabel("y")),
		"missing":           csvSource(t, strings.Replace(content, "2,v", ",v", 1), test, byLabel("y")),
		"category":          csvSource(t, strings.Replace(content, "2,v", "2,u", 1), strings.Replace(test, "v", "u", 1), byLabel("y")),
		"name of category":  csvSource(t, strings.ReplaceAll(content, "v", "w"), strings.ReplaceAll(test, "v", "w"), byLabel("y")),
		"name of column":    csvSource(t, strings.Replace(content, "x", "z", 1), strings.Replace(test, "x", "z", 1), byLabel("y")),
		"label":             csvSource(t, strings.Replace(content, "u,1", "u,0", 1), test, byLabel("y")),
		"other units":       csvSource(t, "x,c,y\n10,u,0\n20,v,1\n30,u,1\n", "x,c,y\n10,v,0\n", byLabel("y")),
		"held out":          csvSource(t, content, strings.Replace(test, "1", "2", 1), byLabel("y")),
		"numbers, no class": {Source: CSV, Path: csvSource(t, content, test, byLabel("y")).Path, TestPath: csvSource(t, content, test, byLabel("y")).TestPath, Task: Regression, Table: byLabel("y")},
	} {
		if Identity(open(t, other)) == base {
			t.Errorf("%s: the digest is the same", name)
		}
	}
}

func TestCSVFaults(t *testing.T) {
	yes := true
	const few = "x,y\n1,a\n2,b\n"
	of := func(content string) Source { return csvSource(t, content, few, byLabel("y")) }
	column := func(n int, odd string) string {
		var b strings.Builder
		b.WriteString("x,y\n")
		for i := range n {
			fmt.Fprintf(&b, "%d,%c\n", i*i, 'a'+i%2)
		}
		return b.String() + odd
	}
	prices := strings.NewReplacer("a", "1", "b", "2.5").Replace(column(30, "7,z\n"))
	alphabet := &strings.Builder{}
	for i := range 60 {
		fmt.Fprintf(alphabet, "%d,word%d\n", i*i, i%50)
	}
	for name, c := range map[string]struct {
		s    Source
		line int
		want string // after the path and line; "data." if it begins with the field
	}{
		"empty":              {of(""), 0, "expected rows of fields, found none: name a file that holds some"},
		"header only":        {of("x,y\n"), 0, "expected rows of fields, found none: name a file that holds some"},
		"one column":         {of("x y\n1 2\n"), 1, `expected a row of several fields, found one field, "x y": set data.delimiter, which was taken for ',', or data.source, if this is no table`},
		"too few fields":     {of("x,z,y\n1,2,a\n\n1,a\n"), 4, `expected 3 fields, as in line 1, found 2: correct the line; a field that contains ',' must be in quotes`},
		"too many fields":    {of("x,y\n1,a\n1,2,b\n"), 3, `expected 2 fields, as in line 1, found 3: correct the line; a field that contains ',' must be in quotes`},
		"a bare quote":       {of("x,y\n5\" nails,a\n"), 2, `expected quotes only around whole fields, found one at character 2, within a field: put the field in quotes`},
		"an open quote":      {of("x,y\n1,a\n\"2,b\n3,a\n"), 3, `expected quotes around whole fields, found a field that begins with one and goes on after the next, or never ends: close the quotes`},
		"no label":           {of("x,y\n1,a\n2,\n"), 3, `expected a label in column "y", found none, but "": remove the line, or fill in its label`},
		"a label that is ?":  {of("x,y\n1,?\n"), 2, `expected a label in column "y", found none, but "?"`},
		"no such label":      {csvSource(t, few, few, byLabel("z")), 0, `data.label: PATH: expected a column "z", found 2 columns: x, y: name one of them`},
		"no such column":     {csvSource(t, few, few, Table{Label: "y", Ignore: []string{"3"}}), 0, `data.ignore: PATH: expected a column "3", found 2 columns: x, y: name one of them`},
		"two such columns":   {csvSource(t, "x,x,y\n1,2,a\n", few, Table{Label: "y", Ignore: []string{"x"}}), 0, `data.ignore: PATH: expected one column "x", found several: name it by its number`},
		"column twice":       {csvSource(t, few, few, Table{Label: "y", Header: &yes, Numeric: []string{"x"}, Ignore: []string{"1"}}), 0, `data.ignore: PATH: expected a column that no other field names, found "1", which is the column "x" of data.numeric: remove one of them`},
		"a text in numbers":  {of(column(30, "x0,a\n")), 32, `expected a number of 32 bits in column "x", as in 30 of its 31 rows, found "x0": correct it, add it to data.missing, or name the column in data.categorical or data.ignore`},
		"an infinite number": {of(column(30, "-inf,a\n")), 32, `expected a number of 32 bits in column "x", as in 30 of its 31 rows, found "-inf"`},
		"declared numeric":   {csvSource(t, "x,y\n1,a\nu,b\n", few, Table{Label: "y", Numeric: []string{"x"}}), 3, `expected a number of 32 bits in column "x" (data.numeric), found "u": correct it, or add it to data.missing`},
		"Latin 1":            {of("x,y\ncaf\xe9,a\n"), 2, `expected text in UTF-8, found "caf\xe9": convert the file, for example with iconv -f LATIN1 -t UTF-8`},
		"Latin 1 later":      {of("x,y\ntea,a\ncaf\xe9,b\n"), 3, `expected text in UTF-8, found "caf\xe9"`},
		"UTF-16":             {of("\xfe\xff\x00x\x00,\x00y"), 1, "expected text in UTF-8, found text in UTF-16"},
		"gzip truncated":     {of(string(gzipped([]byte(few))[:22])), 2, "expected whole compressed data, found the end in the middle of it"},
		"one class":          {of("x,y\n1,a\n2,a\n"), 0, `expected labels of at least 2 classes, found only a: name files`},
		"labels of one row":  {of("x,y\n" + alphabet.String()), 0, "expected labels that come again and again, as classes do, found 50 different ones in 60 rows"},
		"nothing to learn":   {of("x,y\n1,a\n1,b\n"), 0, "expected at least one column to learn from, found none: x (always the same number): name columns"},
		"a text to be found": {Source{Source: CSV, Path: of(prices).Path, TestPath: of(prices).Path, Task: Regression, Table: byLabel("y")}, 32, `expected a number of 32 bits in column "y", found "z": correct it, or set data.task to classification`},
		"other header":       {csvSource(t, few, "x,z\n1,a\n", byLabel("y")), 1, "data.test_path: TEST, line 1: expected the same header as in PATH: x, y, found x, z: name files that have the same columns"},
		"other columns":      {csvSource(t, few, "x,z,y\n1,1,a\n", byLabel("y")), 1, "data.test_path: TEST, line 1: expected 2 fields, as in PATH, found 3: name files that have the same columns"},
		"other labels":       {csvSource(t, few, "x,y\n1,a\n1,a.\n", byLabel("y")), 3, `data.test_path: TEST, line 3: expected a label in column "y" that occurs in PATH, found "a.": name files that belong together, or write their labels alike`},
		"a text held out":    {csvSource(t, few, "x,y\n1,a\nu,a\n", byLabel("y")), 3, `data.test_path: TEST, line 3: expected a number of 32 bits in column "x", as in PATH, found "u": correct it`},
	} {
		_, _, err := Open(t.Context(), c.s, nil)
		want := "data.path: " + c.s.Path
		if c.line > 0 {
			want += fmt.Sprintf(", line %d", c.line)
		}
		want += ": " + c.want
		if strings.HasPrefix(c.want, "data.") {
			want = c.want
		}
		want = strings.NewReplacer("PATH", c.s.Path, "TEST", c.s.TestPath).Replace(want)
		var of *FileError
		if err == nil || !strings.HasPrefix(err.Error(), want) || !errors.As(err, &of) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s:\n got %v\nwant %s", name, err, want)
		}
	}
}

func TestCSVSeveralFilesHaveEachAHeader(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.csv"), []byte("x,y\n1,a\n2,b\n"))
	write(t, filepath.Join(dir, "b.csv.gz"), gzipped([]byte("x,y\n3,a\n")))
	s := csvSource(t, "x,y\n9,a\n", "x,y\n2,b\n", byLabel("y"))
	s.Path = filepath.Join(dir, "*.csv*")
	train, _ := open(t, s)
	if got := tableRows(train); got != "0: -1.22\n1: 0\n0: 1.22\n" {
		t.Error(got)
	}
}

func FuzzCSV(f *testing.F) {
	f.Add([]byte("x,c,y\n1,u,0\n,v,1\n3,\"u,\"\"\",1\n"), "y", "")
	f.Add([]byte("39, State-gov, <=50K\r\n50, ?, >50K"), "3", Classification)
	f.Add([]byte("\xef\xbb\xbfa;b\n1.5;2\n2;3\n"), "b", Regression)
	f.Add([]byte("a\tb\n\t1\n"), "1", "")
	f.Fuzz(func(t *testing.T, content []byte, label, task string) {
		s := Source{Source: CSV, Path: "rows", TestPath: "rows", Task: task, Table: byLabel(label)}
		if len(s.Validate()) > 0 {
			return
		}
		r := &tableReader{source: s}
		read := func(do rowFunc) error {
			in, err := newFile("data.path", "rows", bytes.NewReader(content), 0)
			if err != nil {
				return err
			}
			in.Closer = io.NopCloser(nil)
			return r.readFile(in, do)
		}
		if read(r.look) != nil {
			return
		}
		p, err := r.plan()
		if err != nil {
			return
		}
		d := newTable(p)
		err = read(func(f *records, line, _ int, fields []string) error { return d.add(f, line, fields, s) })
		if err != nil {
			t.Fatalf("the second reading: %v", err)
		}
		d.seal()
		in := NewBatch(d, 1)
		for i := range d.Len() {
			d.Sample(i, in)
			for k, x := range in.X {
				if !fits(float64(x)) {
					t.Fatalf("row %d: feature %d is %v", i, k, x)
				}
			}
			if in.Labels != nil && (in.Labels[0] < 0 || int(in.Labels[0]) >= d.Form().Classes) || in.Targets != nil && !fits(float64(in.Targets[0])) {
				t.Fatalf("row %d: %v %v", i, in.Labels, in.Targets)
			}
		}
	})
}
