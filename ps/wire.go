package ps

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net"
	"time"

	"github.com/musterml/muster/internal/floats"
)

// Between client and server a payload, if there is any, is followed by its CRC-32C, little-endian, so that both sides take it while
// the bytes pass: a piece is read or written while it is in the processor's cache for the sake of its checksum, or the
// other way round.

// piece is how much is moved at a time, and between two signs of progress.
const pieceBytes = 256 << 10

var errChecksum = errors.New("the checksum differs")

// gather writes a head and what lies in several places behind it, without copying it together and without
// allocating once it has been used.
type gather struct {
	parts     [][]byte
	size      int         // bytes of parts
	vec, keep net.Buffers // keep is vec's memory: writing consumes vec
	tail      [4]byte
}

func (g *gather) reset() {
	clear(g.parts)
	g.parts, g.size = g.parts[:0], 0
}

func (g *gather) add(b []byte) {
	g.parts = append(g.parts, b)
	g.size += len(b)
}

// writeTo sends the head and, if there is anything in the parts, these and their checksum. It fails when a piece of them
// takes longer than patience.
func (g *gather) writeTo(conn net.Conn, head []byte, patience time.Duration) error {
	g.keep = append(g.keep[:0], head)
	crc, room := uint32(0), pieceBytes
	for _, p := range g.parts {
		for len(p) > 0 {
			n := min(len(p), room)
			crc = crc32.Update(crc, floats.Castagnoli, p[:n])
			g.keep = append(g.keep, p[:n])
			p, room = p[n:], room-n
			if room > 0 {
				continue
			}
			if err := g.flush(conn, patience); err != nil {
				return err
			}
			room = pieceBytes
		}
	}
	if g.size > 0 {
		binary.LittleEndian.PutUint32(g.tail[:], crc)
		g.keep = append(g.keep, g.tail[:])
	}
	return g.flush(conn, patience)
}

func (g *gather) flush(conn net.Conn, patience time.Duration) error {
	if err := conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	g.vec = g.keep
	_, err := g.vec.WriteTo(conn)
	clear(g.keep)
	g.keep = g.keep[:0]
	return err
}

// intake reads what a gather has sent.
type intake struct {
	crc  uint32
	tail [4]byte
}

// read fills the next part, a piece at a time, and adds it to the checksum. It fails when nothing comes for patience.
func (in *intake) read(conn net.Conn, part []byte, patience time.Duration) error {
	for len(part) > 0 {
		n := min(len(part), pieceBytes)
		if err := readSteadily(conn, part[:n], patience); err != nil {
			return err
		}
		in.crc = crc32.Update(in.crc, floats.Castagnoli, part[:n])
		part = part[n:]
	}
	return nil
}

// end reads the checksum behind the last part.
func (in *intake) end(conn net.Conn, patience time.Duration) error {
	if err := readSteadily(conn, in.tail[:], patience); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(in.tail[:]) != in.crc {
		return errChecksum
	}
	return nil
}

// readSteadily fills b, which may take any time as long as some bytes come within each patience.
func readSteadily(conn net.Conn, b []byte, patience time.Duration) error {
	in := impatient{conn, patience} // not by io.ReadFull, which would have it allocated
	for len(b) > 0 {
		n, err := in.Read(b)
		if b = b[n:]; err != nil && len(b) > 0 {
			return err
		}
	}
	return nil
}
