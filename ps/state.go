package ps

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	pb "github.com/musterml/muster/proto"
)

// shardState is the state machine of one shard: a pure function of the entries applied
// in order. It does no I/O and knows nothing of Raft.
//
// Every block holds at most two versions. A push reads the newer and replaces the
// other; a put replaces the one that is not to be kept. So the state at step s stays
// readable while s+1 is being written, on every block, however far each has got.
//
// Why any replica may answer a read: the versions of a block only ever move forward,
// and the first entry in log order that makes (block, step) decides its value for
// good, because a repeated push or put changes nothing. The value of (block, step) is
// therefore the same on every replica that has applied it, and entries are applied only
// once committed. A replica that is behind may lack a step; it cannot have another one.
type shardState struct {
	layout Layout
	shard  id.ParamShard
	opt    optim.Optimizer
	pool   versionPool
	half   Half  // nil: refuses pushes in half the bytes
	rows   *rows // the sparse tables; nil where there are none

	// turn is held while an entry is applied, so that a snapshot falls between two.
	turn sync.Mutex

	mu      sync.Mutex // guards what follows; held for pointer work only
	blocks  []blockState
	pins    []*version // of the step pinned, nil for blocks without; nil when none is
	pinned  id.Step
	applied uint64 // index of the last entry whose effect is in blocks

	// Views reused by apply, which only Raft's goroutine calls.
	srcSlots, dstSlots [][]float32
	whole              []float32 // a block's gradient that came in half the bytes
}

// blockState is the block's two versions in no order; nil where there is none yet. Two
// versions of a block never have the same step.
type blockState [2]*version

// newest is the index of the version with the highest step, -1 when there is none.
func (b *blockState) newest() int {
	switch {
	case b[0] == nil && b[1] == nil:
		return -1
	case b[1] == nil || (b[0] != nil && b[0].step > b[1].step):
		return 0
	}
	return 1
}

func (b *blockState) at(step id.Step) *version {
	for _, v := range b {
		if v != nil && v.step == step {
			return v
		}
	}
	return nil
}

// result is what applying an entry, or looking for a step, came to. Status is OK, GAP,
// BAD_REQUEST, GONE or NOT_YET; for all but OK nothing was changed.
type result struct {
	status  pb.ParamAnswer_Status
	block   id.Block
	newest  id.Step // of block, for GAP and GONE
	message string
}

func newShardState(l Layout, shard id.ParamShard, opt optim.Optimizer) *shardState {
	return &shardState{
		layout: l, shard: shard, opt: opt, pool: versionPool{parts: l.Parts},
		blocks:   make([]blockState, l.own(shard)),
		srcSlots: make([][]float32, opt.Slots()),
		dstSlots: make([][]float32, opt.Slots()),
	}
}

// apply carries out the entry at a log index. The payload is only read. An entry that
// meets a gap in any of its blocks changes none of them.
func (s *shardState) apply(index uint64, e *entry, payload []float32) result {
	s.turn.Lock()
	defer s.turn.Unlock()
	defer s.advance(index)
	if ofRows(e.kind) {
		return s.rows.apply(e, payload)
	}
	if err := checkRequest(s.layout, s.shard, s.opt.Slots(), e, 4*len(payload)); err != nil {
		return result{status: pb.ParamAnswer_BAD_REQUEST, message: err.Error()}
	}
	if e.half && s.half == nil {
		return result{status: pb.ParamAnswer_BAD_REQUEST, message: noHalf}
	}
	if e.kind == pb.ParamEntry_PUT {
		s.put(e, payload)
		return result{status: pb.ParamAnswer_OK}
	}
	if s.layout.Parts > 0 {
		return s.pushPart(e, payload)
	}
	if r := s.gap(e); r.status != pb.ParamAnswer_OK {
		return r
	}
	s.push(e, payload)
	return result{status: pb.ParamAnswer_OK}
}

// advance notes that everything up to the index is in the state.
func (s *shardState) advance(index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied = max(s.applied, index)
}

// has tells whether the entry at the index is in the state already. It may be before
// Raft applies it: a snapshot is taken from a state that may be ahead of the index that
// Raft asked for.
func (s *shardState) has(index uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied >= index
}

// gap looks for a block that has not reached the step of a push.
func (s *shardState) gap(e *entry) result {
	i0, i1 := s.layout.local(s.shard, e.first, e.last)
	for i := i0; i < i1; i++ {
		b := &s.blocks[i]
		n := b.newest()
		if n >= 0 && b[n].step >= e.step {
			continue
		}
		r := result{status: pb.ParamAnswer_GAP, block: s.layout.block(s.shard, i)}
		if n < 0 {
			r.message = fmt.Sprintf("push of %v on block %d, which holds no state yet", e.step, r.block)
		} else {
			r.newest = b[n].step
			r.message = fmt.Sprintf("push of %v on block %d, which is only at step %d", e.step, r.block, r.newest)
		}
		return r
	}
	return result{status: pb.ParamAnswer_OK}
}

func (s *shardState) push(e *entry, grad []float32) {
	i0, i1 := s.layout.local(s.shard, e.first, e.last)
	k := s.opt.Slots()
	for i := i0; i < i1; i++ {
		lo, hi := s.layout.Range(s.layout.block(s.shard, i))
		g := s.cut(e, &grad, hi-lo)
		n := s.blocks[i].newest()
		src := s.blocks[i][n]
		if src.step != e.step {
			continue // done before: exactly once
		}
		dst := s.pool.get(e.step+1, len(src.data))
		for j := range k {
			s.srcSlots[j], s.dstSlots[j] = src.slot(j, k), dst.slot(j, k)
		}
		s.opt.UpdateTo(e.step, dst.w(k), s.dstSlots, src.w(k), g, s.srcSlots)
		s.publish(i, 1-n, dst)
	}
}

func (s *shardState) put(e *entry, state []float32) {
	i0, i1 := s.layout.local(s.shard, e.first, e.last)
	for i := i0; i < i1; i++ {
		lo, hi := s.layout.Range(s.layout.block(s.shard, i))
		size := (hi - lo) * (1 + s.opt.Slots())
		data := state[:size]
		state = state[size:]
		b := &s.blocks[i]
		n := b.newest()
		if n >= 0 && b[n].step >= s.layout.number(e.step) {
			continue
		}
		v := s.pool.get(s.layout.number(e.step), size+s.layout.Parts)
		copy(v.data, data)
		v.setClocks(e.step)
		s.publish(i, b.victim(e.keep), v)
	}
}

// victim is where a put writes: an empty place, else not over keep, else over the older.
func (b *blockState) victim(keep id.Step) int {
	for i, v := range b {
		if v == nil {
			return i
		}
	}
	for i, v := range b {
		if v.step == keep {
			return 1 - i
		}
	}
	return 1 - b.newest()
}

func (s *shardState) publish(i, place int, v *version) {
	s.mu.Lock()
	old := s.blocks[i][place]
	s.blocks[i][place] = v
	if s.pins != nil && s.pins[i] == nil && v.step == s.pinned {
		v.retain()
		s.pins[i] = v
	}
	s.mu.Unlock()
	if old != nil {
		old.release()
	}
}

// pin keeps the versions at a step, those that are there and those that come, until
// another step is pinned or none: they can be collected although the blocks have gone on.
// It is this replica's own affair and no part of the replicated state.
func (s *shardState) pin(step id.Step, keep bool) {
	s.rows.pin(step, keep)
	s.mu.Lock()
	defer s.mu.Unlock()
	if keep && s.pins != nil && s.pinned == step {
		return
	}
	for _, v := range s.pins {
		if v != nil {
			v.release()
		}
	}
	s.pins = nil
	if !keep {
		return
	}
	s.pins, s.pinned = make([]*version, len(s.blocks)), step
	for i := range s.blocks {
		if v := s.blocks[i].at(step); v != nil {
			v.retain()
			s.pins[i] = v
		}
	}
}

// collect appends to dst the versions at step of the shard's blocks in [first, last),
// each with a reference for the caller to release. Unless every block holds the step it
// returns dst as it was: GONE says that the step will never be held again, NOT_YET that
// it may come.
func (s *shardState) collect(dst []*version, step id.Step, first, last id.Block) ([]*version, result) {
	i0, i1 := s.layout.local(s.shard, first, last)
	s.mu.Lock()
	defer s.mu.Unlock()
	have := len(dst)
	for i := i0; i < i1; i++ {
		b := &s.blocks[i]
		v := b.at(step)
		if v == nil && s.pins != nil && step == s.pinned {
			v = s.pins[i]
		}
		if v != nil {
			v.retain()
			dst = append(dst, v)
			continue
		}
		releaseAll(dst[have:])
		block := s.layout.block(s.shard, i)
		n := b.newest()
		if n >= 0 && b[n].step > step {
			return dst[:have], result{
				status: pb.ParamAnswer_GONE, block: block, newest: b[n].step,
				message: fmt.Sprintf("block %d no longer holds step %d, it is at step %d", block, step, b[n].step),
			}
		}
		return dst[:have], result{
			status: pb.ParamAnswer_NOT_YET, block: block,
			message: fmt.Sprintf("block %d does not hold step %d yet", block, step),
		}
	}
	return dst, result{status: pb.ParamAnswer_OK}
}

// read collects what a pull of a step is answered with.
func (s *shardState) read(dst []*version, step id.Step, first, last id.Block) ([]*version, result) {
	if s.layout.Parts > 0 {
		return s.newest(dst, step, first, last)
	}
	return s.collect(dst, step, first, last)
}

// made collects what a push that was applied is answered with: what it has made of its blocks.
func (s *shardState) made(dst []*version, e *entry) ([]*version, result) {
	if s.layout.Parts > 0 {
		return s.madeOfParts(dst, e)
	}
	return s.collect(dst, e.step+1, e.first, e.last)
}

// steps are those that every block of the shard holds, ascending; at most two.
func (s *shardState) steps() []id.Step {
	if s.layout.Parts > 0 {
		if clocks := s.clocks(); clocks != nil {
			return []id.Step{slices.Min(clocks)}
		}
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var steps []id.Step
	if len(s.blocks) == 0 {
		return nil
	}
	for _, v := range s.blocks[0] {
		if v != nil && !slices.ContainsFunc(s.blocks, func(b blockState) bool { return b.at(v.step) == nil }) {
			steps = append(steps, v.step)
		}
	}
	slices.Sort(steps)
	return steps
}

// digest is the SHA-256 of the whole shard (W and slots) at step. It does not depend on
// how far the replica has gone beyond that step.
func (s *shardState) digest(step id.Step) ([sha256.Size]byte, result) {
	vs, r := s.collect(nil, s.layout.number(step), 0, id.Block(s.layout.Blocks()))
	if r.status != pb.ParamAnswer_OK {
		return [sha256.Size]byte{}, r
	}
	defer releaseAll(vs)
	h := sha256.New()
	for _, v := range vs {
		h.Write(floats.Bytes(v.data))
	}
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	return sum, r
}
