package data

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Rows that are to be answered by a model that was trained: they become samples as those did that it was trained on, and need have no
// answers of their own.

// rowsField is what errors call the path of such rows.
const rowsField = "--data"

// Answered is a Dataset that knows what its answers mean.
type Answered interface {
	Dataset
	Class(k int) string            // the name of a class in the files
	Number(target float32) float64 // what a target is in the files, in regression
}

// OpenRows reads rows of a file, or of those that a pattern names, in the form of a source's, with whatever for answers, and the
// source's training set. CSV files with a header may have their columns in any order, and more or fewer than the source as long
// as none is missing that features are made of; others have those of the source, with the label or without. In LIBSVM files the
// label counts for nothing, and neither do features that the source does not know. Of IDX there is a file of pictures.
func OpenRows(ctx context.Context, s Source, path string, tell func(Progress)) (train Dataset, rows Answered, err error) {
	if faults := s.Validate(); len(faults) > 0 {
		return nil, nil, errors.Join(faults...)
	}
	w := &watch{ctx: ctx, tell: tell, every: tellEvery, told: time.Now()}
	var asked Dataset
	switch s.Source {
	case CSV:
		train, asked, err = w.openCSV(s, path)
	case LIBSVM:
		train, asked, err = w.openLIBSVM(s, path)
	case IDX:
		train, asked, err = w.openPictures(s, path)
	default:
		err = fmt.Errorf("the job's data.source is %s: rows can be read of %s, %s and %s", s.Source, CSV, LIBSVM, IDX)
	}
	if err != nil {
		return nil, nil, err
	}
	return train, asked.(Answered), nil
}

// place finds the columns of a file of rows to be answered.
func (r *tableReader) place(f *records, line int, columns []string) error {
	label := r.planned.field
	labelled := len(columns) == len(r.columns)
	if !r.header && !labelled && len(columns) != len(r.columns)-1 {
		return f.failAt(line, fmt.Sprintf("%d fields, as in %s, or one less, without the label", len(r.columns), r.source.Path), fmt.Sprint(len(columns)), "name a file that has the same columns", nil)
	}
	r.row, r.places = make([]string, len(r.columns)), make([]int, len(r.columns))
	for i, c := range r.columns {
		switch {
		case r.header:
			r.places[i] = slices.Index(columns, c.name)
		case labelled || i < label:
			r.places[i] = i
		case i > label:
			r.places[i] = i - 1
		default:
			r.places[i] = -1
		}
	}
	for _, c := range r.planned.columns {
		if r.places[c.field] < 0 {
			return f.failAt(line, fmt.Sprintf("a column %q, of which the model has features", c.name), fmt.Sprintf("%d columns: %s", len(columns), list(columns)), "name a file that has the columns of "+r.source.Path, nil)
		}
	}
	return nil
}

// arranged is a row in the order of the source's columns.
func (r *tableReader) arranged(fields []string) []string {
	if r.places == nil {
		return fields
	}
	for i, at := range r.places {
		r.row[i] = ""
		if at >= 0 {
			r.row[i] = fields[at]
		}
	}
	return r.row
}

// openPictures reads all pictures of a file.
func (w *watch) openPictures(s Source, path string) (train, rows Dataset, err error) {
	train, _, err = w.openIDX(s)
	if err != nil {
		return nil, nil, err
	}
	images, err := w.openIDXFile(rowsField, path, magicImages)
	if err != nil {
		return nil, nil, err
	}
	defer images.Close()
	pixels, _, err := images.firstAndLast(images.count, 0)
	if err != nil {
		return nil, nil, err
	}
	a := train.(*idxSet)
	b := newIDXSet(images, a.classes, pixels, make([]byte, images.count))
	if a.rows != b.rows || a.cols != b.cols {
		return nil, nil, images.fail(fmt.Sprintf("images of %d by %d, as in %s", a.rows, a.cols, s.Images), fmt.Sprintf("images of %d by %d", b.rows, b.cols), "name a file that belongs to the model", nil)
	}
	return a, b, nil
}

// Class implements Answered.
func (s *idxSet) Class(k int) string { return strconv.Itoa(k) }

// Number implements Answered; pictures have classes only.
func (s *idxSet) Number(float32) float64 { return 0 }
