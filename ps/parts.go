package ps

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// Gradients that are applied as they arrive (modes ssp and async).
//
// Where a layout has parts, a push is no step of the whole model: it is the gradient of some logical shards at one
// step, and the optimizer makes a new version of it at once, whatever the other logical shards do. Every block
// keeps, beside its values, a clock for each logical shard: how many of its steps are in the values. A push says which
// logical shards it is of; a block applies it if all of these have come to just that step, does nothing if all of them are
// past it, and otherwise the whole push is refused. As the clocks are part of the version that the optimizer makes,
// and an entry is applied on every replica or on none, (step, logical shard) is in a block's values once or not at
// all, whoever pushes what how often. At the end every clock is at the last step: the proof that nothing was lost.
//
// A version's number (version.step) is the sum of its clocks, so again the first entry in log order that makes a
// number decides its value for good.
//
// Two trainers may be at a logical shard one after the other, when the first is lost in the middle of a push: some blocks
// then have the gradient of the first and some that of the second, for the same samples.
//
// Rejected: clocks by shard of the servers instead of by block. A push is sent in several pieces, and a leader that
// dies between two of them would leave blocks that differ. And clocks by trainer: trainers come and go, logical
// shards stay.

// maxParts bounds the set in the head of a message.
const maxParts = 1 << 14

// partSet is a set of logical shards, a bit each.
type partSet []byte

func newPartSet(parts int, members []id.LogicalShard) partSet {
	s := make(partSet, (parts+7)/8)
	for _, m := range members {
		s[m/8] |= 1 << (m % 8)
	}
	return s
}

func (s partSet) has(part int) bool { return s[part/8]&(1<<(part%8)) != 0 }

func (s partSet) len() (n int) {
	for _, b := range s {
		n += bits.OnesCount8(b)
	}
	return n
}

// check refuses a set that is none of so many parts.
func (s partSet) check(parts int) error {
	if len(s) != (parts+7)/8 {
		return fmt.Errorf("a push of %d bytes of logical shards, of which there are %d", len(s), parts)
	}
	if parts == 0 {
		return nil
	}
	if s.len() == 0 {
		return fmt.Errorf("a push of no logical shard")
	}
	if s[len(s)-1]>>((parts-1)%8+1) != 0 {
		return fmt.Errorf("a push of a logical shard beyond the last of %d", parts)
	}
	return nil
}

// number is that of the version which holds step whole steps.
func (l Layout) number(step id.Step) id.Step {
	if l.Parts == 0 {
		return step
	}
	return step * id.Step(l.Parts)
}

// clockWords are the clocks in a version's memory, little-endian uint32.
func (v *version) clockWords() []byte { return floats.Bytes(v.data[len(v.data)-v.pool.parts:]) }

func (v *version) clock(part int) id.Step {
	return id.Step(binary.LittleEndian.Uint32(v.clockWords()[4*part:]))
}

func (v *version) setClock(part int, to id.Step) {
	binary.LittleEndian.PutUint32(v.clockWords()[4*part:], uint32(to))
}

func (v *version) setClocks(to id.Step) {
	for p := range v.pool.parts {
		v.setClock(p, to)
	}
}

// slowest is the least of the clocks.
func (v *version) slowest() id.Step {
	least := v.clock(0)
	for p := 1; p < v.pool.parts; p++ {
		least = min(least, v.clock(p))
	}
	return least
}

// progress tells of versions how many steps all logical shards have done, and how many gradients they hold together.
func progress(vs []*version) (clock, updates uint64) {
	for i, v := range vs {
		if v.pool.parts == 0 {
			return 0, 0
		}
		if c := uint64(v.slowest()); i == 0 || c < clock {
			clock = c
		}
		updates += uint64(v.step)
	}
	return clock, updates
}

// pushPart applies a push of parts to those of its blocks that do not have it, or to none.
func (s *shardState) pushPart(e *entry, grad []float32) result {
	i0, i1 := s.layout.local(s.shard, e.first, e.last)
	for i := i0; i < i1; i++ {
		if r := s.due(i, e); r.status != pb.ParamAnswer_OK && r.status != pb.ParamAnswer_NOT_YET {
			return r
		}
	}
	k, n := s.opt.Slots(), e.parts.len()
	rule := s.opt.Share(e.step, float64(n)/float64(s.layout.Parts))
	for i := i0; i < i1; i++ {
		lo, hi := s.layout.Range(s.layout.block(s.shard, i))
		g := s.cut(e, &grad, hi-lo)
		if s.due(i, e).status == pb.ParamAnswer_OK {
			continue // done before: exactly once
		}
		newest := s.blocks[i].newest()
		src := s.blocks[i][newest]
		dst := s.pool.get(src.step+id.Step(n), len(src.data))
		for j := range k {
			s.srcSlots[j], s.dstSlots[j] = src.slot(j, k), dst.slot(j, k)
		}
		rule.Apply(dst.w(k), s.dstSlots, src.w(k), g, s.srcSlots)
		copy(dst.clockWords(), src.clockWords())
		for p := range s.layout.Parts {
			if e.parts.has(p) {
				dst.setClock(p, e.step+1)
			}
		}
		s.publish(i, 1-newest, dst)
	}
	return result{status: pb.ParamAnswer_OK}
}

// due says what is to be done about a push in the shard's own block i: OK says nothing, it has it already, NOT_YET that it is
// to be applied, and GAP and SPLIT that it cannot be.
func (s *shardState) due(i int, e *entry) result {
	b := &s.blocks[i]
	block := s.layout.block(s.shard, i)
	n := b.newest()
	if n < 0 {
		return result{status: pb.ParamAnswer_GAP, block: block, message: fmt.Sprintf("push of %v on block %d, which holds no state yet", e.step, block)}
	}
	done, now := 0, 0
	for p := range s.layout.Parts {
		if !e.parts.has(p) {
			continue
		}
		switch c := b[n].clock(p); {
		case c > e.step:
			done++
		case c == e.step:
			now++
		default:
			return result{status: pb.ParamAnswer_GAP, block: block, newest: c,
				message: fmt.Sprintf("push of %v of %v on block %d, which has only %d of its steps", e.step, id.LogicalShard(p), block, c)}
		}
	}
	switch {
	case now == 0:
		return result{status: pb.ParamAnswer_OK}
	case done == 0:
		return result{status: pb.ParamAnswer_NOT_YET}
	}
	return result{status: pb.ParamAnswer_SPLIT, block: block,
		message: fmt.Sprintf("block %d has %d of the %d logical shards of this push of %v already", block, done, done+now, e.step)}
}

// madeOfParts collects the newest versions if all of them hold the push.
func (s *shardState) madeOfParts(dst []*version, e *entry) ([]*version, result) {
	i0, i1 := s.layout.local(s.shard, e.first, e.last)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := i0; i < i1; i++ {
		if r := s.due(i, e); r.status != pb.ParamAnswer_OK {
			return dst, r
		}
	}
	return s.retain(dst, i0, i1), result{status: pb.ParamAnswer_OK}
}

// newest collects the newest versions of the shard's blocks in [first, last) if every logical shard has done all steps before
// one in each of them; NOT_YET says that this is not so.
func (s *shardState) newest(dst []*version, least id.Step, first, last id.Block) ([]*version, result) {
	i0, i1 := s.layout.local(s.shard, first, last)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := i0; i < i1; i++ {
		n := s.blocks[i].newest()
		block := s.layout.block(s.shard, i)
		if n < 0 {
			return dst, result{status: pb.ParamAnswer_NOT_YET, block: block, message: fmt.Sprintf("block %d holds no state yet", block)}
		}
		if c := s.blocks[i][n].slowest(); c < least {
			return dst, result{status: pb.ParamAnswer_NOT_YET, block: block, newest: c,
				message: fmt.Sprintf("the slowest logical shard has done %d steps, not %d", c, least)}
		}
	}
	return s.retain(dst, i0, i1), result{status: pb.ParamAnswer_OK}
}

// retain appends the newest versions of the own blocks [i0, i1). The caller holds mu.
func (s *shardState) retain(dst []*version, i0, i1 int) []*version {
	for i := i0; i < i1; i++ {
		v := s.blocks[i][s.blocks[i].newest()]
		v.retain()
		dst = append(dst, v)
	}
	return dst
}

// clocks are the steps that each logical shard has done in every block of the shard; nil while a block holds nothing.
func (s *shardState) clocks() []id.Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	var least []id.Step
	for i := range s.blocks {
		n := s.blocks[i].newest()
		if n < 0 {
			return nil
		}
		for p := range s.layout.Parts {
			c := s.blocks[i][n].clock(p)
			if i == 0 {
				least = append(least, c)
			}
			least[p] = min(least[p], c)
		}
	}
	return least
}
