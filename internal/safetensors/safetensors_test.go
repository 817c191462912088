package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

func model() []Tensor {
	return []Tensor{
		{"fc.weight", []int{2, 3}, []float32{1, -2, 3.5, 0, float32(math.Inf(1)), 1e-42}},
		{"conv.bias", []int{2}, []float32{7, 8}},
		{"step", []int{}, []float32{3}},
		{"empty", []int{0, 5}, []float32{}},
	}
}

func encode(t *testing.T, tensors []Tensor, metadata map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Encode(&b, tensors, metadata); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	big := Tensor{"big", []int{3, 100_000}, make([]float32, 300_000)} // more than one buffer
	for i := range big.Data {
		big.Data[i] = float32(i)
	}
	tensors := append(model(), big)
	metadata := map[string]string{"format": "muster", "a<b&": "ü \" \\ \n"}
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := WriteFile(path, tensors, metadata); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Metadata, metadata) {
		t.Errorf("metadata %v", got.Metadata)
	}
	if len(got.Tensors) != len(tensors) {
		t.Fatalf("%d tensors", len(got.Tensors))
	}
	for _, want := range tensors {
		if found, ok := got.Tensor(want.Name); !ok || !reflect.DeepEqual(found, want) {
			t.Errorf("tensor %q is not what was written", want.Name)
		}
	}
	if _, ok := got.Tensor("nosuch"); ok {
		t.Error("a tensor that was not written")
	}
}

func TestEqualContentGivesEqualBytes(t *testing.T) {
	metadata := map[string]string{"z": "1", "a": "2", "m": "3"}
	want := encode(t, model(), metadata)
	for range 20 { // Go's maps have another order each time
		m := model()
		m[0], m[1], m[2] = m[2], m[0], m[1]
		if !bytes.Equal(encode(t, m, metadata), want) {
			t.Fatal("other bytes")
		}
	}
	const header = `{"__metadata__":{"a":"2","m":"3","z":"1"},` +
		`"conv.bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},` +
		`"empty":{"dtype":"F32","shape":[0,5],"data_offsets":[8,8]},` +
		`"fc.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]},` +
		`"step":{"dtype":"F32","shape":[],"data_offsets":[32,36]}}`
	n := binary.LittleEndian.Uint64(want)
	if n%8 != 0 || strings.TrimRight(string(want[8:8+n]), " ") != header {
		t.Errorf("header of %d bytes: %s", n, want[8:8+n])
	}
}

func TestEncodeRefuses(t *testing.T) {
	one := []float32{1}
	for name, tensors := range map[string][]Tensor{
		"two names":   {{"a", []int{1}, one}, {"a", []int{1}, one}},
		"no name":     {{"", []int{1}, one}},
		"reserved":    {{"__metadata__", []int{1}, one}},
		"not UTF-8":   {{"\xff", []int{1}, one}},
		"wrong shape": {{"a", []int{2}, one}},
		"negative":    {{"a", []int{-1, -1}, one}},
		"overflow":    {{"a", []int{math.MaxInt, math.MaxInt}, one}},
	} {
		if err := Encode(&bytes.Buffer{}, tensors, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Encode(&bytes.Buffer{}, nil, map[string]string{"a": "\xff"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("metadata that is not UTF-8: %v", err)
	}
}

// raw makes a file of any header and so many zero bytes of data.
func raw(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

func TestReadRefuses(t *testing.T) {
	tensor := func(name, shape, offsets string) string {
		return fmt.Sprintf(`%q:{"dtype":"F32","shape":%s,"data_offsets":%s}`, name, shape, offsets)
	}
	good := encode(t, model(), nil)
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "too few"},
		{"truncated data", good[:len(good)-1], "promises 36 bytes of data, the file holds 35: it is truncated"},
		{"truncated header", good[:40], "truncated"},
		{"more data", append(bytes.Clone(good), 0), "it is damaged"},
		{"a zip file", []byte("PK\x03\x04\x14\x00\x00\x00\x08\x00abc"), "another format"},
		{"huge header", append([]byte{0, 0, 0, 0, 0, 0, 0, 128}, make([]byte, 99)...), "9223372036854775808 bytes is announced, at most"},
		{"no brace", raw(` {}`, 0), "brace"},
		{"no JSON", raw(`{"a"`, 0), "JSON"},
		{"goes on", raw(`{} {}`, 0), "goes on"},
		{"element type", raw(`{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}`, 4), `"a" has the element type "BF16"`},
		{"unknown field", raw(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}`, 4), "unknown field"},
		{"twice", raw("{"+tensor("a", "[1]", "[0,4]")+","+tensor("a", "[1]", "[4,8]")+"}", 8), "twice"},
		{"overlap", raw("{"+tensor("a", "[2]", "[0,8]")+","+tensor("b", "[2]", "[4,12]")+"}", 12), `"a" and "b" overlap`},
		{"hole", raw("{"+tensor("a", "[1]", "[0,4]")+","+tensor("b", "[1]", "[8,12]")+"}", 12), "4 to 8 of the data belong to no tensor"},
		{"offsets", raw("{"+tensor("a", "[2]", "[0,4]")+"}", 4), "needs 8 bytes"},
		{"backwards", raw("{"+tensor("a", "[0]", "[4,0]")+"}", 4), "offsets are 4 to 0"},
		{"three offsets", raw("{"+tensor("a", "[1]", "[0,4,4]")+"}", 4), "3 numbers"},
		{"no shape", raw("{"+tensor("a", "null", "[0,4]")+"}", 4), "absurd shape"},
		{"absurd shape", raw("{"+tensor("a", "[2147483647,2147483647]", "[0,0]")+"}", 0), "absurd shape"},
		{"absurd size", raw("{"+tensor("a", "[1048576,1048576]", "[0,4398046511104]")+"}", 4), "promises 4398046511104 bytes"},
		{"metadata", raw(`{"__metadata__":{"a":1}}`, 0), "map of strings"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m")
			if err := os.WriteFile(path, c.file, 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := ReadFile(path)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if _, err := ReadFile("no/such/file"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := ReadFile(t.TempDir()); err == nil {
		t.Error("a folder was read")
	}
}

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
func TestWriteFileIsAtomic(t *testing.T) {
	older := encode(t, model()[:1], nil)
	tensors := append(model(), Tensor{"big", []int{600_000}, make([]float32, 600_000)}) // several writes
	newer := encode(t, tensors, nil)
	for operations := 0; ; operations++ {
		dir := t.TempDir()
		path := filepath.Join(dir, "model.safetensors")
		if err := os.WriteFile(path, older, 0o644); err != nil {
			t.Fatal(err)
		}
		left := operations
		err := writeFile(faulty{left: &left, err: syscall.ENOSPC}, path, tensors, nil)
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

func TestWriteFileNeedsItsFolder(t *testing.T) {
	err := WriteFile("no/such/folder/m", model(), nil)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "writing a model to no/such/folder/m") {
		t.Error(err)
	}
}

// Another program must read what we write. struct and json are all it takes.
func TestPythonReadsIt(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here to read the file with")
	}
	path := filepath.Join(t.TempDir(), "m")
	if err := WriteFile(path, model(), map[string]string{"k": "v"}); err != nil {
		t.Fatal(err)
	}
	const script = `
import json, struct, sys
b = open(sys.argv[1], 'rb').read()
n, = struct.unpack('<Q', b[:8])
h = json.loads(b[8:8+n])
print(h.pop('__metadata__'), 8 + n & 7)
for name, t in h.items():
    lo, hi = t['data_offsets']
    print(name, t['dtype'], t['shape'], struct.unpack('<%df' % ((hi-lo)//4), b[8+n+lo:8+n+hi]))
`
	out, err := exec.Command(python, "-c", script, path).CombinedOutput()
	want := `{'k': 'v'} 0
conv.bias F32 [2] (7.0, 8.0)
empty F32 [0, 5] ()
fc.weight F32 [2, 3] (1.0, -2.0, 3.5, 0.0, inf, 1.0005271035279194e-42)
step F32 [] (3.0,)
`
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s", err, out)
	}
}

func FuzzDecode(f *testing.F) {
	var b bytes.Buffer
	if err := Encode(&b, model(), map[string]string{"k": "v"}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(raw(`{}`, 0))
	f.Add(raw(`{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}`, 4))
	f.Add(raw(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}`, 8))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 128, '{', '}'})
	f.Fuzz(func(t *testing.T, in []byte) {
		file, err := Decode(bytes.NewReader(in), int64(len(in)))
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%v is not ErrInvalid", err)
			}
			return
		}
		// What can be read can be written, and reads the same, unless a name is one
		// that we would not write.
		var out bytes.Buffer
		if err := Encode(&out, file.Tensors, file.Metadata); err != nil {
			return
		}
		again, err := Decode(bytes.NewReader(out.Bytes()), int64(out.Len()))
		if err != nil || len(again.Tensors) != len(file.Tensors) || len(again.Metadata) != len(file.Metadata) {
			t.Fatalf("%v", err)
		}
		for i, a := range again.Tensors {
			b := file.Tensors[i]
			if a.Name != b.Name || fmt.Sprint(a.Shape) != fmt.Sprint(b.Shape) || len(a.Data) != len(b.Data) {
				t.Fatalf("%v and %v", a, b)
			}
			for j := range a.Data {
				if math.Float32bits(a.Data[j]) != math.Float32bits(b.Data[j]) {
					t.Fatalf("%v and %v", a, b)
				}
			}
		}
	})
}
