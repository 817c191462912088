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
	"testing"
)

func model() []Tensor {
	return []Tensor{
		{Name: "fc.weight", Shape: []int{2, 3}, Data: []float32{1, -2, 3.5, 0, float32(math.Inf(1)), 1e-42}},
		{Name: "conv.bias", Shape: []int{2}, Data: []float32{7, 8}},
		{Name: "step", Shape: []int{}, Data: []float32{3}},
		{Name: "empty", Shape: []int{0, 5}, Data: []float32{}},
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
	big := Tensor{Name: "big", Shape: []int{3, 100_000}, Data: make([]float32, 300_000)} // more than one buffer
	for i := range big.Data {
		big.Data[i] = float32(i)
	}
	keys := Tensor{Name: "z.keys", Shape: []int{50_000}, Keys: make([]uint64, 50_000)}
	for i := range keys.Keys {
		keys.Keys[i] = uint64(i) << 40
	}
	tensors := append(model(), big, keys, Tensor{Name: "no.keys", Shape: []int{0}, Keys: []uint64{}})
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
		"two names":   {{Name: "a", Shape: []int{1}, Data: one}, {Name: "a", Shape: []int{1}, Data: one}},
		"no name":     {{Name: "", Shape: []int{1}, Data: one}},
		"reserved":    {{Name: "__metadata__", Shape: []int{1}, Data: one}},
		"not UTF-8":   {{Name: "\xff", Shape: []int{1}, Data: one}},
		"wrong shape": {{Name: "a", Shape: []int{2}, Data: one}},
		"negative":    {{Name: "a", Shape: []int{-1, -1}, Data: one}},
		"overflow":    {{Name: "a", Shape: []int{math.MaxInt, math.MaxInt}, Data: one}},
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

func TestWriteFileNeedsItsFolder(t *testing.T) {
	err := WriteFile("no/such/folder/m", model(), nil)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "no/such/folder/m") {
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
