package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// rec is a record that can be told from every other one.
func rec(i uint64) Record {
	body := bytes.Repeat([]byte{byte(i) | 1}, int(100+i*37%2000))
	return Record{Kind: uint32(i%3 + 1), Mark: i, A: i * 7, B: i * 11, Body: body}
}

// reopened is what Open finds.
type reopened struct {
	*Journal
	marks   []uint64
	damaged []uint64
	torn    *Torn
	err     error
}

func reopen(t *testing.T, cfg Config) (r reopened) {
	t.Helper()
	r.Journal, r.torn, r.err = Open(cfg, func(got Record, damage *Damage) error {
		if damage != nil {
			r.damaged = append(r.damaged, got.Mark)
			return nil
		}
		want := rec(got.Mark)
		if got.Kind != want.Kind || got.A != want.A || got.B != want.B || !bytes.Equal(got.Body, want.Body) {
			t.Errorf("record %d came back as another", got.Mark)
		}
		r.marks = append(r.marks, got.Mark)
		return nil
	})
	return r
}

func upTo(n uint64) (all []uint64) {
	for i := uint64(1); i <= n; i++ {
		all = append(all, i)
	}
	return all
}

func appendAll(t *testing.T, j *Journal, from, to uint64) {
	t.Helper()
	for i := from; i <= to; i++ {
		if err := j.Append(rec(i)); err != nil {
			t.Fatal(err)
		}
	}
}

func segments(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestWhatIsAppendedComesBack(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), SegmentSize: 4000}
	j := reopen(t, cfg)
	appendAll(t, j.Journal, 1, 20)
	if err := j.Append(rec(21), rec(22), rec(23)); err != nil {
		t.Fatal(err)
	}
	if s := j.Stats(); s.Syncs != 21 || s.Segments < 3 {
		t.Errorf("%d syncs for 21 appends of 23 records, %d segments", s.Syncs, s.Segments)
	}
	again := reopen(t, cfg)
	if again.err != nil || again.torn != nil || !slices.Equal(again.marks, upTo(23)) {
		t.Fatalf("%v, torn %v, %v", again.marks, again.torn, again.err)
	}
	appendAll(t, again.Journal, 24, 25)
	if err := again.Trim(15); err != nil {
		t.Fatal(err)
	}
	last := reopen(t, cfg)
	if last.err != nil || len(last.marks) == 0 || last.marks[0] > 15 || last.marks[0] < 5 || last.marks[len(last.marks)-1] != 25 {
		t.Fatalf("after a trim: %v, %v", last.marks, last.err)
	}
}

// Whatever a crash leaves of the last Append is cut off, and nothing else is lost: the file
// may end at any byte, and sectors of its end may be zeros.
func TestTornTail(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	appendAll(t, reopen(t, cfg).Journal, 1, 5)
	path := segments(t, cfg.Dir)[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	end := len(whole) - recordHead - len(rec(5).Body) // of what was durable before the last Append
	check := func(what string, b []byte, want uint64) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		r := reopen(t, cfg)
		if r.err != nil || len(r.damaged) > 0 || !slices.Equal(r.marks, upTo(want)) || (r.torn == nil) != (want == 5) {
			t.Fatalf("%s: %v, torn %v, %v", what, r.marks, r.torn, r.err)
		}
		if again := reopen(t, cfg); again.torn != nil || !slices.Equal(again.marks, upTo(want)) {
			t.Fatalf("%s: opened once more: %v, torn %v", what, again.marks, again.torn)
		}
	}
	for n := end + 1; n < len(whole); n += 41 {
		check(fmt.Sprintf("cut to %d bytes", n), whole[:n], 4)
	}
	zeros := bytes.Clone(whole)
	clear(zeros[end:])
	check("zeros", zeros, 4)
	for at := (end + recordHead) / sector * sector; at < len(whole); at += sector {
		if lo := max(at, end); lo < len(whole) {
			b := bytes.Clone(whole)
			clear(b[lo:min(at+sector, len(b))])
			check(fmt.Sprintf("a sector of zeros at %d", lo), b, 4)
		}
	}
	check("whole", whole, 5)
	for n := range segmentHead {
		if err := os.WriteFile(path, whole[:n], 0o644); err != nil {
			t.Fatal(err)
		}
		if r := reopen(t, cfg); r.err != nil || len(r.marks) > 0 || len(segments(t, cfg.Dir)) > 0 {
			t.Fatalf("a segment of %d bytes: %v, %v", n, r.marks, r.err)
		}
	}
}

// A flipped bit is never believed: a record that is not what was written is named with its
// place, and every other one comes back as it was.
func TestFlippedBits(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), SegmentSize: 1200}
	appendAll(t, reopen(t, cfg).Journal, 1, 12)
	files := segments(t, cfg.Dir)
	for n, path := range files {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(whole); at += 29 {
			b := bytes.Clone(whole)
			b[at] ^= 1 << (at % 8)
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
			r := reopen(t, cfg)
			var damage *Damage
			switch {
			case errors.As(r.err, &damage):
				if damage.File != path || damage.Offset > int64(at) || damage.Offset < int64(at)-recordHead {
					t.Fatalf("bit %d of segment %d: %v", at, n, damage)
				}
			case r.err != nil || r.torn != nil || len(r.damaged) != 1 || len(r.marks) != 11:
				t.Fatalf("bit %d of segment %d: %v, damaged %v, torn %v, %v", at, n, r.marks, r.damaged, r.torn, r.err)
			}
		}
		if err := os.WriteFile(path, whole, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(files[1]); err != nil {
		t.Fatal(err)
	}
	if r := reopen(t, cfg); !errors.As(r.err, new(*Damage)) {
		t.Errorf("with a segment missing: %v", r.err)
	}
}

// faulty fails one operation in a few, as full and broken disks do.
type faulty struct {
	Disk
	random *rand.Rand
	on     bool
	hits   int
}

func (f *faulty) fail() error {
	if !f.on || f.random.IntN(4) > 0 {
		return nil
	}
	f.hits++
	return []error{syscall.ENOSPC, syscall.EIO}[f.random.IntN(2)]
}

func (f *faulty) Create(path string) (File, error) {
	if err := f.fail(); err != nil {
		return nil, err
	}
	file, err := f.Disk.Create(path)
	return faultyFile{file, f}, err
}

func (f *faulty) SyncDir(dir string) error { return errors.Join(f.fail(), f.Disk.SyncDir(dir)) }

type faultyFile struct {
	File
	f *faulty
}

func (f faultyFile) Write(b []byte) (int, error) {
	if err := f.f.fail(); err != nil {
		n, _ := f.File.Write(b[:f.f.random.IntN(len(b)+1)])
		return n, err
	}
	return f.File.Write(b)
}

func (f faultyFile) Sync() error { return errors.Join(f.f.fail(), f.File.Sync()) }

// Whatever write, sync or creation fails, an Append is there as a whole or not at all, and
// the next one succeeds when the disk does.
func TestFailingDisk(t *testing.T) {
	for seed := range uint64(30) {
		files := &faulty{random: rand.New(rand.NewPCG(seed, 1)), on: true}
		cfg := Config{Dir: t.TempDir(), SegmentSize: 4000, Files: files}
		j := reopen(t, cfg)
		var want []uint64
		for i := uint64(1); i <= 30; i++ {
			if j.Append(rec(i)) == nil {
				want = append(want, i)
			}
		}
		files.on = false
		if err := j.Append(rec(31)); err != nil {
			t.Fatalf("seed %d: after the disk was mended: %v", seed, err)
		}
		r := reopen(t, cfg)
		if r.err != nil || r.torn != nil || !slices.Equal(r.marks, append(want, 31)) {
			t.Fatalf("seed %d: %v, want %v and 31; torn %v, %v", seed, r.marks, want, r.torn, r.err)
		}
		if files.hits == 0 {
			t.Fatal("nothing failed")
		}
	}
}

// Any bytes may stand in a segment: Open says what is wrong, or gives what is right.
func FuzzOpen(f *testing.F) {
	head := appendSegmentHead(nil, 1)
	f.Add(head)
	one := rec(3)
	f.Add(append(appendHead(bytes.Clone(head), &one, true), one.Body...))
	f.Add([]byte("mstr-jn1 but nothing else"))
	f.Fuzz(func(t *testing.T, b []byte) {
		cfg := Config{Dir: t.TempDir()}
		if err := os.WriteFile(filepath.Join(cfg.Dir, "00000001.seg"), b, 0o644); err != nil {
			t.Fatal(err)
		}
		_, _, err := Open(cfg, func(Record, *Damage) error { return nil })
		if err != nil && !errors.As(err, new(*Damage)) {
			t.Fatal(err)
		}
	})
}
