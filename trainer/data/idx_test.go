package data

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func idxImages(n, rows, cols uint32, pixels ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, magicImages)
	for _, v := range []uint32{n, rows, cols} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return append(b, pixels...)
}

func idxLabels(n uint32, labels ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, magicLabels)
	return append(binary.BigEndian.AppendUint32(b, n), labels...)
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

// five pictures of 1 by 2: sample i is {10i, 10i+1}, label i.
var (
	fiveImages = idxImages(5, 1, 2, 0, 1, 10, 11, 20, 21, 30, 31, 40, 41)
	fiveLabels = idxLabels(5, 0, 1, 2, 3, 4)
)

// source writes the files of a source of 2 training and 1 held-out sample.
func source(t *testing.T, images, labels []byte) Source {
	t.Helper()
	dir := t.TempDir()
	s := Source{Source: IDX, Train: 2, Test: 1, Images: filepath.Join(dir, "im"), Labels: filepath.Join(dir, "lb")}
	write(t, s.Images, images)
	write(t, s.Labels, labels)
	return s
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// samples prints a data set as label:grey,grey and so on, with the normalisation undone.
func samples(d Dataset) string {
	var b strings.Builder
	s := NewBatch(d, 1)
	for i := range d.Len() {
		d.Sample(i, s)
		fmt.Fprintf(&b, "%d:", s.Labels[0])
		for _, v := range s.X {
			fmt.Fprintf(&b, "%.0f,", (v*greyStd+greyMean)*255)
		}
	}
	return b.String()
}

func TestIDXSplitsFirstAndLast(t *testing.T) {
	var digest Digest
	for _, zip := range []bool{false, true} {
		images, labels := fiveImages, fiveLabels
		if zip {
			images, labels = gzipped(images), gzipped(labels)
		}
		train, test, err := Open(t.Context(), source(t, images, labels), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := samples(train), "0:0,1,1:10,11,"; got != want {
			t.Errorf("gzip %v: train %s, want %s", zip, got, want)
		}
		if got, want := samples(test), "4:40,41,"; got != want {
			t.Errorf("gzip %v: test %s, want %s", zip, got, want)
		}
		if got := fmt.Sprintf("%+v", train.Form()); got != "{Kind:0 Shape:[1 1 2] Classes:10 Entries:0 Fields:0 Unit:0}" {
			t.Error(got)
		}
		if zip && Identity(train, test) != digest {
			t.Error("the same samples have another digest when gzipped")
		}
		digest = Identity(train, test)
	}
	changed := bytes.Clone(fiveImages)
	changed[len(changed)-1]++
	train, test, err := Open(t.Context(), source(t, changed, fiveLabels), nil)
	if err != nil {
		t.Fatal(err)
	}
	if Identity(train, test) == digest {
		t.Error("other pixels have the same digest")
	}
}

func TestIDXSeparateTestFiles(t *testing.T) {
	s := source(t, fiveImages, fiveLabels)
	s.TestImages, s.TestLabels = s.Images+"2", s.Labels+"2"
	write(t, s.TestImages, idxImages(2, 1, 2, 90, 91, 92, 93))
	write(t, s.TestLabels, idxLabels(2, 9, 8))
	train, test, err := Open(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := samples(train) + samples(test); got != "0:0,1,1:10,11,9:90,91," {
		t.Error(got)
	}
	write(t, s.TestImages, idxImages(2, 2, 1, 90, 91, 92, 93))
	if _, _, err := Open(t.Context(), s, nil); err == nil || !strings.Contains(err.Error(), "data.test_images") {
		t.Errorf("test images of another shape: %v", err)
	}
}

func TestIDXFaults(t *testing.T) {
	damaged := gzipped(fiveImages)
	damaged[len(damaged)-6] ^= 1 // its checksum
	for _, c := range []struct {
		name           string
		images, labels []byte
		want           []string // parts of the sentence
	}{
		{"empty", nil, fiveLabels, []string{"data.images", "header of 16 bytes", "end after 0 bytes", "fetch"}},
		{"short header", fiveImages[:9], fiveLabels, []string{"header of 16 bytes", "end after 9 bytes"}},
		{"truncated", fiveImages[:len(fiveImages)-3], fiveLabels, []string{"5 images of 1 by 2", "end after 23 bytes", "truncated"}},
		{"truncated labels", fiveImages, fiveLabels[:10], []string{"data.labels", "5 labels", "end after 10 bytes"}},
		{"truncated gzip", gzipped(fiveImages)[:30], fiveLabels, []string{"data.images", "truncated"}},
		{"damaged gzip", damaged, fiveLabels, []string{"data.images", "damaged data"}},
		{"too long", append(bytes.Clone(fiveImages), 7), fiveLabels, []string{"more after its 26 bytes"}},
		{"swapped", fiveLabels, fiveImages, []string{"which is labels", "swapped"}},
		{"no IDX", []byte("label,a,b\n1,2,3\nabcdefg"), fiveLabels, []string{"magic number 0x00000803", "0x6c616265"}},
		{"no samples", idxImages(0, 28, 28), fiveLabels, []string{"at least one sample", "0 of 28 by 28"}},
		{"absurd side", idxImages(5, 1<<31, 1<<31), fiveLabels, []string{"1 to 1024 rows", "5 of 2147483648 by 2147483648"}},
		{"absurd count", idxImages(1<<32-1, 1024, 1024, 1, 2), idxLabels(1<<32-1, 1), []string{"data.labels", "4294967295 labels", "end after 9"}},
		{"counts differ", fiveImages, idxLabels(4, 0, 1, 2, 3), []string{"data.labels", "5 labels", "found 4", "belong together"}},
		{"too few", idxImages(2, 1, 1, 1, 2), idxLabels(2, 1, 2), []string{"at least 3 samples", "found 2", "lower data.train (2) or data.test (1)"}},
		{"label", fiveImages, idxLabels(5, 0, 10, 2, 3, 4), []string{"0 to 9", "label 10 at sample 1", "data.classes"}},
		{"held-out label", fiveImages, idxLabels(5, 0, 1, 2, 3, 77), []string{"label 77 at sample 4"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := Open(t.Context(), source(t, c.images, c.labels), nil)
			var file *FileError
			if !errors.As(err, &file) {
				t.Fatalf("%v", err)
			}
			for _, part := range append(c.want, file.Path) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("not one sentence: %q", err)
			}
		})
	}
}

func TestIDXMissingFile(t *testing.T) {
	s := source(t, fiveImages, fiveLabels)
	s.Labels = "no/such/file"
	_, _, err := Open(t.Context(), s, nil)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "data.labels: no/such/file") ||
		!strings.Contains(err.Error(), "relative to the working directory, /") {
		t.Error(err)
	}
}

// A header that promises terabytes must not make us allocate them.
func TestIDXHeaderIsNoProof(t *testing.T) {
	bomb := gzipped(idxImages(1<<32-1, 1024, 1024, 1, 2, 3))
	f, err := idxOf(bomb, 0, magicImages)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.take(1 << 30); err == nil {
		t.Error("taken")
	}
}

func TestSourceValidate(t *testing.T) {
	for _, c := range []struct {
		s    Source
		want []string // one part for each fault
	}{
		{DefaultSource(), nil},
		{Source{Source: IDX, Train: 1, Test: 1, Images: "a", Labels: "b"}, nil},
		{Source{}, []string{`data.source is "": use`}},
		{Source{Source: "mnist", Train: 1, Test: -1}, []string{"use one of glyphs, idx, csv, libsvm, text"}},
		{Source{Source: Glyphs, Train: 1, Test: 1, Images: "a", TestLabels: "b", Classes: 4}, []string{"data.images has no meaning", "data.test_labels has no meaning", "data.classes is 4"}},
		{Source{Source: IDX, Train: 1, Test: maxSamples + 1, Seed: 3, TestImages: "a", Classes: 300}, []string{
			"data.test is", "data.seed has no meaning", "data.images is missing", "data.labels is missing", "data.test_images and data.test_labels", "data.classes is 300"}},
		{Source{Source: Text, Train: 1, Test: 1, Context: 1, Path: "a"}, nil},
		{DefaultText(), []string{"data.path is missing"}},
		{Source{Source: Text, Train: 1, Test: 1, Seed: 1, Images: "a", Classes: 65, Context: -1}, []string{
			"data.seed has no meaning", "data.images has no meaning", "data.classes has no meaning", "data.path is missing", "data.context is -1"}},
		{Source{Source: IDX, Train: 1, Test: 1, Images: "a", Labels: "b", Path: "c", Context: 8}, []string{"data.path has no meaning", "data.context has no meaning"}},
	} {
		faults := c.s.Validate()
		if len(faults) != len(c.want) {
			t.Errorf("%+v: %v, want %d faults", c.s, faults, len(c.want))
			continue
		}
		for i, f := range faults {
			part := strings.Replace(c.want[i], `"": use`, `"", which is not known: use`, 1)
			if !strings.Contains(f.Error(), part) {
				t.Errorf("%q does not say %q", f, part)
			}
		}
		if _, _, err := Open(t.Context(), c.s, nil); len(c.want) > 0 && err == nil {
			t.Errorf("%+v opened", c.s)
		}
	}
}

func TestRealMNIST(t *testing.T) {
	const dir = "../../../shared/data/mnist10k/" // beside the checkout
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no real MNIST at ../shared/data/mnist10k, seen from the root of the repository")
	}
	train, test, err := Open(t.Context(), Source{Source: IDX, Train: 9000, Test: 1000,
		Images: dir + "t10k-images-idx3-ubyte.gz", Labels: dir + "t10k-labels-idx1-ubyte.gz"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if train.Len() != 9000 || test.Len() != 1000 || fmt.Sprint(test.Form().Shape) != "[1 28 28]" {
		t.Errorf("%d and %d samples of %v", train.Len(), test.Len(), test.Form().Shape)
	}
	// The first digits of this file are known to everyone who has worked with it.
	s := NewBatch(train, 1)
	var first []int32
	var sum float64
	for i := range 1000 {
		train.Sample(i, s)
		first = append(first, s.Labels[0])
		for _, v := range s.X {
			sum += float64(v)
		}
	}
	if fmt.Sprint(first[:8]) != "[7 2 1 0 4 1 4 9]" {
		t.Errorf("labels begin %v", first[:8])
	}
	if mean := sum / (1000 * 784); mean < -0.1 || mean > 0.1 {
		t.Errorf("normalised mean is %v", mean)
	}
}

// idxOf reads the header of an IDX file in memory.
func idxOf(b []byte, size int, magic uint32) (*idxFile, error) {
	f, err := newFile("data.images", "file", bytes.NewReader(b), int64(size))
	if err != nil {
		return nil, err
	}
	return newIDXFile(f, magic)
}

func FuzzIDX(f *testing.F) {
	f.Add(fiveImages, fiveLabels)
	f.Add(gzipped(fiveImages), gzipped(fiveLabels))
	f.Add(idxImages(1<<32-1, 1024, 1024, 1, 2), idxLabels(1<<32-1, 1))
	f.Add(fiveImages[:20], fiveLabels[:9])
	f.Add(fiveLabels, fiveImages)
	f.Fuzz(func(t *testing.T, im, lb []byte) {
		images, err := idxOf(im, len(im), magicImages)
		if err != nil {
			return
		}
		labels, err := idxOf(lb, len(lb), magicLabels)
		if err != nil {
			return
		}
		a, b, err := readPair(images, labels, 10, 2, 1)
		if err != nil {
			return
		}
		for _, s := range []*idxSet{a, b} {
			one := NewBatch(s, 1)
			for i := range s.Len() {
				s.Sample(i, one)
				if l := one.Labels[0]; l < 0 || l >= 10 {
					t.Errorf("label %d", l)
				}
			}
		}
		if a.Len() != 2 || b.Len() != 1 {
			t.Errorf("%d and %d samples", a.Len(), b.Len())
		}
	})
}
