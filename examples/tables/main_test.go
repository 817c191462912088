package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"testing"

	"github.com/musterml/muster"
	"github.com/musterml/muster/trainer"
)

// The files in the repository are those that the program makes.
func TestFilesAreUpToDate(t *testing.T) {
	table, err := os.ReadFile("customers.csv")
	if err != nil {
		t.Fatal(err)
	}
	packed, err := os.Open("spam.libsvm.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	z, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	letters, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(table, customers()) || !bytes.Equal(letters, spam()) {
		t.Error("the files are others: run go run ./examples/tables in the root of the checkout")
	}
}

// Both examples learn, from the file to the held-out rows, well above the larger class.
func TestExamplesLearn(t *testing.T) {
	t.Chdir("../..")
	for _, c := range []struct {
		name   string
		passes int
		want   float64 // of the held-out rows; the larger class has 0.51 and 0.67 of all
	}{{"logistic", 1, 0.8}, {"mlp", 8, 0.8}} {
		job, err := trainer.LoadJob("examples/" + c.name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		job.Out, job.Passes = t.TempDir(), c.passes
		r, err := muster.Train(t.Context(), job, nil)
		if err != nil || r.TestAccuracy < c.want {
			t.Errorf("%s: accuracy %.3f, want %v; error %v", c.name, r.TestAccuracy, c.want, err)
		}
	}
}
