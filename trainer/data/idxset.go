package data

import (
	"crypto/sha256"
	"fmt"
)

// idxSet is labelled grey pictures in memory.
type idxSet struct {
	rows, cols int
	classes    int
	pixels     []byte // (n, rows*cols)
	labels     []byte // (n), each below classes
	grey       *greyTable
	digest     Digest
}

func newIDXSet(images *idxFile, classes int, pixels, labels []byte) *idxSet {
	s := &idxSet{
		rows: int(images.rows), cols: int(images.cols), classes: classes,
		pixels: pixels, labels: labels, grey: newGreyTable(),
	}
	// The digest is of what is trained on, not of the files: gzip or plain, the same
	// samples are the same data.
	h := sha256.New()
	fmt.Fprintf(h, "idx, %d samples of %d by %d, %d classes, %s\n", len(labels), s.rows, s.cols, classes, normalisation)
	h.Write(pixels)
	h.Write(labels)
	h.Sum(s.digest[:0])
	return s
}

func (s *idxSet) Len() int       { return len(s.labels) }
func (s *idxSet) Form() Form     { return Form{Shape: []int{1, s.rows, s.cols}, Classes: s.classes} }
func (s *idxSet) Digest() Digest { return s.digest }

func (s *idxSet) Sample(i int, into Batch) {
	w := s.rows * s.cols
	s.grey.expand(into.X, s.pixels[i*w:(i+1)*w])
	into.Labels[0] = int32(s.labels[i])
}

// openIDX reads the files of a valid source.
func (w *watch) openIDX(s Source) (train, test Dataset, err error) {
	classes := s.Classes
	if classes == 0 {
		classes = 10
	}
	if s.TestImages == "" {
		a, b, err := w.openPair("data.images", s.Images, "data.labels", s.Labels, classes, s.Train, s.Test)
		if err != nil {
			return nil, nil, err
		}
		return a, b, nil
	}
	a, _, err := w.openPair("data.images", s.Images, "data.labels", s.Labels, classes, s.Train, 0)
	if err != nil {
		return nil, nil, err
	}
	b, _, err := w.openPair("data.test_images", s.TestImages, "data.test_labels", s.TestLabels, classes, s.Test, 0)
	if err != nil {
		return nil, nil, err
	}
	if a.rows != b.rows || a.cols != b.cols {
		return nil, nil, &FileError{Field: "data.test_images", Path: s.TestImages,
			Expected: fmt.Sprintf("images of %d by %d, as in %s", a.rows, a.cols, s.Images),
			Found:    fmt.Sprintf("images of %d by %d", b.rows, b.cols), Remedy: "name files that belong together"}
	}
	return a, b, nil
}

// openPair reads a file of images and its file of labels: the first samples, and the
// last ones.
func (w *watch) openPair(imagesField, imagesPath, labelsField, labelsPath string, classes, first, last int) (a, b *idxSet, err error) {
	images, err := w.openIDXFile(imagesField, imagesPath, magicImages)
	if err != nil {
		return nil, nil, err
	}
	defer images.Close()
	labels, err := w.openIDXFile(labelsField, labelsPath, magicLabels)
	if err != nil {
		return nil, nil, err
	}
	defer labels.Close()
	return readPair(images, labels, classes, first, last)
}

func readPair(images, labels *idxFile, classes, first, last int) (a, b *idxSet, err error) {
	if images.count != labels.count {
		return nil, nil, labels.fail(fmt.Sprintf("%d labels, one for each image of %s", images.count, images.path),
			fmt.Sprint(labels.count), "name an image and a label file that belong together", nil)
	}
	if int64(first)+int64(last) > images.count {
		remedy := fmt.Sprintf("lower data.train (%d) or data.test (%d)", first, last)
		if last == 0 {
			remedy = fmt.Sprintf("lower the number asked for to %d", images.count)
		}
		return nil, nil, images.fail(fmt.Sprintf("at least %d samples", first+last), fmt.Sprint(images.count), remedy, nil)
	}
	labelsA, labelsB, err := labels.firstAndLast(int64(first), int64(last))
	if err != nil {
		return nil, nil, err
	}
	for i, l := range append(labelsA[:first:first], labelsB...) {
		if int(l) >= classes {
			if i >= first {
				i += int(labels.count) - first - last
			}
			return nil, nil, labels.fail(fmt.Sprintf("labels from 0 to %d", classes-1),
				fmt.Sprintf("label %d at sample %d", l, i), "set data.classes to the number of labels, or fetch the file again", nil)
		}
	}
	pixelsA, pixelsB, err := images.firstAndLast(int64(first), int64(last))
	if err != nil {
		return nil, nil, err
	}
	return newIDXSet(images, classes, pixelsA, labelsA), newIDXSet(images, classes, pixelsB, labelsB), nil
}
