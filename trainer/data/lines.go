package data

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// lines reads a file line by line.
type lines struct {
	*file
	n    int    // of the line read last, from 1
	long []byte // a line that is longer than the reader's buffer
}

// maxLine bounds a line: one that is longer is no line of text.
const maxLine = 256 << 20

// eachLine calls do for every line of f that is not empty, without its end; line is valid during
// the call. A byte order mark is skipped, text of two bytes a character refused.
func eachLine(f *file, do func(l *lines, line []byte) error) error {
	if err := skipMark(f); err != nil {
		return err
	}
	l := &lines{file: f}
	for {
		line, err := l.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(line) == 0 {
			continue
		}
		if err := do(l, line); err != nil {
			return err
		}
	}
}

// skipMark passes over the byte order mark that some programs write before UTF-8.
func skipMark(f *file) error {
	head, _ := f.r.Peek(3) // an error comes again with the first line
	switch {
	case bytes.Equal(head, []byte("\xef\xbb\xbf")):
		f.r.Discard(3)
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		return f.failAt(1, "text in UTF-8", "text in UTF-16", "convert the file, for example with iconv -f UTF-16 -t UTF-8", nil)
	}
	return nil
}

// next returns the next line without its end, valid until the next call; io.EOF after the
// last one.
func (l *lines) next() ([]byte, error) {
	l.n++
	line, err := l.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		l.long = append(l.long[:0], line...)
		for errors.Is(err, bufio.ErrBufferFull) && len(l.long) <= maxLine {
			line, err = l.r.ReadSlice('\n')
			l.long = append(l.long, line...)
		}
		line = l.long
		if len(line) > maxLine {
			return nil, l.failAt(l.n, "lines of at most 256 MiB", "a longer one", "name a file of text that has lines", nil)
		}
	}
	switch {
	case err == nil:
		line = line[:len(line)-1]
	case err != io.EOF:
		return nil, l.readError(l.n, err)
	case len(line) == 0:
		return nil, io.EOF
	}
	return bytes.TrimSuffix(line, []byte("\r")), nil
}
