package ps

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/musterml/muster/internal/floats"
)

// The side channel carries payloads between the replicas of a shard. It speaks in heads
// of 32 bytes, little-endian, some followed by a payload:
//
//	kind:u32 crc:u32 source:u64 seq:u64 length:u64
type frameKind uint32

const (
	frameOpen    frameKind = 1 + iota // a stream of the source's payloads begins here
	frameStore                        // a payload follows
	frameFetch                        // asks for a payload: answered by store or missing
	frameMissing                      // the payload asked for is not held
	frameApplied                      // asks how far the log is applied; answered in seq
	frameState                        // asks for the state after at least entry seq: answered by state and a snapshot, or missing
)

const frameSize = 32

type frame struct {
	kind   frameKind
	crc    uint32
	id     payloadID
	length uint64 // bytes
}

func (f frame) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(f.kind))
	b = binary.LittleEndian.AppendUint32(b, f.crc)
	b = binary.LittleEndian.AppendUint64(b, f.id.source)
	b = binary.LittleEndian.AppendUint64(b, f.id.seq)
	return binary.LittleEndian.AppendUint64(b, f.length)
}

func readFrame(r io.Reader, buf *[frameSize]byte) (frame, error) {
	if _, err := io.ReadFull(r, buf[:]); err != nil {
		return frame{}, err
	}
	le := binary.LittleEndian
	f := frame{
		kind:   frameKind(le.Uint32(buf[0:])),
		crc:    le.Uint32(buf[4:]),
		id:     payloadID{le.Uint64(buf[8:]), le.Uint64(buf[16:])},
		length: le.Uint64(buf[24:]),
	}
	if f.kind < frameOpen || f.kind > frameState {
		return f, fmt.Errorf("ps: side channel: unknown frame of kind %d", f.kind)
	}
	return f, nil
}

// slowest is the rate, in bytes per second, below which a transfer is given up.
const slowest = 10 << 20

// allowance is how long a transfer of n bytes may take when base may pass without any.
func allowance(base time.Duration, n int) time.Duration {
	return base + time.Duration(n)*time.Second/slowest
}

// receiveChunk is how much of a payload is read between two signs of progress.
const receiveChunk = 1 << 20

// receive reads the payload that a store frame announces and checks it: its length before
// any memory is taken, its checksum before anybody sees it.
func (t *payloads) receive(conn net.Conn, f frame, limit int, patience time.Duration) (*payload, error) {
	if f.length == 0 || f.length%4 != 0 || f.length > uint64(limit) {
		return nil, fmt.Errorf("ps: side channel: payload %v of %d bytes, the limit is %d", f.id, f.length, limit)
	}
	p := t.get(int(f.length / 4))
	p.id, p.crc = f.id, f.crc
	rest := floats.Bytes(p.data)
	for len(rest) > 0 {
		n := min(len(rest), receiveChunk)
		err := conn.SetReadDeadline(time.Now().Add(allowance(patience, n)))
		if err == nil {
			_, err = io.ReadFull(conn, rest[:n])
		}
		if err != nil {
			t.discard(p)
			return nil, err
		}
		t.moved()
		rest = rest[n:]
	}
	if floats.Checksum(0, p.data) != f.crc {
		t.discard(p)
		return nil, fmt.Errorf("ps: side channel: payload %v: checksum differs", f.id)
	}
	return p, conn.SetReadDeadline(time.Time{})
}

// payloadWriter sends heads and payloads on one connection without allocating.
type payloadWriter struct {
	head [frameSize]byte
	vec  [2][]byte
	bufs net.Buffers
}

func (w *payloadWriter) send(conn net.Conn, f frame, data []float32, patience time.Duration) error {
	if err := conn.SetWriteDeadline(time.Now().Add(allowance(patience, 4*len(data)))); err != nil {
		return err
	}
	w.vec[0] = f.append(w.head[:0])
	w.vec[1] = floats.Bytes(data)
	w.bufs = w.vec[:]
	if len(data) == 0 {
		w.bufs = w.vec[:1]
	}
	_, err := w.bufs.WriteTo(conn)
	return err
}

func (w *payloadWriter) store(conn net.Conn, p *payload, patience time.Duration) error {
	return w.send(conn, frame{frameStore, p.crc, p.id, uint64(p.size())}, p.data, patience)
}
