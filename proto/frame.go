package proto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"google.golang.org/protobuf/proto"
)

// ErrFrameTooLong is returned when a frame is longer than its reader, or the
// format itself, allows. The message around it names length and limit.
var ErrFrameTooLong = errors.New("frame too long")

const (
	// headerSize is the frame's length field: 4 bytes, little-endian, counting
	// the message alone.
	headerSize = 4
	// unproven is how many bytes of a message ReadMessage makes room for before
	// any of them has arrived: a length costs its sender nothing, memory does.
	unproven = 64 << 10
)

// WriteMessage writes m as one frame in a single Write, so that on a plain TCP
// connection a small message is one segment.
func WriteMessage(w io.Writer, m proto.Message) error {
	frame, err := AppendMessage(nil, m)
	if err != nil {
		return err
	}
	_, err = w.Write(frame)
	return err
}

// AppendMessage appends m to buf as one frame, for writers that reuse a buffer
// or send something before or after it in the same Write.
func AppendMessage(buf []byte, m proto.Message) ([]byte, error) {
	start := len(buf)
	buf = append(buf, make([]byte, headerSize)...)
	buf, err := proto.MarshalOptions{}.MarshalAppend(buf, m)
	if err != nil {
		return nil, fmt.Errorf("frame of %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	size := len(buf) - start - headerSize
	if uint64(size) > math.MaxUint32 {
		return nil, fmt.Errorf("%w: %d bytes of %s, the limit is %d",
			ErrFrameTooLong, size, m.ProtoReflect().Descriptor().FullName(), uint32(math.MaxUint32))
	}
	binary.LittleEndian.PutUint32(buf[start:], uint32(size))
	return buf, nil
}

// ReadMessage reads exactly one frame of at most max bytes into m and not a
// byte more, so that r can be used for something else afterwards.
//
// It returns io.EOF when r ends before the frame begins, io.ErrUnexpectedEOF
// when it ends inside it, and ErrFrameTooLong, with nothing but the header
// read, when the length is above max. Its memory grows with what has arrived,
// never with the announced length.
func ReadMessage(r io.Reader, m proto.Message, max int) error {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return err
	}
	size := binary.LittleEndian.Uint32(header[:])
	if int64(size) > int64(max) {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrFrameTooLong, size, max)
	}
	body, err := readProven(r, int(size))
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(body, m); err != nil {
		return fmt.Errorf("frame of %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return nil
}

// readProven reads size bytes. The buffer at most doubles per step, plus
// unproven, so a peer that announces much and sends little costs little.
func readProven(r io.Reader, size int) ([]byte, error) {
	body := make([]byte, 0, min(size, unproven))
	for len(body) < size {
		if len(body) == cap(body) {
			grown := make([]byte, len(body), min(size, 2*len(body)+unproven))
			copy(grown, body)
			body = grown
		}
		n, err := io.ReadFull(r, body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return body, nil
}
