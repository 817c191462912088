package raftgroup

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/journal"
)

// A snapshot on the disk may begin with layers: files beside raft's own in its folder. A later snapshot can keep those of
// one before, as hard links, and write only what has changed since as one more; raft may remove the earlier snapshot at any time.
// Who opens a snapshot, to restore it or to send it, reads the layers and then what was written to the sink, as one stream.
//
// A layer's name says which it is of how many, and its CRC-32C, so that one that is damaged or missing is found before
// raft relies on the snapshot.

// Layered is what a raft.SnapshotSink can do besides where snapshots are on the disk.
type Layered interface {
	// Layer begins the newest layer, on top of those of an earlier snapshot by its ID; "" for none. It is called once at most,
	// and what it returns must be closed before the sink is.
	Layer(on string) (io.WriteCloser, error)
}

// Layer implements Layered.
func (s *steadySink) Layer(on string) (io.WriteCloser, error) {
	var below []string
	if on != "" {
		folder := filepath.Join(filepath.Dir(s.folder), on)
		var err error
		if below, err = layersOf(folder); err != nil {
			return nil, err
		}
		if len(below) == 0 {
			return nil, fmt.Errorf("snapshot %s has no layers", on)
		}
		for i, name := range below {
			if err := os.Link(filepath.Join(folder, name), filepath.Join(s.folder, layerName(i, len(below)+1, name[len(name)-8:]))); err != nil {
				return nil, err
			}
		}
	}
	file, err := os.Create(filepath.Join(s.folder, "layer"))
	if err != nil {
		return nil, err
	}
	w := &layerWriter{settler: settler{file: file}, number: len(below)}
	w.buffer = bufio.NewWriterSize(writerFunc(w.write), 1<<18)
	return w, nil
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func layerName(i, of int, crc string) string {
	return fmt.Sprintf("layer-%03d-of-%03d-%s", i+1, of, crc)
}

// layerWriter writes a layer.
type layerWriter struct {
	settler
	buffer *bufio.Writer
	crc    uint32
	number int
}

func (w *layerWriter) write(b []byte) (int, error) {
	n, err := w.file.Write(b)
	w.crc = crc32.Update(w.crc, floats.Castagnoli, b[:n])
	if err == nil {
		err = w.wrote(n)
	}
	return n, err
}

// Write implements io.Writer.
func (w *layerWriter) Write(b []byte) (int, error) { return w.buffer.Write(b) }

// Close makes the layer durable under its name.
func (w *layerWriter) Close() error {
	err := w.buffer.Flush()
	if err == nil {
		err = journal.Settle(w.file)
	}
	if err = errors.Join(err, w.file.Close()); err != nil {
		return err
	}
	folder := filepath.Dir(w.file.Name())
	if err := os.Rename(w.file.Name(), filepath.Join(folder, layerName(w.number, w.number+1, fmt.Sprintf("%08x", w.crc)))); err != nil {
		return err
	}
	return journal.Disk{}.SyncDir(folder)
}

// layersOf finds the names of a snapshot's layers, the first first.
func layersOf(folder string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(folder, "layer-*"))
	if err != nil {
		return nil, err
	}
	for i, path := range found {
		name := filepath.Base(path)
		found[i] = name
		if crc := name[max(0, len(name)-8):]; name != layerName(i, len(found), crc) {
			return nil, fmt.Errorf("%s: %d layers, of which one is %s: some are missing", folder, len(found), name)
		}
	}
	return found, nil
}

// openLayers opens a snapshot's layers and reads all of them once, for their checksums.
func openLayers(folder string) (layers []io.ReadCloser, size int64, err error) {
	defer func() {
		if err != nil {
			for _, l := range layers {
				_ = l.Close()
			}
		}
	}()
	names, err := layersOf(folder)
	if err != nil {
		return nil, 0, err
	}
	for _, name := range names {
		file, err := os.Open(filepath.Join(folder, name))
		if err != nil {
			return layers, 0, err
		}
		layers = append(layers, file)
		h := crc32.New(floats.Castagnoli)
		n, err := io.Copy(h, file)
		if err != nil {
			return layers, 0, err
		}
		if !strings.HasSuffix(name, fmt.Sprintf("-%08x", h.Sum32())) {
			return layers, 0, fmt.Errorf("%s is damaged: its checksum is %08x", file.Name(), h.Sum32())
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return layers, 0, err
		}
		size += n
	}
	return layers, size, nil
}

// layered reads several files as one.
type layered struct {
	io.Reader
	files []io.ReadCloser
}

func newLayered(files []io.ReadCloser) *layered {
	var readers []io.Reader
	for _, f := range files {
		readers = append(readers, f)
	}
	return &layered{io.MultiReader(readers...), slices.Clone(files)}
}

// Close may be called more than once, as raft does.
func (l *layered) Close() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close())
	}
	l.files = nil
	return errors.Join(errs...)
}
