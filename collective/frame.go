package collective

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/musterml/muster/internal/id"
)

// kind says what a frame is. Every direction of a connection ends with one bye or abort.
type kind uint8

const (
	kindHello  kind = iota + 1 // first frame each way; names the ring that the sender means
	kindReady                  // the dialing rank confirms the answer to its hello
	kindBeat                   // sign of life
	kindCall                   // to the previous rank: I have begun this operation, send
	kindData                   // to the next rank: a piece of a chunk
	kindBye                    // last frame of a rank that leaves in peace
	kindAbort                  // last frame of a rank whose ring is broken; carries a notice
	kindWhole                  // one rank's contribution to an operation that goes the short way
	kindWake                   // there is something to do at a lane (lane.go)
	kindStripe                 // first frame each way of a stripe after the first (stripe_join.go)
	kindEnd                    // no frame: one past the last kind
)

func (k kind) String() string {
	names := [...]string{"", "hello", "ready", "heartbeat", "call", "data", "bye", "abort", "contribution", "bell", "stripe"}
	if int(k) < len(names) && k > 0 {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

const (
	headerSize  = 64
	wireMagic   = 0x474e524d // "MRNG"
	wireVersion = 7

	elemSize      = 4       // bytes of an int32 or a float32
	maxChunkBytes = 8 << 20 // bounds Config.ChunkBytes, and so the data of a frame
	maxNotice     = 2 << 10 // bytes of an abort's payload
	maxWorld      = 1 << 15
)

// header is the fixed start of every frame; little-endian, 64 bytes.
//
//	 0 magic u32 | 4 kind u8 | 5 phase u8 | 6 hop u16 | 8 run u64 | 16 view u64 | 24 step u64
//	32 bucket u32 | 36 length u32 | 40 offset u64 | 48 seq u64 | 56 rank u16 | 58 verb u8 | 59 reduce u8 | 60 digest u32
type header struct {
	kind   kind
	phase  phase
	hop    uint16 // data: which of the ring's 2(n-1) turns; contribution: how many ranks it has come; hello: lane taken
	run    uint64 // hash of the run's name
	view   id.View
	step   id.Step
	bucket uint32
	length uint32 // bytes of payload that follow
	offset uint64 // data: first element; call, contribution: number of elements; hello: bytes per chunk
	seq    uint64 // data, call, contribution: number of the operation on this ring, from 1; bye: latest complete one; hello: world
	rank   uint16 // of the sender
	verb   verb   // call, contribution; hello, stripe: how many stripes
	reduce Reduce // call, contribution
	digest uint32 // call, contribution: of the bounds; hello: of the peers' names in ring order
}

func (h *header) put(b *[headerSize]byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], wireMagic)
	b[4], b[5] = byte(h.kind), byte(h.phase)
	le.PutUint16(b[6:], h.hop)
	le.PutUint64(b[8:], h.run)
	le.PutUint64(b[16:], uint64(h.view))
	le.PutUint64(b[24:], uint64(h.step))
	le.PutUint32(b[32:], h.bucket)
	le.PutUint32(b[36:], h.length)
	le.PutUint64(b[40:], h.offset)
	le.PutUint64(b[48:], h.seq)
	le.PutUint16(b[56:], h.rank)
	b[58], b[59] = byte(h.verb), byte(h.reduce)
	le.PutUint32(b[60:], h.digest)
}

// parse reads a header and checks what can be checked without knowing the ring: a length that it lets through is
// one that a frame of its kind may have.
func (h *header) parse(b *[headerSize]byte) error {
	le := binary.LittleEndian
	if m := le.Uint32(b[0:]); m != wireMagic {
		return fmt.Errorf("%w: starts with %#x, which is not a muster ring frame", ErrProtocol, m)
	}
	*h = header{
		kind: kind(b[4]), phase: phase(b[5]), hop: le.Uint16(b[6:]),
		run: le.Uint64(b[8:]), view: id.View(le.Uint64(b[16:])), step: id.Step(le.Uint64(b[24:])),
		bucket: le.Uint32(b[32:]), length: le.Uint32(b[36:]), offset: le.Uint64(b[40:]), seq: le.Uint64(b[48:]),
		rank: le.Uint16(b[56:]), verb: verb(b[58]), reduce: Reduce(b[59]), digest: le.Uint32(b[60:]),
	}
	limit := uint32(0)
	switch h.kind {
	case kindData:
		limit = maxChunkBytes
	case kindAbort:
		limit = maxNotice
	case kindWhole:
		limit = maxWholeBytes
	case kindHello:
		limit = maxOffer
	case kindReady, kindStripe:
		limit = tokenSize
	}
	switch {
	case h.kind == 0 || h.kind >= kindEnd:
		return fmt.Errorf("%w: unknown %v", ErrProtocol, h.kind)
	case h.length > limit:
		return fmt.Errorf("%w: %v of %d bytes, at most %d", ErrProtocol, h.kind, h.length, limit)
	case h.kind == kindData && (h.length == 0 || h.length%elemSize != 0):
		return fmt.Errorf("%w: data of %d bytes is no whole number of elements", ErrProtocol, h.length)
	case h.kind == kindWhole && h.length%elemSize != 0:
		return fmt.Errorf("%w: a contribution of %d bytes is no whole number of elements", ErrProtocol, h.length)
	}
	return nil
}

// notice is what an abort frame carries round the ring.
type notice struct {
	origin  id.Node // who began the abort
	suspect id.Node // the peer it blames; "" when it was on purpose
	reason  string
}

var errNotice = errors.New("malformed abort notice")

// encode never fails: over-long texts are cut.
func (n notice) encode() []byte {
	b := make([]byte, 0, maxNotice)
	for i, s := range [...]string{string(n.origin), string(n.suspect), n.reason} {
		limit := [...]int{256, 256, maxNotice - 2*258 - 2}[i]
		if len(s) > limit {
			s = s[:limit]
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	return b
}

func decodeNotice(b []byte) (notice, error) {
	var s [3]string
	for i := range s {
		if len(b) < 2 {
			return notice{}, errNotice
		}
		n := int(binary.LittleEndian.Uint16(b))
		if b = b[2:]; len(b) < n {
			return notice{}, errNotice
		}
		s[i], b = string(b[:n]), b[n:]
	}
	if len(b) != 0 {
		return notice{}, errNotice
	}
	return notice{origin: id.Node(s[0]), suspect: id.Node(s[1]), reason: s[2]}, nil
}

func hashRun(run string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(run))
	return h.Sum64()
}

// hashPeers covers the names in ring order. Addresses are left out: two nodes may rightly know a third by different ones.
func hashPeers(peers []Peer) uint32 {
	h := fnv.New32a()
	for _, p := range peers {
		fmt.Fprintf(h, "%d:%s,", len(p.Node), p.Node)
	}
	return h.Sum32()
}
