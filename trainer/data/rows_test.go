package data

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// askedRows reads rows to be answered, and prints them without the answers that a Batch needs.
func askedRows(t *testing.T, s Source, content []byte, show func(Dataset) string) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rows")
	write(t, path, content)
	_, rows, err := OpenRows(t.Context(), s, path, nil)
	if err != nil {
		return "", err
	}
	return unanswered(show(rows)), nil
}

var answer = regexp.MustCompile(`(?m)^[^ :]*:?`)

func unanswered(rows string) string { return answer.ReplaceAllString(rows, "") }

// Rows become the samples that they are where they are held out with their labels, whatever columns there are besides, in any order.
func TestRowsOfATable(t *testing.T) {
	train := "size,town,note,price\n1,A,x,10\n2,B,y,20\n3,A,z,30\n4,C,x,41\n"
	test := "size,town,note,price\n2.5,B,y,25\n,D,x,9\n4,A,,12\n"
	s := csvSource(t, train, test, Table{Label: "price", Ignore: []string{"note"}})
	s.Task = Regression
	_, held, err := Open(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := unanswered(tableRows(held))
	for name, rows := range map[string]string{
		"as they are":          test,
		"without the label":    "size,town,note\n2.5,B,y\n,D,x\n4,A,\n",
		"in another order":     "town,id,size\nB,1,2.5\nD,2,\nA,3,4\n",
		"with a foolish label": "size,town,note,price\n2.5,B,y,what?\n,D,x,\n4,A,,12\n",
	} {
		if got, err := askedRows(t, s, []byte(rows), tableRows); err != nil || got != want {
			t.Errorf("%s: %v\n%swant\n%s", name, err, got, want)
		}
	}
	_, err = askedRows(t, s, []byte("size,price\n1,2\n"), tableRows)
	if err == nil || !strings.Contains(err.Error(), `expected a column "town", of which the model has features, found 2 columns: size, price`) {
		t.Errorf("a column is missing: %v", err)
	}
	_, rows, err := OpenRows(t.Context(), s, s.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := rows.Number(0); got != 25.25 {
		t.Errorf("a target of 0 is %v, want the mean of those trained on", got)
	}
}

// Without a header columns go by their place, and only the label may be missing.
func TestRowsWithoutAHeader(t *testing.T) {
	train, test := "1,yes,10\n2,no,20\n3,yes,30\n4,no,40\n", "2,no,25\n3,yes,35\n"
	s := csvSource(t, train, test, byLabel("2"))
	_, held, err := Open(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := unanswered(tableRows(held))
	for _, rows := range []string{test, "2,25\n3,35\n"} {
		if got, err := askedRows(t, s, []byte(rows), tableRows); err != nil || got != want {
			t.Errorf("%v\n%swant\n%s", err, got, want)
		}
	}
	if _, err := askedRows(t, s, []byte("2\n3\n"), tableRows); err == nil {
		t.Error("a table of one column passes")
	}
	if _, err := askedRows(t, s, []byte("2,3,4,5\n"), tableRows); err == nil || !strings.Contains(err.Error(), "3 fields, as in "+s.Path+", or one less, without the label, found 4") {
		t.Errorf("more columns: %v", err)
	}
	_, rows, err := OpenRows(t.Context(), s, s.Path, nil)
	if err != nil || rows.Class(0) != "no" || rows.Class(1) != "yes" {
		t.Errorf("classes are called otherwise: %v", err)
	}
}

// Labels count for nothing, and neither do features that have not been trained on.
func TestRowsOfLIBSVM(t *testing.T) {
	s := rowsSource(t, LIBSVM, "1 1:4 3:1\n-1 2:0.5 4:2\n1 1:1\n", "1 1:2 4:1\n-1 3:0.5\n")
	_, held, err := Open(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := askedRows(t, s, []byte("0 0:3 1:2 4:1 9:7\n17 3:0.5 # none\n"), sparseRows)
	if want := unanswered(sparseRows(held)); err != nil || got != want {
		t.Errorf("%v\n%swant\n%s", err, got, want)
	}
}

func TestRowsOfPictures(t *testing.T) {
	s := source(t, idxImages(3, 1, 2, 1, 2, 3, 4, 5, 6), idxLabels(3, 0, 1, 2))
	s.Train, s.Test = 1, 1
	path := filepath.Join(t.TempDir(), "new")
	write(t, path, idxImages(2, 1, 2, 9, 8, 7, 6))
	_, rows, err := OpenRows(t.Context(), s, path, nil)
	if err != nil || rows.Len() != 2 || rows.Class(7) != "7" {
		t.Errorf("%v", err)
	}
	write(t, path, idxImages(1, 2, 2, 9, 8, 7, 6))
	if _, _, err := OpenRows(t.Context(), s, path, nil); err == nil || !strings.Contains(err.Error(), "images of 1 by 2") {
		t.Errorf("pictures of another size: %v", err)
	}
	if _, _, err := OpenRows(t.Context(), DefaultSource(), path, nil); err == nil || !strings.Contains(err.Error(), "data.source is glyphs") {
		t.Errorf("drawn digits: %v", err)
	}
}
