package ps

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
)

// An audit is an entry of the log that changes nothing. A replica that applies it keeps hold of
// the versions of all blocks, which copies nothing, and computes their digest while it goes
// on. (Of the sparse tables it says nothing.) All replicas do so at the same place of the log, so their digests can be compared,
// however far each of them has got by the time it is asked.
//
// Rejected: comparing digests at a step. A replica holds two steps, for some milliseconds each, so
// those that are asked at slightly different moments have none in common.

// auditEntry is what is in the log. It is no ParamEntry, and has no payload.
const auditEntry = "audit"

// Audit is the state of a replica at one place of the log.
type Audit struct {
	Index uint64  // of the log entry; 0: there has been none
	Step  id.Step // the newest that every block held there
	Holds bool    // there was such a step
	Sum   [sha256.Size]byte
}

// auditor computes one digest at a time. Audits that come meanwhile are passed over.
type auditor struct {
	mu      sync.Mutex
	busy    bool
	last    Audit
	changed chan struct{} // closed and made anew when last is another
	asked   time.Time     // when this replica last proposed one
	at      uint64        // its index
}

// audit begins an audit of the state after the entry at index.
func (r *replica) audit(index uint64) {
	r.state.advance(index)
	a := &r.audits
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy {
		return
	}
	a.busy = true
	done := Audit{Index: index}
	if steps := r.state.steps(); len(steps) > 0 {
		done.Step, done.Holds = steps[len(steps)-1], true
	}
	r.state.mu.Lock()
	records := r.state.retainAll()
	r.state.mu.Unlock()
	r.wg.Go(func() {
		done.Sum = digestOf(records)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.busy, a.last = false, done
		close(a.changed)
		a.changed = make(chan struct{})
	})
}

// digestOf hashes versions in their order, and releases each.
func digestOf(records []snapshotRecord) (sum [sha256.Size]byte) {
	h := sha256.New()
	var head [24]byte
	for _, r := range records {
		binary.LittleEndian.PutUint64(head[:], uint64(r.block))
		binary.LittleEndian.PutUint64(head[8:], uint64(r.place))
		binary.LittleEndian.PutUint64(head[16:], uint64(r.v.step))
		h.Write(head[:])
		h.Write(floats.Bytes(r.v.data))
		r.v.release()
	}
	h.Sum(sum[:0])
	return sum
}

// betweenAudits is how long an audit is new enough for whoever asks: it reads all values.
const betweenAudits = time.Second

// Audit has every shard that this node leads audited, and returns where in their logs.
func (s *Server) Audit() map[id.ParamShard]uint64 {
	at := map[id.ParamShard]uint64{}
	for _, r := range s.all() {
		if !r.leads() {
			continue
		}
		a := &r.audits
		a.mu.Lock()
		fresh, index := time.Since(a.asked) < betweenAudits && a.at > 0, a.at
		a.mu.Unlock()
		if !fresh {
			future := r.group.Raft().Apply([]byte(auditEntry), time.Second)
			if err := future.Error(); err != nil {
				r.log.Debug().Err(err).Msg("no audit")
				continue
			}
			index = future.Index()
			a.mu.Lock()
			a.asked, a.at = time.Now(), index
			a.mu.Unlock()
		}
		at[r.shard] = index
	}
	return at
}

// AwaitAudit returns when this node's replica of the shard has done the audit at the index, or a later
// one, or with the newest before it when ctx ends.
func (s *Server) AwaitAudit(ctx context.Context, shard id.ParamShard, index uint64) Audit {
	r := s.replica(shard)
	if r == nil {
		return Audit{}
	}
	for {
		r.audits.mu.Lock()
		last, changed := r.audits.last, r.audits.changed
		r.audits.mu.Unlock()
		if last.Index >= index {
			return last
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return last
		}
	}
}

// Behind is the number of payload bytes in the shard's log after the entry at applied, as this
// node's replica has them; of a log that has been cut the state stands in for what is gone.
func (s *Server) Behind(shard id.ParamShard, applied uint64) int64 {
	r := s.replica(shard)
	if r == nil {
		return 0
	}
	first, err := r.entries.FirstIndex()
	if err != nil {
		return 0
	}
	bytes := int64(0)
	if first > applied+1 && r.state.has(applied+1) {
		bytes = r.state.bytes()
	}
	for i := max(first, applied+1); i <= r.group.Raft().CommitIndex(); i++ {
		var l raft.Log
		if r.entries.GetLog(i, &l) != nil {
			break // cut meanwhile
		}
		bytes += payloadSize(&l)
	}
	return bytes
}

// bytes is what the versions of all blocks take.
func (s *shardState) bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := int64(0)
	for _, b := range s.blocks {
		for _, v := range b {
			if v != nil {
				n += 4 * int64(len(v.data))
			}
		}
	}
	return n
}

// replica is this node's replica of a shard, nil when there is none.
func (s *Server) replica(shard id.ParamShard) *replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replicas[shard]
}

// Drop ends this node's replica of a shard for good: what it has on the disk is removed. It is
// for one that is in no configuration of the group any more.
func (s *Server) Drop(shard id.ParamShard) error {
	s.mu.Lock()
	r := s.replicas[shard]
	delete(s.replicas, shard)
	s.mu.Unlock()
	if r == nil {
		return fmt.Errorf("ps: %v is not hosted here", shard)
	}
	return r.drop()
}

// HandOver has the replica on another node lead the shard, if this node's leads it in the term.
func (s *Server) HandOver(shard id.ParamShard, term uint64, to id.Node) error {
	r := s.replica(shard)
	if r == nil {
		return fmt.Errorf("ps: %v is not hosted here", shard)
	}
	return r.group.HandOver(term, to)
}
