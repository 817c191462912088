package collective

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func sampleHeader() header {
	return header{
		kind: kindData, phase: phaseGather, hop: 3, run: 1 << 63, view: 9, step: 1 << 40, bucket: 7, length: 64,
		offset: 1 << 35, seq: 11, rank: 5, verb: verbBarrier, reduce: MaxInt32, digest: 0xdeadbeef,
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	want := sampleHeader()
	var b [headerSize]byte
	want.put(&b)
	var got header
	if err := got.parse(&b); err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestNoticeRoundTrip(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, n := range []notice{{}, {"a", "b", "c"}, {"a", "", long}, {"n", "m", "peer m, idle, after 500ms: no sign of life"}} {
		b := n.encode()
		got, err := decodeNotice(b)
		if len(n.reason) > 2000 {
			n.reason = n.reason[:len(got.reason)]
		}
		if err != nil || got != n || len(b) > maxNotice {
			t.Errorf("%+v became %+v, %v", n, got, err)
		}
	}
}

func FuzzHeader(f *testing.F) {
	var b [headerSize]byte
	h := sampleHeader()
	h.put(&b)
	f.Add(b[:])
	f.Fuzz(func(t *testing.T, in []byte) {
		var b, again [headerSize]byte
		copy(b[:], in)
		var h header
		if h.parse(&b) != nil {
			return
		}
		if h.length > maxChunkBytes || h.kind != kindData && h.kind != kindWhole && h.length > maxNotice || h.kind == kindWhole && h.length > maxWholeBytes {
			t.Fatalf("lets through %d bytes", h.length)
		}
		if h.put(&again); again != b {
			t.Fatal("another frame when written again")
		}
	})
}

func FuzzNotice(f *testing.F) {
	f.Add(notice{"a", "b", "c"}.encode())
	f.Fuzz(func(t *testing.T, in []byte) {
		if n, err := decodeNotice(in); err == nil && len(in) <= maxNotice {
			if _, err := decodeNotice(n.encode()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzStream feeds a ring with what a broken peer may send, at both ends: it must fail, not crash, not hang.
func FuzzStream(f *testing.F) {
	frame := func(h header) []byte {
		var b [headerSize]byte
		h.run, h.view = hashRun("test"), 7
		h.put(&b)
		return b[:]
	}
	data := frame(header{kind: kindData, phase: phaseReduce, seq: 1, rank: 1, length: 20, offset: 5})
	call := frame(header{kind: kindCall, seq: 1, rank: 1, verb: verbAllReduce, reduce: SumInt32, offset: 10, digest: hashBounds(nil)})
	f.Add(append(data, make([]byte, 20)...), call)
	f.Add(frame(header{kind: kindAbort, rank: 1, length: 6}), frame(header{kind: kindBye, rank: 1}))
	whole := frame(header{kind: kindWhole, hop: 1, seq: 1, rank: 1, verb: verbAllReduce, reduce: SumInt32, offset: 10, length: 40, digest: hashBounds(nil)})
	f.Add(append(whole, make([]byte, 40)...), whole)
	f.Fuzz(func(t *testing.T, toPrev, toNext []byte) {
		synctest.Test(t, func(t *testing.T) {
			kind := waited
			if len(toNext)%3 == 0 {
				kind = striped
			}
			m := newMemNet(10_000).by(way{len(toPrev)%2 == 0, kind})
			rings := joinAll(t, 2, func(rank int) Config { return m.config(rank, 2) })
			done := make(chan struct{})
			go func() {
				_ = rings[0].AllReduce(bg, Op{}, Int32s(make([]int32, 10)), SumInt32)
				close(done)
			}()
			synctest.Wait()
			_, _ = m.wire("n1", "n0", len(toPrev)).Write(toPrev)
			next := m.wire("n0", "n1", 0).in
			next.change(func() { next.buf = append(next.buf, toNext...) })
			time.AfterFunc(time.Second, func() { rings[1].Abort(errBoom) })
			<-done
			closeAll(rings)
		})
	})
}
