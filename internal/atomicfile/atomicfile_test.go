package atomicfile

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// faulty is the real file system until its n-th operation, which fails.
type faulty struct {
	disk
	left *int
	err  error
}

func (f faulty) fails() bool { *f.left--; return *f.left < 0 }

func (f faulty) create(dir, base string) (tempFile, error) {
	if f.fails() {
		return nil, f.err
	}
	t, err := f.disk.create(dir, base)
	return &faultyFile{t, f}, err
}

func (f faulty) rename(from, to string) error {
	if f.fails() {
		return f.err
	}
	return f.disk.rename(from, to)
}

func (f faulty) syncDir(dir string) error {
	if f.fails() {
		return f.err
	}
	return f.disk.syncDir(dir)
}

type faultyFile struct {
	tempFile
	fs faulty
}

func (f *faultyFile) Write(b []byte) (int, error) {
	if f.fs.fails() {
		n, _ := f.tempFile.Write(b[:len(b)/2]) // a full disk takes what fits
		return n, f.fs.err
	}
	return f.tempFile.Write(b)
}

func (f *faultyFile) Sync() error {
	if f.fs.fails() {
		return f.fs.err
	}
	return f.tempFile.Sync()
}

func (f *faultyFile) Close() error {
	if f.fs.fails() {
		f.tempFile.Close()
		return f.fs.err
	}
	return f.tempFile.Close()
}

// Whichever operation fails, the old file or the whole new one is there, and no
// temporary file is left.
func TestWriteIsAtomic(t *testing.T) {
	older := []byte("older")
	newer := bytes.Repeat([]byte("newer"), 600_000) // several writes
	fill := func(w io.Writer) error {
		for part := newer; len(part) > 0; part = part[100_000:] {
			if _, err := w.Write(part[:100_000]); err != nil {
				return err
			}
		}
		return nil
	}
	for operations := 0; ; operations++ {
		dir := t.TempDir()
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, older, 0o644); err != nil {
			t.Fatal(err)
		}
		left := operations
		err := write(faulty{left: &left, err: syscall.ENOSPC}, path, fill)
		got, readErr := os.ReadFile(path)
		if readErr != nil {
			t.Fatal(readErr)
		}
		names, _ := filepath.Glob(filepath.Join(dir, ".*"))
		all, _ := os.ReadDir(dir)
		if len(all) != 1 || len(names) != 0 {
			t.Errorf("%d operations: %v left in the folder", operations, all)
		}
		if err == nil {
			if !bytes.Equal(got, newer) {
				t.Error("no error, but not the new file")
			}
			if operations < 7 {
				t.Errorf("only %d operations; the test has lost its grip", operations)
			}
			return
		}
		if !bytes.Equal(got, older) && !bytes.Equal(got, newer) {
			t.Errorf("%d operations: neither the old nor the new file", operations)
		}
		want := "disk or quota is full; an older file of that name is untouched"
		if bytes.Equal(got, newer) {
			want = "the new file is in place"
		}
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("%d operations: %v", operations, err)
		}
	}
}
