package data

import (
	"bufio"
	"compress/bzip2"
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// FileError says what is wrong with a data file. Returned by Open when a file cannot
// be read or is not what the job says it is.
type FileError struct {
	Field    string // the job's field that names the file: data.images
	Path     string
	Line     int // counted from 1; 0 where a line says nothing
	Expected string
	Found    string
	Remedy   string
	Err      error // the cause, or nil
}

func (e *FileError) Error() string {
	where := e.Path
	if e.Line > 0 {
		where += fmt.Sprintf(", line %d", e.Line)
	}
	return fmt.Sprintf("%s: %s: expected %s, found %s: %s", e.Field, where, e.Expected, e.Found, e.Remedy)
}

func (e *FileError) Unwrap() error { return e.Err }

const fetchAgain = "fetch the file again"

// file is a data file being read.
type file struct {
	field, path string
	r           *bufio.Reader // past any compression
	size        int64         // bytes that r surely holds; 0 if unknown
	io.Closer
}

// openFile opens a data file that a field of the job names. The caller closes it.
func (w *watch) openFile(field, path string) (*file, error) {
	opened, err := os.Open(path)
	if err != nil {
		return nil, pathError(field, path, err)
	}
	size := int64(0)
	if info, err := opened.Stat(); err == nil && info.Mode().IsRegular() {
		size = info.Size()
	}
	f, err := newFile(field, path, &watched{Reader: opened, watch: w, at: Progress{Path: path, Size: size}}, size)
	if err != nil {
		opened.Close()
		return nil, err
	}
	f.Closer = opened
	return f, nil
}

// bufferSize is that of all reading: large enough that system calls cost nothing.
const bufferSize = 64 << 10

// newFile looks past gzip and bzip2, which is told by the first bytes and not by the
// name. size is that of raw, or 0 if unknown.
func newFile(field, path string, raw io.Reader, size int64) (*file, error) {
	f := &file{field: field, path: path, r: bufio.NewReaderSize(raw, bufferSize), size: size}
	head, err := f.r.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, f.readError(0, err)
	}
	begins := func(magic string) bool { return strings.HasPrefix(string(head), magic) }
	switch {
	case begins("\x1f\x8b"):
		z, err := gzip.NewReader(f.r)
		if err != nil {
			return nil, f.readError(0, err)
		}
		f.r, f.size = bufio.NewReaderSize(z, bufferSize), 0
	case begins("BZh"):
		f.r, f.size = bufio.NewReaderSize(bzip2.NewReader(f.r), bufferSize), 0
	}
	for _, other := range []struct{ magic, format, tool string }{
		{"\xfd7zXZ\x00", "xz", "xz -d"}, {"\x28\xb5\x2f\xfd", "zstd", "zstd -d"}, {"PK\x03\x04", "zip", "unzip"},
	} {
		if begins(other.magic) {
			return nil, f.fail("a file that is plain, gzip or bzip2", "one in the format "+other.format, "unpack it with "+other.tool, nil)
		}
	}
	return f, nil
}

func (f *file) fail(expected, found, remedy string, err error) error {
	return f.failAt(0, expected, found, remedy, err)
}

func (f *file) failAt(line int, expected, found, remedy string, err error) error {
	return &FileError{Field: f.field, Path: f.path, Line: line, Expected: expected, Found: found, Remedy: remedy, Err: err}
}

// readError is the sentence for an error of reading in or after a line, or 0.
func (f *file) readError(line int, err error) error {
	var gz flate.CorruptInputError
	var bz bzip2.StructuralError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("reading %s: %w", f.path, err)
	case errors.Is(err, syscall.EISDIR):
		return f.fail("a file", "a directory", "name the file in it", err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return f.failAt(line, "whole compressed data", "the end in the middle of it", "the file is truncated; "+fetchAgain, err)
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader), errors.As(err, &gz), errors.As(err, &bz):
		return f.failAt(line, "whole compressed data", "damaged data", fetchAgain, err)
	default:
		return f.failAt(line, "a readable file", reason(err), fetchAgain+", or check the disk", err)
	}
}

// reason is what the system says, without the path, which stands elsewhere in the sentence.
func reason(err error) string {
	var of *fs.PathError
	if errors.As(err, &of) {
		return of.Err.Error()
	}
	return err.Error()
}

func pathError(field, path string, err error) error {
	remedy := "check the path and who may read it"
	if wd, wdErr := os.Getwd(); wdErr == nil {
		remedy += "; paths are relative to the working directory, " + wd
	}
	return &FileError{Field: field, Path: path, Expected: "a readable file", Found: reason(err), Remedy: remedy, Err: err}
}

// several lists the files that a path stands for: itself, or, of a pattern with *, ? or [
// that is not itself a file, those that match it, in the order of their names.
func several(field, path string) ([]string, error) {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return nil, &FileError{Field: field, Path: path, Expected: "a file", Found: "a directory", Remedy: "name the file in it, or several with a pattern such as " + filepath.Join(path, "*")}
	}
	if err == nil || !strings.ContainsAny(path, "*?[") {
		return []string{path}, nil
	}
	paths, err := filepath.Glob(path)
	if err != nil {
		return nil, &FileError{Field: field, Path: path, Expected: "a path, or a pattern of paths", Found: err.Error(), Remedy: "write it as for a shell: part-*.csv", Err: err}
	}
	if len(paths) == 0 {
		return nil, pathError(field, path, &fs.PathError{Op: "glob", Path: path, Err: errors.New("no file that matches the pattern")})
	}
	return paths, nil
}
