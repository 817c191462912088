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
// of 32 bytes, little-endian, some followed by a payload or a part of one:
//
//	kind:u32 crc:u32 source:u64 seq:u64 length:u64
type frameKind uint32

const (
	frameOpen    frameKind = 1 + iota // a stream of the source's payloads begins here
	frameBegin                        // on it, a payload of that length begins, whose parts will come
	framePart                         // so many bytes follow, the next of a payload that has begun
	frameEnd                          // the payload is whole, with this checksum
	frameDrop                         // no more of the payload will come
	frameStore                        // a payload follows: the answer to fetch
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

// allowance is how long the kernel may take to accept n bytes: patience for each piece of them.
func allowance(patience time.Duration, n int) time.Duration {
	return patience * time.Duration(1+n/pieceBytes)
}

// checkLength refuses what no payload of the shard can have, before any memory is taken for it.
func checkLength(f frame, limit int) error {
	if f.length == 0 || f.length%4 != 0 || f.length > uint64(limit) {
		return fmt.Errorf("ps: side channel: payload %v of %d bytes, the limit is %d", f.id, f.length, limit)
	}
	return nil
}

// receive reads the payload that a store frame announces and checks it before anybody sees it.
func (t *payloads) receive(conn net.Conn, f frame, limit int, patience time.Duration) (*payload, error) {
	if err := checkLength(f, limit); err != nil {
		return nil, err
	}
	p := t.get(int(f.length / 4))
	p.id = f.id
	err := t.fill(conn, p, int(f.length), patience)
	if err == nil && p.crc != f.crc {
		err = fmt.Errorf("ps: side channel: payload %v: %w", f.id, errChecksum)
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		t.discard(p)
		return nil, err
	}
	return p, nil
}

// fill reads the next n bytes of a payload that nobody else knows of, and adds them to its checksum.
func (t *payloads) fill(conn net.Conn, p *payload, n int, patience time.Duration) error {
	part := floats.Bytes(p.data)[p.filled : p.filled+n]
	in := intake{crc: p.crc}
	for len(part) > 0 {
		n := min(len(part), pieceBytes)
		if err := in.read(conn, part[:n], patience); err != nil {
			return err
		}
		t.moved()
		part = part[n:]
		p.filled, p.crc = p.filled+n, in.crc
	}
	return nil
}

// payloadWriter sends heads and payloads on one connection without allocating.
type payloadWriter struct {
	heads [3 * frameSize]byte
	vec   [3][]byte
	bufs  net.Buffers
}

func (w *payloadWriter) write(conn net.Conn, bufs ...[]byte) error {
	w.bufs = bufs
	_, err := w.bufs.WriteTo(conn)
	return err
}

// send writes one head, and the data behind it if there is any.
func (w *payloadWriter) send(conn net.Conn, f frame, data []float32, patience time.Duration) error {
	if err := conn.SetWriteDeadline(time.Now().Add(allowance(patience, 4*len(data)))); err != nil {
		return err
	}
	w.vec[0], w.vec[1] = f.append(w.heads[:0]), floats.Bytes(data)
	return w.write(conn, w.vec[:1+min(1, len(data))]...)
}

func (w *payloadWriter) store(conn net.Conn, p *payload, patience time.Duration) error {
	return w.send(conn, frame{frameStore, p.crc, p.id, uint64(p.size())}, p.data, patience)
}

// chunk writes some of a payload in one go, with what begins and ends it.
func (w *payloadWriter) chunk(conn net.Conn, t chunk, patience time.Duration) error {
	if err := conn.SetWriteDeadline(time.Now().Add(allowance(patience, t.to-t.from))); err != nil {
		return err
	}
	p, heads, bufs := t.p, w.heads[:0], w.vec[:0]
	if t.begin {
		heads = frame{frameBegin, 0, p.id, uint64(p.size())}.append(heads)
	}
	if t.from < t.to {
		heads = frame{framePart, 0, p.id, uint64(t.to - t.from)}.append(heads)
		bufs = append(bufs, heads, floats.Bytes(p.data)[t.from:t.to])
		heads = heads[len(heads):]
	}
	switch t.growth {
	case whole:
		heads = frame{frameEnd, t.crc, p.id, 0}.append(heads)
	case failed:
		heads = frame{kind: frameDrop, id: p.id}.append(heads)
	}
	if len(heads) > 0 {
		bufs = append(bufs, heads)
	}
	return w.write(conn, bufs...)
}
