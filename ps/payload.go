package ps

import (
	"slices"
	"sync"
	"time"

	"github.com/musterml/muster/internal/huge"
)

// payload is the bytes of one request, in a pooled buffer. It is written by whoever
// receives it, from the front, and not where it has been filled. Before it is whole only the senders see it,
// which pass on what there is of it.
type payload struct {
	id   payloadID
	data []float32

	readers []*sender // to be woken when it grows; only who receives it looks at them

	// Guarded by payloads.mu, but of a payload that nobody else knows of yet.
	filled int    // bytes that are there
	growth growth // whether more will come
	crc    uint32 // when it is whole

	// Guarded by payloads.mu. The buffer goes back to the pool when none holds.
	pins    int  // users at work: the proposing request, senders, an apply, a fetch
	logged  int  // entries in the log store that refer to it
	pending bool // arrived, but no entry in the log refers to it yet
	arrived time.Time
}

type growth uint8

const (
	growing growth = iota
	whole
	failed // who sent it has gone
)

func (p *payload) size() int64 { return int64(4 * len(p.data)) }

// payloads are all that one replica holds, by id.
//
// A payload lives as long as an entry in the log refers to it or somebody uses it. One
// that no entry ever claims (its proposal failed) is dropped after a while, or earlier
// when such payloads pass a bound: dropping one is always safe, because the log store
// fetches what it lacks.
type payloads struct {
	source       uint64 // of the ids made here; random for each life of a replica
	pendingLimit int64  // bytes

	// wake tells the one goroutine that waits in hold that a payload has arrived or
	// a stream has ended.
	wake chan struct{}

	mu           sync.Mutex
	seq          uint64
	held         map[payloadID]*payload
	streams      map[uint64]*stream
	free         map[int][]*payload // by capacity in floats
	freeBytes    int64
	idleBytes    int64 // of free, never needed since the last trim
	pendingBytes int64
	loggedBytes  int64
	progress     uint64 // counts chunks received, to tell a slow stream from a dead one
}

// poolGrain rounds buffers up, so that nearly equal requests share them: 4 KiB.
const poolGrain = 1024

func newPayloads(source uint64, pendingLimit int64) *payloads {
	return &payloads{
		source: source, pendingLimit: pendingLimit,
		wake:    make(chan struct{}, 1),
		held:    map[payloadID]*payload{},
		streams: map[uint64]*stream{},
		free:    map[int][]*payload{},
	}
}

// get returns an unshared payload of n floats, pinned once for the caller.
func (t *payloads) get(n int) *payload {
	size := (n + poolGrain - 1) / poolGrain * poolGrain
	t.mu.Lock()
	var p *payload
	if l := t.free[size]; len(l) > 0 {
		p = l[len(l)-1]
		t.free[size] = l[:len(l)-1]
		t.freeBytes -= int64(4 * size)
		t.idleBytes = min(t.idleBytes, t.freeBytes)
	}
	t.mu.Unlock()
	if p == nil {
		p = &payload{data: huge.Float32s(size)}
	}
	p.data = p.data[:n]
	p.id, p.crc, p.pins, p.logged, p.pending = payloadID{}, 0, 1, 0, false
	p.filled, p.growth, p.readers = 0, growing, p.readers[:0]
	return p
}

// share makes a payload that was read from the disk known; it stays pinned.
func (t *payloads) share(p *payload) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.filled, p.growth = int(p.size()), whole
	t.held[p.id] = p
}

// name gives a payload that a client sends its id.
func (t *payloads) name(p *payload) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seq++
	p.id = payloadID{t.source, t.seq}
}

// grow tells the senders that so many bytes of the payload are there.
func (t *payloads) grow(p *payload, filled int) {
	t.mu.Lock()
	p.filled = filled
	t.mu.Unlock()
	p.wakeReaders()
}

// complete shares a payload that is all there; it stays pinned.
func (t *payloads) complete(p *payload, crc uint32) {
	t.mu.Lock()
	p.filled, p.growth, p.crc = int(p.size()), whole, crc
	t.held[p.id] = p
	t.mu.Unlock()
	p.wakeReaders()
}

// abandon takes a payload back of which no more will come, with the caller's pin.
func (t *payloads) abandon(p *payload) {
	t.mu.Lock()
	p.growth = failed
	t.mu.Unlock()
	p.wakeReaders()
	t.release(p)
}

func (p *payload) wakeReaders() {
	for _, s := range p.readers {
		poke(s.wake)
	}
}

// reach is how much of a payload is there.
func (t *payloads) reach(p *payload) (filled int, g growth) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return p.filled, p.growth
}

// arrive shares a payload received on the side channel and takes over the caller's pin.
// One that is held already is dropped.
func (t *payloads) arrive(p *payload, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.pins--
	if _, dup := t.held[p.id]; dup {
		t.recycle(p)
		return
	}
	p.filled, p.growth = int(p.size()), whole
	p.pending, p.arrived = true, now
	t.held[p.id] = p
	t.pendingBytes += p.size()
	for t.pendingBytes > t.pendingLimit && t.dropOldest(p) {
	}
	t.notify()
}

// dropOldest drops the pending payload that arrived first, sparing the newcomer.
func (t *payloads) dropOldest(spare *payload) bool {
	var oldest *payload
	for _, p := range t.held {
		if p.pending && p.pins == 0 && p != spare && (oldest == nil || p.arrived.Before(oldest.arrived)) {
			oldest = p
		}
	}
	if oldest == nil {
		return false
	}
	t.unpend(oldest)
	t.settle(oldest)
	return true
}

// sweep drops what arrived before the given time and was never proposed.
func (t *payloads) sweep(before time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.held {
		if p.pending && p.arrived.Before(before) {
			t.unpend(p)
			t.settle(p)
		}
	}
}

// pin returns the payload for use until release, or nil if it is not held.
func (t *payloads) pin(id payloadID) *payload {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.held[id]
	if p != nil {
		p.pins++
	}
	return p
}

// repin adds a pin to a payload that the caller has pinned.
func (t *payloads) repin(p *payload) {
	t.mu.Lock()
	p.pins++
	t.mu.Unlock()
}

func (t *payloads) release(p *payload) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.pins--
	t.settle(p)
}

// log marks every payload referred to as belonging to the log, if all are held as the
// log describes them; else it marks none and appends the missing ones to missing.
func (t *payloads) log(refs, missing []reference) []reference {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range refs {
		p := t.held[r.id]
		if p == nil || p.crc != r.crc || p.size() != int64(r.length) {
			missing = append(missing, r)
		}
	}
	if len(missing) > 0 {
		return missing
	}
	for _, r := range refs {
		p := t.held[r.id]
		t.unpend(p)
		if p.logged == 0 {
			t.loggedBytes += p.size()
		}
		p.logged++
	}
	return missing
}

// unlog takes back one mark of log.
func (t *payloads) unlog(id payloadID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.held[id]
	if p == nil || p.logged == 0 { // the disk had lost it
		return
	}
	p.logged--
	if p.logged == 0 {
		t.loggedBytes -= p.size()
	}
	t.settle(p)
}

func (t *payloads) unpend(p *payload) {
	if p.pending {
		p.pending = false
		t.pendingBytes -= p.size()
	}
}

// settle forgets a payload that nothing holds any more.
func (t *payloads) settle(p *payload) {
	if p.pins > 0 || p.logged > 0 || p.pending {
		return
	}
	if t.held[p.id] == p {
		delete(t.held, p.id)
	}
	t.recycle(p)
}

// recycle keeps the buffer for the next payload. Making one anew costs several times what replicating it does
// (the system clears its pages), so what a log gives back when it is cut is kept until trim finds it unused.
func (t *payloads) recycle(p *payload) {
	size := cap(p.data)
	t.freeBytes += int64(4 * size)
	t.free[size] = append(t.free[size], p)
}

// trim gives up the free buffers that nobody has needed since the last trim: only a burst had.
func (t *payloads) trim() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for size, l := range t.free {
		n := min(len(l), int(t.idleBytes/int64(4*size)))
		t.idleBytes -= int64(n) * int64(4*size)
		t.freeBytes -= int64(n) * int64(4*size)
		t.free[size] = slices.Delete(l, 0, n)
	}
	t.idleBytes = t.freeBytes
}

func (t *payloads) logBytes() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.loggedBytes
}

// notify wakes hold; a wake-up that is already due covers this one.
func (t *payloads) notify() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// discard gives back a payload that was never shared.
func (t *payloads) discard(p *payload) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.pins--
	t.recycle(p)
}
