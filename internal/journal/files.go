package journal

import (
	"io"
	"os"
	"syscall"
)

// Files is what a journal needs of the file system, so that tests can fail it.
type Files interface {
	ReadDir(dir string) (names []string, err error)
	Create(path string) (File, error) // new, for writing
	Open(path string) (File, error)   // for reading and cutting
	Remove(path string) error
	SyncDir(dir string) error
}

// File is an open file. Sync makes its bytes and its length durable.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.Closer
	Size() (int64, error)
	Truncate(size int64) error
	Sync() error
}

// Disk is the real file system.
type Disk struct{}

// ReadDir implements Files.
func (Disk) ReadDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Create implements Files.
func (Disk) Create(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

// Open implements Files.
func (Disk) Open(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

// Remove implements Files.
func (Disk) Remove(path string) error { return os.Remove(path) }

// SyncDir implements Files.
func (Disk) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

type diskFile struct{ *os.File }

func (f diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Sync is fdatasync: everything needed to read the bytes again, but no times.
func (f diskFile) Sync() error { return syscall.Fdatasync(int(f.Fd())) }
