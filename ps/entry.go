package ps

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// payloadID names the bytes of one request. The source is random for each life of each
// replica, so an id means one thing across leaders and incarnations.
type payloadID struct{ source, seq uint64 }

func (p payloadID) String() string { return fmt.Sprintf("%016x/%d", p.source, p.seq) }

// reference is what the log says of a payload.
type reference struct {
	id     payloadID
	length int // bytes
	crc    uint32
}

// entry is one decoded log entry: Put or Push of the shard's blocks in [first, last).
type entry struct {
	kind        pb.ParamEntry_Kind
	step, keep  id.Step
	first, last id.Block
	parts       partSet // of a push, whose gradient it is; where the layout has parts
	half        bool    // the gradient of a push has half the bytes
	ref         reference
}

func (e *entry) encode() ([]byte, error) {
	return proto.Marshal(&pb.ParamEntry{
		Kind:    e.kind,
		Step:    uint64(e.step),
		Keep:    uint64(e.keep),
		First:   uint64(e.first),
		Last:    uint64(e.last),
		Payload: &pb.PayloadID{Source: e.ref.id.source, Seq: e.ref.id.seq},
		Length:  uint32(e.ref.length),
		Crc:     e.ref.crc,
		Parts:   e.parts,
		Half:    e.half,
	})
}

// decodeEntry reads a log entry. It checks only what does not depend on the layout:
// the log store must find the payload of an entry even if the shard will refuse it.
func decodeEntry(data []byte) (entry, error) {
	var m pb.ParamEntry
	if err := proto.Unmarshal(data, &m); err != nil {
		return entry{}, fmt.Errorf("log entry: %w", err)
	}
	if m.Kind != pb.ParamEntry_PUT && m.Kind != pb.ParamEntry_PUSH && !ofRows(m.Kind) {
		return entry{}, fmt.Errorf("log entry: unknown kind %d", m.Kind)
	}
	if m.Payload == nil {
		return entry{}, fmt.Errorf("log entry: no payload")
	}
	if m.First > math.MaxInt32 || m.Last > math.MaxInt32 {
		return entry{}, fmt.Errorf("log entry: blocks [%d, %d) are absurd", m.First, m.Last)
	}
	return entry{
		kind: m.Kind, step: id.Step(m.Step), keep: id.Step(m.Keep),
		first: id.Block(m.First), last: id.Block(m.Last), parts: m.Parts, half: m.Half,
		ref: reference{
			id:     payloadID{m.Payload.Source, m.Payload.Seq},
			length: int(m.Length),
			crc:    m.Crc,
		},
	}, nil
}

// payloadFloats is how many float32 the payload of a request on [first, last) has: the
// gradient for a push, W and every slot for a put.
func payloadFloats(l Layout, shard id.ParamShard, slots int, kind pb.ParamEntry_Kind, first, last id.Block) int {
	i0, i1 := l.local(shard, first, last)
	n := l.floats(shard, i0, i1)
	if kind == pb.ParamEntry_PUT {
		n *= 1 + slots
	}
	return n
}

// checkRequest refuses what no shard of this layout can do; wire and log use it alike.
func checkRequest(l Layout, shard id.ParamShard, slots int, e *entry, length int) error {
	if err := l.check(e.first, e.last); err != nil {
		return err
	}
	n := payloadFloats(l, shard, slots, e.kind, e.first, e.last)
	if e.half && e.kind == pb.ParamEntry_PUSH {
		i0, i1 := l.local(shard, e.first, e.last)
		n = l.halves(shard, i0, i1)
	}
	if n == 0 {
		return fmt.Errorf("blocks [%d, %d) have none in %v", e.first, e.last, shard)
	}
	if length != 4*n {
		return fmt.Errorf("payload of %d bytes for blocks [%d, %d) in %v, must be %d", length, e.first, e.last, shard, 4*n)
	}
	if e.kind == pb.ParamEntry_PUSH {
		return e.parts.check(l.Parts)
	}
	return nil
}
