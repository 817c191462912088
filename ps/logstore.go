package ps

import (
	"github.com/hashicorp/raft"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/journal"
)

// logPayloads says what the entries of a shard's log refer to (raftlog.Payloads). An
// entry is stored only when its payload is held, so Raft's "stored by a majority" covers
// the payload, and a leader, which has every committed entry, has every committed payload.
type logPayloads struct {
	payloads *payloads
	hold     func([]reference) error // returns when all are held and marked as logged

	refs    []reference // reused
	loading loading
}

// loading is what Open finds on the disk.
type loading struct {
	pinned  []*payload
	damaged map[payloadID]*journal.Damage
	lost    []lostPayload // of entries in the log, in their order
}

// refOf is what an entry refers to. One that does not decode names no payload; the state
// machine refuses it.
func refOf(l *raft.Log) (reference, bool) {
	if l.Type != raft.LogCommand {
		return reference{}, false
	}
	e, err := decodeEntry(l.Data)
	return e.ref, err == nil
}

// Hold implements raftlog.Payloads.
func (t *logPayloads) Hold(logs []*raft.Log) error {
	t.refs = t.refs[:0]
	for _, l := range logs {
		if ref, ok := refOf(l); ok {
			t.refs = append(t.refs, ref)
		}
	}
	return t.hold(t.refs)
}

// Drop implements raftlog.Payloads.
func (t *logPayloads) Drop(l *raft.Log) {
	if ref, ok := refOf(l); ok {
		t.payloads.unlog(ref.id)
	}
}

// Bytes implements raftlog.Payloads. The log's mark keeps the payload from being reused.
func (t *logPayloads) Bytes(l *raft.Log) (a, b uint64, data []byte, ok bool) {
	ref, ok := refOf(l)
	if !ok {
		return 0, 0, nil, false
	}
	p := t.payloads.pin(ref.id)
	if p == nil {
		return 0, 0, nil, false
	}
	defer t.payloads.release(p)
	return ref.id.source, ref.id.seq, floats.Bytes(p.data), true
}

// Load implements raftlog.Payloads.
func (t *logPayloads) Load(a, b uint64, data []byte, damage *journal.Damage) {
	id := payloadID{a, b}
	if damage != nil || len(data) == 0 || len(data)%4 != 0 {
		if t.loading.damaged == nil {
			t.loading.damaged = map[payloadID]*journal.Damage{}
		}
		t.loading.damaged[id] = damage
		return
	}
	p := t.payloads.get(len(data) / 4)
	copy(floats.Bytes(p.data), data)
	p.id, p.crc = id, floats.Checksum(0, p.data)
	t.loading.pinned = append(t.loading.pinned, p)
	t.payloads.share(p)
}

// Loaded implements raftlog.Payloads.
func (t *logPayloads) Loaded(logs []raft.Log) {
	for i := range logs {
		ref, ok := refOf(&logs[i])
		if ok && len(t.payloads.log([]reference{ref}, nil)) > 0 {
			t.loading.lost = append(t.loading.lost, lostPayload{logs[i].Index, ref, t.loading.damaged[ref.id]})
		}
	}
	for _, p := range t.loading.pinned {
		t.payloads.release(p)
	}
	t.loading.pinned, t.loading.damaged = nil, nil
}

// payloadSize is how many bytes of payload an entry refers to.
func payloadSize(l *raft.Log) int64 {
	ref, _ := refOf(l)
	return int64(ref.length)
}
