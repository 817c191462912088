package data

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
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

// FileError says what is wrong with a data file. Returned by Open when a file cannot
// be read or is not what the job says it is.
type FileError struct {
	Field    string // the job's field that names the file: data.images
	Path     string
	Expected string
	Found    string
	Remedy   string
	Err      error // the cause, or nil
}

func (e *FileError) Error() string {
	return fmt.Sprintf("%s: %s: expected %s, found %s: %s", e.Field, e.Path, e.Expected, e.Found, e.Remedy)
}

func (e *FileError) Unwrap() error { return e.Err }

// idxFile is an IDX file being read, its header checked.
type idxFile struct {
	field, path string
	r           *bufio.Reader // past any gzip
	proven      int64         // bytes the file surely holds, 0 if unknown (gzip)
	read        int64         // bytes taken from r
	count       int64         // samples, as the header claims
	rows, cols  int64         // 1, 1 for labels
	kind        string        // "images", "labels"
}

func (f *idxFile) sampleSize() int64 { return f.rows * f.cols }

func (f *idxFile) fail(expected, found, remedy string, err error) error {
	return &FileError{Field: f.field, Path: f.path, Expected: expected, Found: found, Remedy: remedy, Err: err}
}

const fetchAgain = "fetch the file again"

// newIDXFile reads the header. Whether the bytes are gzip is told by their magic, not
// by the file's name. size is the file's, or 0 if unknown.
func newIDXFile(field, path string, raw io.Reader, size int64, magic uint32) (*idxFile, error) {
	f := &idxFile{field: field, path: path, r: bufio.NewReaderSize(raw, 64<<10), proven: size, kind: "labels", rows: 1, cols: 1}
	dims := 1
	if magic == magicImages {
		f.kind, dims = "images", 3
	}
	if head, _ := f.r.Peek(2); len(head) == 2 && head[0] == 0x1f && head[1] == 0x8b {
		z, err := gzip.NewReader(f.r)
		if err != nil {
			return nil, f.fail("a gzip file", "a damaged gzip header", fetchAgain, err)
		}
		f.r, f.proven = bufio.NewReaderSize(z, 64<<10), 0
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
	what, remedy := fmt.Sprintf("%#08x", found), "name an IDX file of unsigned bytes, plain or gzip"
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
	if errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) {
		return f.fail(expected, "damaged gzip data", fetchAgain, err)
	}
	return f.fail(expected, err.Error(), fetchAgain+", or check the disk", err)
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
	buf := make([]byte, 0, min(want, max(f.proven, unprovenStart)))
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

// openFile opens a data file that a field of the job names. The caller closes it.
func openFile(field, path string, magic uint32) (*idxFile, io.Closer, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, pathError(field, path, err)
	}
	size := int64(0)
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
		size = info.Size()
	}
	f, err := newIDXFile(field, path, file, size, magic)
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return f, file, nil
}

func pathError(field, path string, err error) error {
	found := err.Error()
	if cause := errors.Unwrap(err); cause != nil {
		found = cause.Error() // without the path, which the sentence names already
	}
	remedy := "check the path and who may read it"
	if wd, wdErr := os.Getwd(); wdErr == nil {
		remedy += "; paths are relative to the working directory, " + wd
	}
	return &FileError{Field: field, Path: path, Expected: "a readable file", Found: found, Remedy: remedy, Err: err}
}
