package journal

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
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

// Sync implements File.
func (f diskFile) Sync() error { return Settle(f.File) }

// Settle makes what was written to a file durable (fdatasync: everything needed to read the bytes again, but no times), and lets go of
// the memory that the system kept it in. What is written for the worst case is not read again; and memory that is used again
// at once costs a write a tenth of what fresh memory costs where that must be had from a host or from other files first.
func Settle(f *os.File) error {
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return err
	}
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // a wish; that the file system does not know it is no error
	return nil
}
