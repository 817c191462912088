package data

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The IDX format (Y. LeCun, "The MNIST database"): a big-endian magic number (two zero
// bytes, the type of an element, the number of dimensions), the dimensions, then the
// elements. We read unsigned bytes: images of three dimensions, labels of one.
//
// A header is only a claim. Nothing is allocated by it beyond twice what has arrived,
// and a file that holds less or more than it claims is refused.

const (
	magicImages = 0x00000803
	magicLabels = 0x00000801

	// maxSide bounds rows and columns; a larger picture is a damaged header.
	maxSide = 1024

	// unprovenStart is how much is allocated before anything has arrived.
	unprovenStart = 64 << 10
)

// idxFile is an IDX file being read, its header checked.
type idxFile struct {
	*file
	read       int64  // bytes taken from r
	count      int64  // samples, as the header claims
	rows, cols int64  // 1, 1 for labels
	kind       string // "images", "labels"
}

func (f *idxFile) sampleSize() int64 { return f.rows * f.cols }

// openIDXFile opens an IDX file. The caller closes it.
func (w *watch) openIDXFile(field, path string, magic uint32) (*idxFile, error) {
	opened, err := w.openFile(field, path)
	if err != nil {
		return nil, err
	}
	f, err := newIDXFile(opened, magic)
	if err != nil {
		opened.Close()
		return nil, err
	}
	return f, nil
}

// newIDXFile reads the header.
func newIDXFile(opened *file, magic uint32) (*idxFile, error) {
	f := &idxFile{file: opened, kind: "labels", rows: 1, cols: 1}
	dims := 1
	if magic == magicImages {
		f.kind, dims = "images", 3
	}
	// The magic number first: a file of labels given as images may be shorter than
	// an image header, and the sentence should name the real fault.
	header := make([]byte, 4+4*dims)
	for _, part := range [][]byte{header[:4], header[4:]} {
		n, err := io.ReadFull(f.r, part)
		if err != nil {
			return nil, f.ended(int64(n), fmt.Sprintf("an IDX header of %d bytes", len(header)), err)
		}
		f.read += int64(n)
		if found := binary.BigEndian.Uint32(header); found != magic {
			return nil, f.wrongMagic(found, magic)
		}
	}
	f.count = int64(binary.BigEndian.Uint32(header[4:]))
	if dims == 3 {
		f.rows, f.cols = int64(binary.BigEndian.Uint32(header[8:])), int64(binary.BigEndian.Uint32(header[12:]))
	}
	if f.count < 1 || f.rows < 1 || f.cols < 1 || f.rows > maxSide || f.cols > maxSide {
		return nil, f.fail(fmt.Sprintf("at least one sample, of 1 to %d rows and columns", maxSide),
			fmt.Sprintf("%d of %d by %d", f.count, f.rows, f.cols), "the header is damaged; "+fetchAgain, nil)
	}
	return f, nil
}

func (f *idxFile) wrongMagic(found, want uint32) error {
	what, remedy := fmt.Sprintf("%#08x", found), "name an IDX file of unsigned bytes, as MNIST has; CIFAR's binary files and others are not read"
	switch found {
	case magicImages:
		what, remedy = what+", which is images", "name the labels there; the two fields may be swapped"
	case magicLabels:
		what, remedy = what+", which is labels", "name the images there; the two fields may be swapped"
	}
	return f.fail(fmt.Sprintf("the IDX magic number %#08x of %s", want, f.kind), what, remedy, nil)
}

// ended turns a read error after n more bytes into a sentence.
func (f *idxFile) ended(n int64, expected string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return f.fail(expected, fmt.Sprintf("the end after %d bytes", f.read+n), "the file is truncated; "+fetchAgain, err)
	}
	return f.readError(0, err)
}

// whole describes what the header claims.
func (f *idxFile) whole() string {
	if f.kind == "labels" {
		return fmt.Sprintf("%d labels, as its header says", f.count)
	}
	return fmt.Sprintf("%d images of %d by %d, as its header says", f.count, f.rows, f.cols)
}

// take reads the next samples, allocating at most twice what has arrived unless the
// file is known to be as long.
func (f *idxFile) take(samples int64) ([]byte, error) {
	want := samples * f.sampleSize()
	buf := make([]byte, 0, min(want, max(f.size, unprovenStart)))
	for int64(len(buf)) < want {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(want, 2*int64(cap(buf))))
			copy(grown, buf)
			buf = grown
		}
		n, err := io.ReadFull(f.r, buf[len(buf):cap(buf)])
		if err != nil {
			return nil, f.ended(int64(n), f.whole(), err)
		}
		f.read += int64(n)
		buf = buf[:cap(buf)]
	}
	return buf, nil
}

// skip passes over samples.
func (f *idxFile) skip(samples int64) error {
	n, err := io.CopyN(io.Discard, f.r, samples*f.sampleSize())
	if err != nil {
		return f.ended(n, f.whole(), err)
	}
	f.read += n
	return nil
}

// end checks that nothing follows. With gzip it also verifies the checksum.
func (f *idxFile) end() error {
	switch _, err := f.r.ReadByte(); {
	case err == nil:
		return f.fail(f.whole(), fmt.Sprintf("more after its %d bytes", f.read), "the header or the file is damaged; "+fetchAgain, nil)
	case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil
	default:
		return f.ended(0, f.whole(), err)
	}
}

// firstAndLast keeps the first samples and the last of a file, and checks all of it.
func (f *idxFile) firstAndLast(first, last int64) (a, b []byte, err error) {
	if a, err = f.take(first); err != nil {
		return nil, nil, err
	}
	if err = f.skip(f.count - first - last); err != nil {
		return nil, nil, err
	}
	if b, err = f.take(last); err != nil {
		return nil, nil, err
	}
	return a, b, f.end()
}
