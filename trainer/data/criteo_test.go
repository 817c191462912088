package data

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func openRows(t testing.TB, text string) (train, test Dataset, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clicks.txt")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return Open(context.Background(), Source{Source: Criteo, Path: path}, nil)
}

func drawnLines(n int) string {
	var b []byte
	for i := range n {
		b = CTRLine(b, 1, i)
	}
	return string(b)
}

// What is drawn is the same through a file, but for the scale of its counts.
func TestCriteoFile(t *testing.T) {
	const n = 300
	train, test, err := openRows(t, drawnLines(n))
	if err != nil {
		t.Fatal(err)
	}
	if train.Len()+test.Len() != n || test.Len() < n/10 {
		t.Fatalf("%d and %d samples", train.Len(), test.Len())
	}
	drawn, split := newCTR(1, trainStream, n), splitOf(Source{})
	a, b := NewBatch(drawn, 1), NewBatch(train, 1)
	at := [2]int{}
	sum, squares := 0.0, 0.0
	for i := range n {
		from, k := train, 0
		if split.holdsOut(i) {
			from, k = test, 1
		}
		drawn.Sample(i, a)
		from.Sample(at[k], b)
		at[k]++
		for f := range a.Keys {
			if a.Keys[f] != b.Keys[f] {
				t.Fatalf("row %d has key %x in column %d, must be %x", i, b.Keys[f], f, a.Keys[f])
			}
		}
		if a.Labels[0] != b.Labels[0] {
			t.Fatalf("row %d has label %d", i, b.Labels[0])
		}
		if k == 0 {
			sum += float64(b.X[3])
			squares += float64(b.X[3] * b.X[3])
		}
	}
	if m := float64(train.Len()); math.Abs(sum/m) > 1e-5 || squares/m > 1 || squares/m < 0.7 { // a tenth is missing
		t.Errorf("the counts have mean %v and variance %v", sum/m, squares/m)
	}
	commas, _, err := openRows(t, "label,I1\n"+strings.ReplaceAll(drawnLines(n), "\t", ","))
	if err != nil || commas.Digest() != train.Digest() {
		t.Errorf("commas and a first line of names make other samples: %v", err)
	}
}

func TestCriteoFaults(t *testing.T) {
	good := drawnLines(20)
	fields := strings.Split(strings.SplitN(good, "\n", 2)[0], "\t")
	with := func(i int, v string) string {
		f := append([]string(nil), fields...)
		f[i] = v
		return good + strings.Join(f, "\t")
	}
	for text, want := range map[string]string{
		with(0, "2"):                          `line 21: expected the label 0 or 1, found "2"`,
		with(3, "many"):                       `line 21: expected a count in column I3, found "many"`,
		with(3, "1e300"):                      `line 21: expected a count in column I3, found "1e300"`,
		with(20, "xyz"):                       "line 21: expected up to 16 hexadecimal digits in column C7",
		good + strings.Join(fields[1:], "\t"): "line 21: expected 40 fields, found 39",
		"\n":                                  "an empty file",
		strings.Join(fields, "\t") + "\n":     "rows to train on and rows to hold out",
		"\xff\xfe" + strings.Join(fields, "\t") + "\n\n": "UTF-16",
	} {
		_, _, err := openRows(t, text)
		var fault *FileError
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, must say %s", err, want)
		}
	}
	if _, _, err := openRows(t, with(1, "")+"\n"+with(20, "")); err != nil {
		t.Errorf("missing values: %v", err)
	}
}

// The sample of the real files is of the format.
func TestCriteoSample(t *testing.T) {
	path := "../../../shared/data/ctr/criteo_sample.txt"
	if _, err := os.Stat(path); err != nil {
		t.Skip("the sample is not here: ", err)
	}
	train, test, err := Open(context.Background(), Source{Source: Criteo, Path: path}, nil)
	if err != nil || train.Len()+test.Len() != 200 {
		t.Fatalf("%v", err)
	}
	var text bytes.Buffer
	if err := Describe(&text, train, test); err != nil || !strings.Contains(text.String(), "26 keys") {
		t.Errorf("%v: %s", err, &text)
	}
}

func FuzzCriteo(f *testing.F) {
	f.Add(drawnLines(2))
	f.Add("label,a\n0,,,\n")
	f.Add("1\t\t\t")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := newFile("data.path", "fuzz", strings.NewReader(text), 0)
		if err != nil {
			return
		}
		rows := &criteoRows{}
		err = (&criteo{}).readFile(file, func(int) *criteoRows { return rows })
		if err == nil && (len(rows.labels) == 0 || len(rows.keys) != 26*len(rows.labels) || len(rows.numbers) != 13*len(rows.labels)) {
			t.Errorf("%d labels, %d keys, %d numbers", len(rows.labels), len(rows.keys), len(rows.numbers))
		}
	})
}

func TestAUC(t *testing.T) {
	for _, c := range []struct {
		scores []float32
		labels []int32
		want   float64
	}{
		{[]float32{1, 2, 3, 4}, []int32{0, 0, 1, 1}, 1},
		{[]float32{4, 3, 2, 1}, []int32{0, 0, 1, 1}, 0},
		{[]float32{1, 1, 1, 1}, []int32{0, 1, 0, 1}, 0.5},
		{[]float32{1, 2, 2, 3}, []int32{0, 1, 0, 1}, 0.875},
		{[]float32{1, 2}, []int32{1, 1}, 0.5},
		{nil, nil, 0.5},
	} {
		if got := AUC(c.scores, c.labels); got != c.want {
			t.Errorf("AUC of %v by %v is %v, must be %v", c.labels, c.scores, got, c.want)
		}
	}
}

// The drawn data is the same for ever: nodes of different versions must not draw differently under one identity.
func TestCTRGolden(t *testing.T) {
	if got := string(CTRLine(nil, 7, 5)); got != "1\t1\t0\t5\t5\t0\t8\t5\t\t802\t11\t55\t481\t232\t00000006\t00000182\t0000f8d5\t00000388\t0001b5e8\t00000001\t000039bb\t00000000\t00000049\t00000000\t00000000\t00000004\t00000179\t00000000\t0000001f\t0000000a\t000001e1\t00000320\t00000032\t0000045c\t0000000c\t00003c0b\t00000000\t00000ac0\t00000001\t0000030f\n" {
		t.Errorf("line %q", got)
	}
	test := newCTR(1, testStream, 20000)
	clicks, b := 0, NewBatch(test, 1)
	for i := range test.Len() {
		test.Sample(i, b)
		clicks += int(b.Labels[0])
	}
	if share := float64(clicks) / 20000; share < 0.2 || share > 0.3 {
		t.Errorf("%v of the samples are clicks", share)
	}
	if best := test.BestAUC(); best < 0.78 || best > 0.86 {
		t.Errorf("the best AUC is %v", best)
	}
}
