package proto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"
)

func frame(t testing.TB, m proto.Message) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := WriteMessage(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFrameRoundTrip(t *testing.T) {
	for name, m := range map[string]*Hello{
		"empty": {},
		"small": {WireVersion: 1, Node: "a", Topic: "x/y"},
		"large": {Job: bytes.Repeat([]byte{7}, 5*unproven+3)},
	} {
		t.Run(name, func(t *testing.T) {
			data := append(frame(t, m), "rest"...)
			r := bytes.NewReader(data)
			var got Hello
			// One byte per Read: the network may cut anywhere.
			if err := ReadMessage(iotest.OneByteReader(r), &got, len(data)); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(m, &got) {
				t.Errorf("got %v, want %v", &got, m)
			}
			if rest, _ := io.ReadAll(r); string(rest) != "rest" {
				t.Errorf("left %q behind the frame, want %q", rest, "rest")
			}
		})
	}
}

func TestFrameIsOneWrite(t *testing.T) {
	w := &countingWriter{}
	if err := WriteMessage(w, &Hello{Node: "a"}); err != nil || w.writes != 1 {
		t.Errorf("%d writes, error %v; want 1 write", w.writes, err)
	}
}

type countingWriter struct{ writes int }

func (w *countingWriter) Write(p []byte) (int, error) { w.writes++; return len(p), nil }

func TestFrameTooLong(t *testing.T) {
	data := frame(t, &Hello{Node: "abcdef"})
	limit := len(data) - headerSize
	if err := ReadMessage(bytes.NewReader(data), &Hello{}, limit); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	err := ReadMessage(bytes.NewReader(data), &Hello{}, limit-1)
	if !errors.Is(err, ErrFrameTooLong) {
		t.Fatalf("above the limit: %v, want ErrFrameTooLong", err)
	}
	if want := "frame too long: 8 bytes, the limit is 7"; err.Error() != want {
		t.Errorf("message %q, want %q", err, want)
	}
}

func TestFrameEnds(t *testing.T) {
	data := frame(t, &Hello{Node: "abcdef"})
	for cut := range data {
		want := io.ErrUnexpectedEOF
		if cut == 0 {
			want = io.EOF
		}
		if err := ReadMessage(bytes.NewReader(data[:cut]), &Hello{}, 100); !errors.Is(err, want) {
			t.Errorf("cut at %d: %v, want %v", cut, err, want)
		}
	}
}

// A length is a claim: only bytes that arrive may cost memory.
func TestFrameClaimCostsNothing(t *testing.T) {
	header := binary.LittleEndian.AppendUint32(nil, math.MaxUint32)
	sent := append(header, make([]byte, 1000)...)
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := ReadMessage(bytes.NewReader(sent), &Hello{}, math.MaxInt); !errors.Is(err, io.ErrUnexpectedEOF) {
				b.Fatal(err)
			}
		}
	})
	if got, limit := result.AllocedBytesPerOp(), int64(2*unproven); got > limit {
		t.Errorf("a claim of 4 GiB cost %d bytes, the limit is %d", got, limit)
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{255, 255, 255, 255, 1})
	f.Add([]byte{2, 0, 0, 0, 8, 1, 9})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(frame(f, &Hello{WireVersion: 1, Version: "v", Cluster: "c", Job: make([]byte, 32), Node: "n", Addr: "h:1", Topic: "t"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 1 << 16
		r := bytes.NewReader(data)
		var m Hello
		if err := ReadMessage(r, &m, limit); err != nil {
			return
		}
		size := int(binary.LittleEndian.Uint32(data))
		if size > limit || len(data)-r.Len() != headerSize+size {
			t.Fatalf("read %d bytes for a frame of %d", len(data)-r.Len(), headerSize+size)
		}
		var again Hello
		if err := ReadMessage(bytes.NewReader(frame(t, &m)), &again, math.MaxInt); err != nil || !proto.Equal(&m, &again) {
			t.Fatalf("second trip: %v (error %v), want %v", &again, err, &m)
		}
	})
}

func BenchmarkFrame(b *testing.B) {
	m := &Hello{WireVersion: 1, Node: "node-a", Topic: "shard-3/node-a/0123456789abcdef"}
	data := frame(b, m)
	b.ReportAllocs()
	for b.Loop() {
		var got Hello
		if err := ReadMessage(bytes.NewReader(data), &got, 1<<10); err != nil {
			b.Fatal(err)
		}
	}
}
