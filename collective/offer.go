package collective

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"net"
	"sync"

	"github.com/musterml/muster/internal/pacing"
)

// How two ranks find that they see the same memory. The dialing rank makes some and says in its hello where it is: on
// which host, in which process, under which file descriptor (offer_linux.go). The accepting rank, if that is its own
// host, opens it through /proc, and looks for the token that the hello named; so it has seen the memory itself, however
// hosts, containers and their names are arranged. It writes the token turned round beside it, and the dialing rank looks
// for that. Where anything is not so, both go on without a lane. The memory has no name in any file system: it is gone
// with the last process that has it.
//
// Rejected: files in /dev/shm, which outlive a process that is killed at the wrong moment, and of which a container
// has 64 MB; reading the peer's memory directly (process_vm_readv), which saves a copy but which the kernel refuses
// between processes that are not parent and child, unless they allow it to everybody.

// Locals lets the rings of one process find each other, when they are all given the same one: their lanes are then plain
// memory, on any operating system. The zero value is ready.
type Locals struct {
	mu      sync.Mutex
	offered map[[tokenBytes]byte]*segment
}

// segment is memory that two ranks see.
type segment struct {
	memory []byte
	fd     int  // to be opened by the peer; -1: only through Locals
	local  bool // both ranks are in this process
}

const (
	tokenBytes = 16
	maxOffer   = 8 + 4 + 4 + tokenBytes
)

// offer is what a hello carries.
type offer struct {
	host    uint64 // and process namespace
	pid, fd uint32
	token   [tokenBytes]byte
	segment *segment // the dialing rank's own
}

func (o *offer) encode() []byte {
	b := make([]byte, 0, maxOffer)
	b = binary.LittleEndian.AppendUint64(b, o.host)
	b = binary.LittleEndian.AppendUint32(b, o.pid)
	b = binary.LittleEndian.AppendUint32(b, o.fd)
	return append(b, o.token[:]...)
}

func decodeOffer(b []byte) (o offer, ok bool) {
	if len(b) != maxOffer {
		return offer{}, false
	}
	o.host = binary.LittleEndian.Uint64(b)
	o.pid, o.fd = binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	copy(o.token[:], b[16:])
	return o, true
}

// makeOffer is nil where the peer cannot see this process' memory.
func (r *Ring) makeOffer(conn net.Conn) *offer {
	c := pacing.TCP(conn)
	near := c != nil && pacing.Within(c)
	if r.cfg.NoLanes || !near && r.cfg.Locals == nil {
		return nil
	}
	s, err := newSegment(passageBytes(r.cfg.laneBytes), near)
	if err != nil {
		r.cfg.Log.Debug().Err(err).Msg("ring: no shared memory")
		return nil
	}
	o := &offer{segment: s, host: hostIdentity(), pid: processID(), fd: uint32(s.fd)}
	_, _ = rand.Read(o.token[:]) // never fails
	copy(s.memory, o.token[:])
	r.cfg.Locals.put(o.token, s)
	return o
}

// seal ends an offer: taken says what the peer has answered.
func (r *Ring) seal(l *link, o *offer, taken bool) {
	r.cfg.Locals.take(o.token)
	o.segment.close()
	if taken && bytes.Equal(o.segment.memory[tokenBytes:2*tokenBytes], turned(o.token)) {
		l.addLane(newPassage(o.segment, true), r.header(kindWake))
	}
}

// takeOffer is the other side.
func (r *Ring) takeOffer(l *link, text []byte) (taken bool) {
	o, ok := decodeOffer(text)
	if !ok || r.cfg.NoLanes {
		return false
	}
	s := r.cfg.Locals.take(o.token)
	if s != nil {
		s.local = true // the dialing rank reads it after our answer
	} else if o.host == hostIdentity() && o.host != 0 {
		s = openSegment(int(o.pid), int(o.fd), passageBytes(r.cfg.laneBytes))
	}
	if s == nil || !bytes.Equal(s.memory[:tokenBytes], o.token[:]) {
		return false
	}
	copy(s.memory[tokenBytes:], turned(o.token))
	l.addLane(newPassage(s, false), r.header(kindWake))
	return true
}

func turned(token [tokenBytes]byte) []byte {
	for i := range token {
		token[i] = ^token[i]
	}
	return token[:]
}

func (p *Locals) put(token [tokenBytes]byte, s *segment) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.offered == nil {
		p.offered = make(map[[tokenBytes]byte]*segment)
	}
	p.offered[token] = s
}

func (p *Locals) take(token [tokenBytes]byte) *segment {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.offered[token]
	delete(p.offered, token)
	return s
}
