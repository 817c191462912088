// Package atomicfile replaces files as a whole: after any error, or a crash at any
// moment, a file is what it was before, or the whole new one.
package atomicfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// files is what writing a file needs of the file system, so that tests can fail it.
type files interface {
	create(dir, base string) (tempFile, error)
	rename(from, to string) error
	remove(path string) error
	syncDir(dir string) error
}

type tempFile interface {
	io.WriteCloser
	Sync() error
	Name() string
}

// Write puts what fill writes into the file at path: first into a temporary file in the
// same folder, then to the disk, and only then under its name.
func Write(path string, fill func(io.Writer) error) error {
	return write(disk{}, path, fill)
}

// WriteBytes is Write for content that is there already.
func WriteBytes(path string, content []byte) error {
	return Write(path, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

func write(fs files, path string, fill func(io.Writer) error) error {
	if err := replace(fs, path, fill); err != nil {
		return fmt.Errorf("writing %s: %w", path, explain(err))
	}
	if err := fs.syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("writing %s: the new file is in place, but might not outlive a power cut: %w", path, err)
	}
	return nil
}

// replace does all but make the new name durable. After an error nothing has changed.
func replace(fs files, path string, fill func(io.Writer) error) (err error) {
	f, err := fs.create(filepath.Dir(path), filepath.Base(path))
	if err != nil {
		return err
	}
	temp := f.Name()
	defer func() {
		if err != nil {
			f.Close() // again after a Close that failed: harmless
			fs.remove(temp)
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := fill(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	// Before the rename, or a crash could leave the new name on an empty file.
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return fs.rename(temp, path)
}

// explain adds the remedy to a full disk.
func explain(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("the disk or quota is full; an older file of that name is untouched; make room, or choose another folder: %w", err)
	}
	return err
}

// disk is the real file system.
type disk struct{}

// create makes a file that only we know, with the permissions that the umask leaves:
// outputs are made to be read, and os.CreateTemp would hide them from everyone else.
func (disk) create(dir, base string) (tempFile, error) {
	for i := 0; ; i++ {
		name := filepath.Join(dir, fmt.Sprintf(".%s.%d.%d.tmp", base, os.Getpid(), i))
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err == nil || !errors.Is(err, os.ErrExist) || i == 1000 {
			return f, err
		}
	}
}

func (disk) rename(from, to string) error { return os.Rename(from, to) }
func (disk) remove(path string) error     { return os.Remove(path) }

func (disk) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
