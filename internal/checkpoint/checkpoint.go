// Package checkpoint writes and reads the state of a run at one step: weights, optimizer
// slots and what is needed to go on, in a folder that other programs can read.
//
//	step-00000100/
//	  state-000-of-004.safetensors   whole tensors, in the order of the model
//	  ...
//	  manifest.json                  written last: without it the folder is no checkpoint
//
// A tensor of the model lies under its own name, what the optimizer keeps for it under
// optimizer.0/NAME, optimizer.1/NAME and so on, all float32. The manifest names the files with
// their SHA-256. It holds no trace of the cluster that wrote it: the state may go to any
// number of servers, shards and trainers. There is no data cursor beside the step, because
// the order of samples is a function of the job's seed and the step.
//
// A folder is filled under another name and renamed when everything is on the disk, so one
// that is there is whole, or was damaged later, which its checksums tell.
package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/musterml/muster/internal/atomicfile"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/safetensors"
	"github.com/musterml/muster/trainer/nn"
)

const (
	// Format is the first thing a manifest says.
	Format = "muster checkpoint 1"
	// ManifestFile is the name of the manifest in its folder.
	ManifestFile = "manifest.json"

	manifestLimit = 64 << 20 // bytes
)

// Manifest says what a checkpoint holds.
type Manifest struct {
	Format  string    `json:"format"`
	Job     string    `json:"job"`      // its name
	Digest  string    `json:"digest"`   // of what makes the state what it is; see trainer.Job.StateDigest
	JobFile string    `json:"job_file"` // the effective job of the run that wrote it
	Run     string    `json:"run"`
	Step    id.Step   `json:"step"`    // the state is that after so many steps
	Samples uint64    `json:"samples"` // which those steps took from the data, in the order of the job's seed
	Model   string    `json:"model"`
	Params  int       `json:"params"`
	Slots   int       `json:"slots"` // vectors that the optimizer keeps beside the weights
	Time    time.Time `json:"time"`
	Version string    `json:"version"` // of muster
	Files   []File    `json:"files"`
	Tables  []File    `json:"tables,omitempty"` // sparse tables, in layers (package table): later ones go over earlier ones
}

// File is one file of a checkpoint.
type File struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// ErrBad is returned when a folder is no checkpoint, or is damaged.
var ErrBad = errors.New("bad checkpoint")

func bad(path, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %s", path, ErrBad, fmt.Sprintf(format, args...))
}

// Name is the folder of a step.
func Name(step id.Step) string { return fmt.Sprintf("step-%08d", uint64(step)) }

// State is a range of the flat vectors.
type State struct {
	W     []float32
	Slots [][]float32
}

func newState(n, slots int) State {
	s := State{W: make([]float32, n)}
	for range slots {
		s.Slots = append(s.Slots, make([]float32, n))
	}
	return s
}

// Write writes a checkpoint in the folder root and returns its path. read gives the state
// of the parameters [lo, hi); it is called for one file after the other, so that only
// that much is in memory. tables, if not nil, writes sparse tables into the folder that it is given. A checkpoint of
// the step that is there already and is whole stays.
func Write(root string, m Manifest, tensors []nn.Tensor, files int, tables func(dir string) ([]File, error), read func(lo, hi int) (State, error)) (path string, err error) {
	path = filepath.Join(root, Name(m.Step))
	if _, err := Read(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(root, "."+Name(m.Step)+"-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	if err := os.Chmod(temp, 0o755); err != nil {
		return "", err
	}
	m.Format, m.Files = Format, nil
	parts := divide(tensors, files)
	for i, part := range parts {
		lo, hi := part[0].Offset, part[len(part)-1].Offset+part[len(part)-1].Len()
		s, err := read(lo, hi)
		if err != nil {
			return "", err
		}
		f, err := writeFile(temp, fmt.Sprintf("state-%03d-of-%03d.safetensors", i, len(parts)), part, lo, s)
		if err != nil {
			return "", err
		}
		m.Files = append(m.Files, f)
	}
	m.Tables = nil
	if tables != nil {
		if m.Tables, err = tables(temp); err != nil {
			return "", err
		}
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return "", err
	}
	if err := atomicfile.WriteBytes(filepath.Join(temp, ManifestFile), append(b, '\n')); err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil { // damaged: it was read above
		if err := os.Rename(path, temp+".damaged"); err != nil {
			return "", err
		}
	}
	if err := os.Rename(temp, path); err != nil {
		return "", err
	}
	return path, syncDir(root)
}

// divide cuts the tensors, in their order, into at most n parts of about the same size.
func divide(tensors []nn.Tensor, n int) [][]nn.Tensor {
	total := 0
	for _, t := range tensors {
		total += t.Len()
	}
	var parts [][]nn.Tensor
	var part []nn.Tensor
	for i, t := range tensors {
		part = append(part, t)
		end := t.Offset + t.Len()
		if left := len(tensors) - 1 - i; left == 0 || end*n >= total*(len(parts)+1) && len(parts) < n-1 {
			parts = append(parts, part)
			part = nil
		}
	}
	return parts
}

func writeFile(dir, name string, tensors []nn.Tensor, lo int, s State) (File, error) {
	var out []safetensors.Tensor
	for _, t := range tensors {
		a, b := t.Offset-lo, t.Offset-lo+t.Len()
		out = append(out, safetensors.Tensor{Name: t.Name, Shape: t.Shape, Data: s.W[a:b]})
		for k, slot := range s.Slots {
			out = append(out, safetensors.Tensor{Name: slotName(k, t.Name), Shape: t.Shape, Data: slot[a:b]})
		}
	}
	h, size := sha256.New(), int64(0)
	err := atomicfile.Write(filepath.Join(dir, name), func(w io.Writer) error {
		return safetensors.Encode(io.MultiWriter(w, h, counter{&size}), out, map[string]string{"format": "muster"})
	})
	return File{name, size, hex.EncodeToString(h.Sum(nil))}, err
}

func slotName(k int, tensor string) string { return fmt.Sprintf("optimizer.%d/%s", k, tensor) }

type counter struct{ n *int64 }

func (c counter) Write(b []byte) (int, error) {
	*c.n += int64(len(b))
	return len(b), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Read reads a checkpoint's manifest and sees that its files are there, with their
// sizes; their content is checked by Load.
func Read(dir string) (*Manifest, error) {
	path := filepath.Join(dir, ManifestFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, bad(dir, "there is no such folder")
		}
		return nil, bad(dir, "it has no %s; it was never finished, or is another folder", ManifestFile)
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > manifestLimit {
		return nil, bad(path, "%d bytes are no manifest", info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m, err := parse(b)
	if err != nil {
		return nil, bad(path, "%v", err)
	}
	for _, f := range m.all() {
		info, err := os.Stat(filepath.Join(dir, f.Name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, bad(dir, "%s is missing", f.Name)
		case err != nil:
			return nil, err
		case info.Size() != f.Bytes:
			return nil, bad(dir, "%s has %d bytes, must have %d", f.Name, info.Size(), f.Bytes)
		}
	}
	return m, nil
}

// parse reads a manifest and refuses what could lead out of its folder or take memory
// that the model does not need.
func parse(b []byte) (*Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("it is no manifest: %w", err)
	}
	if m.Format != Format {
		return nil, fmt.Errorf("its format is %q, this version of muster reads %q", m.Format, Format)
	}
	if m.Params < 1 || m.Slots < 0 || len(m.Files) == 0 {
		return nil, fmt.Errorf("%d parameters, %d slots and %d files make no state", m.Params, m.Slots, len(m.Files))
	}
	for _, f := range m.all() {
		if f.Name == "" || f.Name != filepath.Base(f.Name) || strings.HasPrefix(f.Name, ".") {
			return nil, fmt.Errorf("%q cannot be one of its files", f.Name)
		}
	}
	return &m, nil
}

// Load reads the whole state and checks every byte of it. The tensors are those of the model.
func (m *Manifest) Load(dir string, tensors []nn.Tensor) (State, error) {
	s := newState(m.Params, m.Slots)
	where := map[string][]float32{}
	for _, t := range tensors {
		if t.Offset+t.Len() > m.Params {
			return State{}, bad(dir, "it has %d parameters, too few for the job's model", m.Params)
		}
		where[t.Name] = s.W[t.Offset : t.Offset+t.Len()]
		for k := range s.Slots {
			where[slotName(k, t.Name)] = s.Slots[k][t.Offset : t.Offset+t.Len()]
		}
	}
	for _, f := range m.Files {
		got, err := readFile(dir, f)
		if err != nil {
			return State{}, err
		}
		for _, t := range got.Tensors {
			to, ok := where[t.Name]
			if !ok || len(to) != len(t.Data) {
				return State{}, bad(dir, "%s holds the tensor %s of %d values, which is none of the job's model", f.Name, t.Name, len(t.Data))
			}
			copy(to, t.Data)
			delete(where, t.Name)
		}
	}
	for name := range where {
		return State{}, bad(dir, "the tensor %s is in none of its files", name)
	}
	return s, nil
}

func readFile(dir string, f File) (*safetensors.File, error) {
	file, err := os.Open(filepath.Join(dir, f.Name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	h := sha256.New()
	got, err := safetensors.Decode(io.TeeReader(file, h), f.Bytes)
	if _, copyErr := io.Copy(h, file); copyErr != nil {
		return nil, copyErr
	}
	if hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
		return nil, bad(dir, "the SHA-256 of %s is not that of its manifest: the file was damaged", f.Name)
	}
	if err != nil {
		return nil, bad(dir, "%s: %v", f.Name, err)
	}
	return got, nil
}

// all is every file.
func (m *Manifest) all() []File { return append(slices.Clone(m.Files), m.Tables...) }

func verifyFile(dir string, f File) error {
	file, err := os.Open(filepath.Join(dir, f.Name))
	if err != nil {
		return err
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return err
	}
	if hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
		return bad(dir, "the SHA-256 of %s is not that of its manifest: the file was damaged", f.Name)
	}
	return nil
}

// Verify reads all files and compares their checksums.
func (m *Manifest) Verify(dir string) error {
	for _, f := range m.Tables {
		if err := verifyFile(dir, f); err != nil {
			return err
		}
	}
	for _, f := range m.Files {
		if _, err := readFile(dir, f); err != nil {
			return err
		}
	}
	return nil
}

// Found is one folder of List.
type Found struct {
	Path string
	*Manifest
	Err error // why it is no good; the manifest is nil then
}

// List returns the checkpoints in a folder, the newest first. A folder that is not there
// has none.
func List(root string) ([]Found, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	var all []Found
	for _, e := range slices.Backward(entries) {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), "step-") {
			continue
		}
		f := Found{Path: filepath.Join(root, e.Name())}
		f.Manifest, f.Err = Read(f.Path)
		all = append(all, f)
	}
	return all, nil
}

// Newest returns the newest checkpoint of a job in a folder that is whole, and why
// newer ones are not; nil when there is none.
func Newest(root, digest string) (found *Found, faults []error, err error) {
	all, err := List(root)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range all {
		switch {
		case f.Err != nil:
			faults = append(faults, f.Err)
		case f.Digest != digest:
			faults = append(faults, fmt.Errorf("%s is of another job (%s, which has another model, data, batch, optimizer or seed); give the job it was made with, or another checkpoint.path", f.Path, f.Job))
		default:
			if err := f.Verify(f.Path); err != nil {
				faults = append(faults, err)
				continue
			}
			return &f, faults, nil
		}
	}
	return nil, faults, nil
}

// Prune removes all but the newest checkpoints of a job.
func Prune(root, digest string, keep int) error {
	all, err := List(root)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range all {
		if f.Err != nil || f.Digest != digest {
			continue
		}
		if keep--; keep < 0 {
			// The manifest first: what is left of a removal that is cut short is no checkpoint.
			errs = append(errs, os.Remove(filepath.Join(f.Path, ManifestFile)), os.RemoveAll(f.Path))
		}
	}
	return errors.Join(errs...)
}

// Key is the manifest's identity, to tell two checkpoints of one step apart.
func (m *Manifest) Key() []byte {
	h := sha256.New()
	for _, f := range m.all() {
		fmt.Fprintln(h, f.SHA256)
	}
	fmt.Fprintln(h, m.Digest, uint64(m.Step))
	return h.Sum(nil)[:8]
}
