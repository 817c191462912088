package journal

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/musterml/muster/internal/floats"
)

// Torn says that a file had a tail that was never acknowledged, and was cut.
type Torn struct {
	File          string
	Offset, Bytes int64
}

// Open reads a journal from its beginning and gives every record to visit, in the order
// of their writing. A record with a whole head and damaged bytes comes without Body and
// with its damage; visit returns an error to end the reading. A folder that is not there is made.
// torn is what a crash left unfinished, nil for nothing.
func Open(cfg Config, visit func(r Record, damage *Damage) error) (j *Journal, torn *Torn, err error) {
	if cfg.Files == nil {
		cfg.Files = Disk{}
	}
	if cfg.SegmentSize == 0 {
		cfg.SegmentSize = 16 << 20
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, nil, err
	}
	names, err := cfg.Files.ReadDir(cfg.Dir)
	if err != nil {
		return nil, nil, err
	}
	j = &Journal{cfg: cfg, buf: bufio.NewWriterSize(nil, 64<<10)}
	var numbers []uint64
	for _, name := range names {
		var n uint64
		if _, err := fmt.Sscanf(name, "%d.seg", &n); err == nil && filepath.Base(j.path(n)) == name {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		if i > 0 && n != numbers[i-1]+1 {
			return nil, nil, &Damage{File: j.path(n), What: fmt.Sprintf("segment %d before it is missing", n-1)}
		}
		s, t, err := j.read(n, i == len(numbers)-1, visit)
		if err != nil {
			return nil, nil, err
		}
		if t != nil {
			torn = t
		}
		if s.number != 0 {
			j.segments = append(j.segments, s)
		}
	}
	return j, torn, nil
}

// read reads a segment and cuts a torn tail off the last one. A last segment that has
// not even its head is removed: it comes back with the number 0.
func (j *Journal) read(number uint64, last bool, visit func(Record, *Damage) error) (s segment, t *Torn, err error) {
	path := j.path(number)
	f, err := j.cfg.Files.Open(path)
	if err != nil {
		return s, nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return s, nil, err
	}
	r := &reader{r: bufio.NewReaderSize(f, 1<<20), file: path, size: size, durable: size + 1}
	if last {
		if r.durable, err = lastAppend(f, size); err != nil {
			return s, nil, err
		}
	}
	if err = r.segmentHead(number); errors.Is(err, errTorn) {
		return s, &Torn{path, 0, size}, j.cfg.Files.Remove(path)
	}
	s = segment{number: number, size: segmentHead}
	for err == nil {
		var rec Record
		var damage *Damage
		if rec, damage, err = r.next(); err == nil {
			err = visit(rec, damage)
			s.size, s.mark = r.at, max(s.mark, rec.Mark)
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		err = nil
	case errors.Is(err, errTorn):
		t = &Torn{path, r.at, size - r.at}
		err = errors.Join(f.Truncate(r.at), f.Sync())
	}
	return s, t, err
}

// lastAppend is where the last Append in a file begins, as far as heads can be followed:
// all before it is durable.
func lastAppend(f File, size int64) (offset int64, err error) {
	var b [recordHead]byte
	for at := int64(segmentHead); at+recordHead <= size; {
		if _, err := f.ReadAt(b[:], at); err != nil {
			return 0, err
		}
		h, ok := parseHead(b[:])
		if !ok {
			break
		}
		if h.begins {
			offset = at
		}
		at += recordHead + h.length
	}
	return offset, nil
}

// errTorn stands for a tail that was never acknowledged.
var errTorn = errors.New("torn")

type reader struct {
	r       *bufio.Reader
	file    string
	size    int64
	durable int64 // what lies before it is; a crash may have left its traces only behind
	at      int64
	head    [recordHead]byte
	body    []byte
}

func (r *reader) damage(what string) *Damage { return &Damage{r.file, r.at, what} }

// cutShort is for a file that ends too early.
func (r *reader) cutShort(what string) error {
	if r.at >= r.durable {
		return errTorn
	}
	return r.damage(what)
}

func (r *reader) segmentHead(number uint64) error {
	b := r.head[:segmentHead]
	if r.size < segmentHead {
		return r.cutShort("the file is shorter than its head")
	}
	if _, err := io.ReadFull(r.r, b); err != nil {
		return err
	}
	if string(b) != string(appendSegmentHead(nil, number)) {
		if r.mayBeTorn(b, 0) {
			return errTorn
		}
		return r.damage(fmt.Sprintf("its first bytes are not those of segment %d", number))
	}
	r.at = segmentHead
	return nil
}

// next reads a record; at is then behind it. With an error at is where it began.
func (r *reader) next() (rec Record, damage *Damage, err error) {
	rest := r.size - r.at
	if rest == 0 {
		return rec, nil, io.EOF
	}
	if rest < recordHead {
		return rec, nil, r.cutShort("the file ends within the head of a record")
	}
	if _, err := io.ReadFull(r.r, r.head[:]); err != nil {
		return rec, nil, err
	}
	h, ok := parseHead(r.head[:])
	if !ok {
		if r.mayBeTorn(r.head[:], r.at) {
			return rec, nil, errTorn
		}
		return rec, nil, r.damage("the checksum of a record's head differs")
	}
	if h.length > rest-recordHead {
		return rec, nil, r.cutShort("the file ends within a record")
	}
	if int64(cap(r.body)) < h.length {
		r.body = make([]byte, h.length)
	}
	rec = h.Record
	rec.Body = r.body[:h.length]
	if _, err := io.ReadFull(r.r, rec.Body); err != nil {
		return rec, nil, err
	}
	if crc32.Checksum(rec.Body, floats.Castagnoli) != h.crc {
		if r.mayBeTorn(rec.Body, r.at+recordHead) {
			return rec, nil, errTorn
		}
		damage = r.damage("the checksum of a record's bytes differs")
		rec.Body = nil
	}
	r.at += recordHead + h.length
	return rec, damage, nil
}

func (r *reader) mayBeTorn(b []byte, offset int64) bool { return r.at >= r.durable && torn(b, offset) }
