package ps

import (
	"sync"
	"sync/atomic"

	"github.com/musterml/muster/internal/huge"
	"github.com/musterml/muster/internal/id"
)

// version is the state of one block at one step. Once published in a block it never
// changes, so it may be read without a lock by whoever holds a reference: answers are
// sent to clients and snapshots written to disk straight from it, while the block
// goes on. The last release gives the memory to the next version made.
//
// Rejected: two fixed buffers for each block under a lock, or copied for readers. A
// slow reader would stop the shard, or every read would cost a copy.
type version struct {
	step id.Step
	data []float32 // W, then every slot, each of the block's length; then the clocks of the parts, see parts.go
	refs atomic.Int32
	pool *versionPool
}

// w is the parameters alone; slots is the number of optimizer slots behind them.
func (v *version) w(slots int) []float32 { return v.data[:len(v.state())/(1+slots)] }

// state is W and the slots.
func (v *version) state() []float32 { return v.data[:len(v.data)-v.pool.parts] }

// slot is optimizer slot k of n.
func (v *version) slot(k, n int) []float32 {
	size := len(v.state()) / (1 + n)
	return v.data[(1+k)*size : (2+k)*size]
}

func (v *version) retain() { v.refs.Add(1) }

func (v *version) release() {
	if v.refs.Add(-1) == 0 {
		v.pool.put(v)
	}
}

func releaseAll(vs []*version) {
	for _, v := range vs {
		v.release()
	}
}

// versionPool keeps released versions by length: a shard has at most two lengths, of
// its whole blocks and of the model's last one.
type versionPool struct {
	parts int // of the layout

	mu   sync.Mutex
	free map[int][]*version
}

// get returns a version with one reference and unspecified contents.
func (p *versionPool) get(step id.Step, length int) *version {
	p.mu.Lock()
	var v *version
	if l := p.free[length]; len(l) > 0 {
		v = l[len(l)-1]
		p.free[length] = l[:len(l)-1]
	}
	p.mu.Unlock()
	if v == nil {
		v = &version{data: huge.Float32s(length), pool: p}
	}
	v.step = step
	v.refs.Store(1)
	return v
}

func (p *versionPool) put(v *version) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free == nil {
		p.free = map[int][]*version{}
	}
	p.free[len(v.data)] = append(p.free[len(v.data)], v)
}
