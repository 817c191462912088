package collective

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/musterml/muster/collective/vec"
)

// lane is one direction of memory that two ranks see: a ring of bytes with one writer and one reader, who never lock
// and never call the kernel. Frames lie in it as they would lie on a connection, and are reduced right out of it.
//
// Each side counts all the bytes that it has ever moved; the difference is what lies in between. Who finds nothing to
// do says so (dozes) before it goes to sleep, and the other side then rings, over the connection that every pair of
// ranks has besides (kindWake). Both look again after they have said it, so one of them always sees the other.
type lane struct {
	tail, head                 *atomic.Uint64 // bytes written; bytes read
	readerDozing, writerDozing *atomic.Uint32
	data                       []byte   // a power of two
	own                        uint64   // the own side's count
	segment                    *segment // what holds the memory
}

const (
	laneBytes = 512 << 10 // of each direction: fits the second-level cache together with what is copied
	lanePiece = 32 << 10  // what is written shows at least so often

	laneHeader = 256 // each of the four words of a lane has a cache line of its own
)

// passage is both directions of memory that two ranks see.
type passage struct{ in, out *lane }

// passageHeader: the dialing rank's token, and the accepting rank's proof that it has seen it.
const passageHeader = 4096

// passageBytes is how much memory two lanes of that size take.
func passageBytes(lane int) int { return passageHeader + 2*(laneHeader+lane) }

func newPassage(s *segment, dialer bool) *passage {
	size := (len(s.memory) - passageHeader) / 2
	a, b := newLane(s.memory[passageHeader:][:size], s), newLane(s.memory[passageHeader+size:], s)
	if dialer {
		return &passage{in: a, out: b}
	}
	return &passage{in: b, out: a}
}

func newLane(m []byte, s *segment) *lane {
	return &lane{
		tail: (*atomic.Uint64)(unsafe.Pointer(&m[0])), head: (*atomic.Uint64)(unsafe.Pointer(&m[64])),
		readerDozing: (*atomic.Uint32)(unsafe.Pointer(&m[128])), writerDozing: (*atomic.Uint32)(unsafe.Pointer(&m[192])),
		data: m[laneHeader:], segment: s,
	}
}

// write copies as much of p as there is room for.
func (n *lane) write(p []byte) int {
	size := uint64(len(n.data))
	room := int(size - (n.own - n.head.Load()))
	if room < 0 || room > len(n.data) { // the reader's fault; it will find out
		return 0
	}
	p = p[:min(len(p), room)]
	for rest := p; len(rest) > 0; {
		k := vec.Share(n.data[n.own&(size-1):], rest[:min(len(rest), lanePiece)])
		rest = rest[k:]
		n.own += uint64(k)
		n.tail.Store(n.own)
	}
	return len(p)
}

// view is what can be read in one piece; empty where nothing has come.
func (n *lane) view() ([]byte, error) {
	size := uint64(len(n.data))
	have := n.tail.Load() - n.own
	if have > size {
		return nil, fmt.Errorf("%w: %d bytes in a lane of %d", ErrProtocol, have, size)
	}
	at := n.own & (size - 1)
	return n.data[at:min(at+have, size)], nil
}

func (n *lane) consume(k int) {
	n.own += uint64(k)
	n.head.Store(n.own)
}

func (n *lane) empty() bool { return n.tail.Load() == n.own }

// doze says that the reader will sleep; false: it must not, for something has come.
func (n *lane) doze() bool {
	n.readerDozing.Store(1)
	if n.empty() {
		return true
	}
	n.readerDozing.Store(0)
	return false
}

// stuck says that the writer will sleep; false: it must not, for there is room.
func (n *lane) stuck() bool {
	n.writerDozing.Store(1)
	if n.own-n.head.Load() > uint64(len(n.data))/2 {
		return true
	}
	n.writerDozing.Store(0)
	return false
}

// callReader says, once, that the reader sleeps and must be rung for; callWriter likewise of a writer that has room.
func (n *lane) callReader() bool {
	return n.readerDozing.Load() != 0 && n.readerDozing.CompareAndSwap(1, 0)
}

func (n *lane) callWriter() bool {
	return n.writerDozing.Load() != 0 && n.tail.Load()-n.own <= uint64(len(n.data))/2 && n.writerDozing.CompareAndSwap(1, 0)
}
