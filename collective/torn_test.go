package collective

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/musterml/muster/internal/id"
)

// puppet is a rank played by hand, over TCP, beside one real ring in a world of two.
type puppet struct {
	t          *testing.T
	cfg        Config
	prev, next net.Conn
}

func (p *puppet) send(c net.Conn, h header) {
	p.t.Helper()
	h.run, h.view, h.rank = hashRun(p.cfg.Run), p.cfg.View, uint16(p.cfg.Rank)
	var b [headerSize]byte
	h.put(&b)
	if _, err := c.Write(b[:]); err != nil {
		p.t.Fatal(err)
	}
}

func (p *puppet) read(c net.Conn) (h header, payload []byte) {
	p.t.Helper()
	var b [headerSize]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		p.t.Fatal(err)
	}
	if err := h.parse(&b); err != nil {
		p.t.Fatal(err)
	}
	payload = make([]byte, h.length)
	if _, err := io.ReadFull(c, payload); err != nil {
		p.t.Fatal(err)
	}
	return h, payload
}

func joinPuppet(t *testing.T) (*Ring, *puppet) {
	configs := tcpConfigs(t, 2)
	joined := make(chan *Ring)
	go func() {
		cfg := configs(0)
		cfg.ChunkBytes = maxChunkBytes // in one round more than sockets hold
		r, err := Join(bg, cfg)
		if err != nil {
			t.Error(err)
		}
		joined <- r
	}()
	p := &puppet{t: t, cfg: configs(1)}
	hello := header{kind: kindHello, step: id.Step(defaultSmallBytes(2)), bucket: wireVersion, verb: 1, seq: 2, offset: maxChunkBytes, digest: hashPeers(p.cfg.Peers)}
	ready := hello
	ready.kind = kindReady
	var err error
	if p.prev, err = p.cfg.Accept(bg); err != nil {
		t.Fatal(err)
	}
	p.read(p.prev)
	p.send(p.prev, hello)
	p.read(p.prev)
	if p.next, err = p.cfg.Dial(bg, p.cfg.Peers[0]); err != nil {
		t.Fatal(err)
	}
	p.send(p.next, hello)
	p.read(p.next)
	p.send(p.next, ready)
	t.Cleanup(func() { _ = p.prev.Close(); _ = p.next.Close() })
	return <-joined, p
}

// An abort interrupts a send to a rank that does not read. The caller has its memory back at once, and may overwrite
// it; the frame is ended with what it was to hold, and the abort follows it.
func TestAbortInTheMiddleOfAFrame(t *testing.T) {
	r, p := joinPuppet(t)
	const n = 32 << 20 / elemSize // more than sockets hold
	x := make([]int32, n)
	for i := range x {
		x[i] = int32(i)
	}
	returned := make(chan error)
	go func() {
		err := r.AllReduce(bg, Op{Step: 5}, Int32s(x), SumInt32)
		clear(x)
		returned <- err
	}()
	p.send(p.prev, header{kind: kindCall, seq: 1, step: 5, verb: verbAllReduce, reduce: SumInt32, offset: n, digest: hashBounds(nil)})
	for last := r.Sent(); ; last = r.Sent() { // until the sockets are full
		<-time.After(50 * time.Millisecond)
		if r.Sent() == last && last > 0 {
			break
		}
	}
	aborted := make(chan struct{})
	go func() {
		r.Abort(errBoom)
		close(aborted)
	}()
	if err := <-returned; !errors.Is(err, errBoom) {
		t.Fatal(err)
	}
	expect := n / 2 // rank 0 begins with segment 1
	for {
		h, payload := p.read(p.prev)
		if h.kind == kindBeat {
			continue
		}
		if h.kind == kindAbort {
			if n, err := decodeNotice(payload); err != nil || n.origin != "n0" || n.reason != "boom" {
				t.Errorf("%+v, %v", n, err)
			}
			break
		}
		if h.kind != kindData || h.offset != uint64(expect) {
			t.Fatalf("%v at %d, want data at %d", h.kind, h.offset, expect)
		}
		for ; len(payload) > 0; payload = payload[elemSize:] {
			if got := binary.LittleEndian.Uint32(payload); got != uint32(expect) {
				t.Fatalf("element %d is %d", expect, got)
			}
			expect++
		}
	}
	p.send(p.prev, header{kind: kindBye})
	p.send(p.next, header{kind: kindBye})
	<-aborted
}
