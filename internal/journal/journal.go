package journal

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/musterml/muster/internal/crash"
)

// Config says where a journal lies. A SegmentSize of 0 means 16 MiB.
type Config struct {
	Dir         string
	Files       Files // nil: the disk
	SegmentSize int64 // a segment that has grown past it is followed by another
}

// Journal is open for appending. Safe for concurrent use.
type Journal struct {
	cfg Config

	mu       sync.Mutex
	segments []segment // oldest first; the last is written while file is open
	file     File      // nil: the next Append begins a segment
	buf      *bufio.Writer
	head     []byte
	stats    Stats
	broken   error // why nothing can be appended any more
}

type segment struct {
	number uint64
	size   int64  // of what is durable
	mark   uint64 // the highest
}

// Stats counts what a journal has done since it was opened.
type Stats struct {
	Segments int
	Bytes    int64 // in all segments
	Appends  uint64
	Syncs    uint64 // of records
}

func (j *Journal) path(number uint64) string {
	return filepath.Join(j.cfg.Dir, fmt.Sprintf("%08d.seg", number))
}

// Append writes records and returns when they are durable, all with one sync.
func (j *Journal) Append(records ...Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.begin(); err != nil {
		return explain(err)
	}
	s := &j.segments[len(j.segments)-1]
	size, mark := s.size, s.mark
	for i := range records {
		size, mark = size+recordHead+int64(len(records[i].Body)), max(mark, records[i].Mark)
	}
	if err := j.write(records); err != nil {
		return explain(errors.Join(err, j.abandon()))
	}
	s.size, s.mark = size, mark
	j.stats.Appends++
	j.stats.Syncs++
	if s.size > j.cfg.SegmentSize {
		err := j.file.Close()
		j.file = nil
		return err // of a file that is synced: nothing is lost, but something is very wrong
	}
	return nil
}

// write makes the records durable in the open segment.
func (j *Journal) write(records []Record) error {
	for i := range records {
		r := &records[i]
		crash.At("journal.before-record")
		if int64(len(r.Body)) >= maxBody {
			return fmt.Errorf("a record of %d bytes is too long for a journal", len(r.Body))
		}
		j.head = appendHead(j.head[:0], r, i == 0)
		if _, err := j.buf.Write(j.head); err != nil {
			return err
		}
		if _, err := j.buf.Write(r.Body); err != nil {
			return err
		}
		crash.At("journal.after-record")
	}
	if err := j.buf.Flush(); err != nil {
		return err
	}
	crash.At("journal.before-sync")
	err := j.file.Sync()
	crash.At("journal.after-sync")
	return err
}

// begin makes a new segment, if none is open, durable in its folder before anything is in it.
func (j *Journal) begin() error {
	if j.file != nil || j.broken != nil {
		return j.broken
	}
	number := uint64(1)
	if n := len(j.segments); n > 0 {
		number = j.segments[n-1].number + 1
	}
	path := j.path(number)
	f, err := j.cfg.Files.Create(path)
	if errors.Is(err, os.ErrExist) { // of a begin that failed half-way
		if err = j.cfg.Files.Remove(path); err == nil {
			f, err = j.cfg.Files.Create(path)
		}
	}
	if err != nil {
		return err
	}
	crash.At("journal.segment-created")
	_, err = f.Write(appendSegmentHead(nil, number))
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = j.cfg.Files.SyncDir(j.cfg.Dir)
	}
	if err != nil {
		return errors.Join(err, f.Close(), j.cfg.Files.Remove(path))
	}
	j.segments = append(j.segments, segment{number: number, size: segmentHead})
	j.file = f
	j.buf.Reset(f)
	return nil
}

// abandon cuts the open segment back to what is durable and closes it. Where even that
// fails, nothing may be appended any more: the next Open would find what is no record.
func (j *Journal) abandon() error {
	n := len(j.segments) - 1
	s, f := j.segments[n], j.file
	j.file = nil
	if s.size == segmentHead {
		j.segments = j.segments[:n]
		j.broken = errors.Join(f.Close(), j.cfg.Files.Remove(j.path(s.number)))
	} else {
		j.broken = errors.Join(f.Truncate(s.size), f.Close())
	}
	return j.broken
}

// Trim removes the oldest segments as long as all marks in them are below the bound. The
// segment that is being written stays.
func (j *Journal) Trim(below uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for ; n < len(j.segments); n++ {
		last := n == len(j.segments)-1
		if j.segments[n].mark >= below || last {
			break
		}
		crash.At("journal.trim")
		if err := j.cfg.Files.Remove(j.path(j.segments[n].number)); err != nil {
			break
		}
		crash.At("journal.trimmed")
	}
	j.segments = j.segments[n:]
	return nil
}

// Stats tells how much there is.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.stats
	s.Segments = len(j.segments)
	for _, seg := range j.segments {
		s.Bytes += seg.size
	}
	return s
}

// Close ends the journal. Nothing is lost by not closing it.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}

// explain adds the remedy to a full disk.
func explain(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("the disk or quota is full; make room in the folder of --data-dir, and writing goes on by itself: %w", err)
	}
	return err
}
