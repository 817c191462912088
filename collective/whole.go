package collective

import (
	"context"
	"fmt"
)

// The short way: operations on vectors so small that their time goes into hops, not into bytes.
//
// Every rank's contribution travels whole, both ways round the ring at once: to the right over world/2 ranks, to the
// left over the others. Nobody is asked first, and every rank adds up all contributions itself, in the order of the
// ranks, so that all have the same bits. An all-reduce takes world/2 hops instead of 2(world-1) and the call frame
// before them; in a world of two it takes one. The price is world-1 vectors on the wire instead of 2(world-1)/world.
//
// The caller's vector is written last: after an error x is what it was.
//
// Why nobody need be asked: a rank completes such an operation only when it has the contributions of all, so none is
// ever more than one operation ahead of another. A contribution to operation k is sent to a neighbour that has been
// seen to begin k-1; the neighbour is then in k-1 or in k, and has a place for either: frames of two operations are
// kept by turns. The readers therefore never stop reading, as with the long way, and a contribution that comes before
// its operation has begun here waits in its place. The caller of the operation does all the rest: it compares, passes
// on and adds. A write of so few bytes blocks only where a neighbour's process stands still, and no longer than it
// takes the watch to find that out.
//
// Rejected: recursive doubling, which takes log2(world) hops, but needs log2(world) connections per rank, each of
// them with heartbeats and aborts of its own; in worlds up to 5 it has no fewer hops, up to 8 only one fewer.

// maxWholeBytes bounds Config.SmallBytes.
const maxWholeBytes = 512 << 10

// defaultSmallBytes was measured on loopback (muster bench ring --small -1, and 524288; worlds 2, 3, 4): there the short
// way takes a third to three quarters of the long way's time up to 128 KiB, and loses from 512 KiB on in worlds of 2
// and 3, from 256 KiB in one of 4. A link that is slower than loopback feels its larger number of bytes earlier (world/2
// vectors instead of 2(world-1)/world), hence no larger limits.
func defaultSmallBytes(world int) int {
	return max(maxWholeBytes/max(world, 2)/elemSize*elemSize, 1<<10)
}

// wholes is what a ring keeps for the short way.
type wholes struct {
	limit       int       // bytes of a contribution; negative: there is no short way
	right, left int       // hops to the right and to the left; together world-1
	memory      [2][]byte // operations by turns: a frame, header and contribution, for each other rank
	done        exchanged // of the current operation
}

func newWholes(limit, world int) wholes {
	w := wholes{limit: limit, right: world / 2, left: (world - 1) / 2}
	if limit >= 0 {
		for i := range w.memory {
			w.memory[i] = make([]byte, world*w.stride())
		}
	}
	return w
}

func (w *wholes) stride() int { return headerSize + (w.limit+headerSize-1)/headerSize*headerSize }

// frame is the place of a rank's contribution to an operation.
func (w *wholes) frame(seq uint64, origin int) []byte {
	at := origin * w.stride()
	return w.memory[seq&1][at : at+w.stride()]
}

// wholesFrom is how many contributions come over a link in each operation: those of the ranks on that side.
func (r *Ring) wholesFrom(l *link) int {
	if l == &r.prev {
		return r.whole.right
	}
	return r.whole.left
}

// origin is whose contribution comes i-th over a link.
func (r *Ring) origin(l *link, i int) int {
	if l == &r.prev {
		return (r.cfg.Rank + r.world - 1 - i) % r.world
	}
	return (r.cfg.Rank + 1 + i) % r.world
}

// came is how many contributions to an operation have come over a link. A later operation's have come only when all
// of this one's had.
func (r *Ring) came(l *link, seq uint64) int {
	v := l.came.Load()
	switch at := v >> 16; {
	case at > seq:
		return r.wholesFrom(l)
	case at == seq:
		return int(v & 0xffff)
	}
	return 0
}

// see notes that a peer has begun an operation.
func (r *Ring) see(l *link, seq uint64) {
	if l.seen.Load() < seq {
		l.seen.Store(seq)
		r.stir(false)
	}
}

// seen is the latest operation that the peer at the end of a link is known to have begun.
func (r *Ring) seen(l *link) uint64 {
	if r.world == 2 { // one peer at the ends of both
		return max(r.prev.seen.Load(), r.next.seen.Load())
	}
	return l.seen.Load()
}

// admitWhole finds the place of the next contribution. The order of the ranks says whose it must be: nothing in the
// header moves memory. What it belongs to is compared by the caller of the operation, who may not have begun it yet.
func (r *Ring) admitWhole(l *link, in *inlet) error {
	h, v := &in.h, l.came.Load()
	seq, n, need := v>>16, int(v&0xffff), r.wholesFrom(l)
	if h.seq > seq && (seq == 0 || n == need) {
		seq, n = h.seq, 0
	}
	r.mu.Lock()
	begun := r.call.seq
	r.mu.Unlock()
	switch {
	case h.seq != seq || n >= need || int(h.hop) != n+1 || int(h.length) > r.whole.limit:
		return fmt.Errorf("%w: contribution %d of %d bytes to operation %d, expected number %d of %d to operation %d",
			ErrProtocol, h.hop, h.length, h.seq, n+1, need, seq)
	case h.seq < begun || h.seq > begun+1:
		return fmt.Errorf("%w: contribution to operation %d, this rank has begun %d", ErrProtocol, h.seq, begun)
	}
	frame := r.whole.frame(seq, r.origin(l, n))
	copy(frame, in.head[:])
	in.dst = frame[headerSize : headerSize+int(h.length)]
	return nil
}

// settleWhole: it has come.
func (r *Ring) settleWhole(l *link, h *header) error {
	l.came.Store(h.seq<<16 | uint64(h.hop))
	r.moved.Store(r.now())
	l.seen.Store(h.seq)
	r.stir(false)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.call.small {
		return nil // its caller compares
	}
	return r.compare(h)
}

// early compares a contribution that came before the operation began here, for an operation that goes the long way.
func (r *Ring) early(l *link, seq uint64) error {
	if r.whole.limit < 0 || r.came(l, seq) == 0 || l.came.Load()>>16 != seq {
		return nil
	}
	h, err := parseFrame(r.whole.frame(seq, r.origin(l, 0)))
	if err != nil {
		return err
	}
	return r.compare(&h)
}

func parseFrame(frame []byte) (h header, err error) {
	err = h.parse((*[headerSize]byte)(frame))
	return h, err
}

// exchanged is how far an operation of the short way has come: contributions compared and written.
type exchanged struct {
	fromPrev, fromNext, toPrev, toNext int
	nextBegun, prevBegun               bool // the frame that is being written now
}

// exchange runs an operation the short way.
func (r *Ring) exchange(ctx context.Context) error {
	r.whole.done = exchanged{}
	if r.call.x.form != nil {
		r.encodeWhole()
	}
	r.sit(true)
	defer r.rise()
	for {
		if r.drive(ctx) {
			r.tally.data = r.now() - r.call.began
			r.combine()
			return nil
		}
		_, peer := r.missing()
		asleep := r.now()
		err := r.awaitStir(ctx)
		r.tally.wait(peer, r.now()-asleep)
		if err != nil {
			return err
		}
		r.sit(false)
	}
}

// awaitStir returns when something new may have come, or the ring has failed.
func (r *Ring) awaitStir(ctx context.Context) error {
	select {
	case <-r.stirred:
		return nil
	case <-ctx.Done():
		r.giveUp(context.Cause(ctx))
	case <-r.failed:
	}
	return r.Err()
}

// exchangeStep does what can be done, with waiting for the connections or without, and returns true when all is there.
func (r *Ring) exchangeStep(wait bool) bool {
	w := &r.whole
	if l, err := r.advance(&w.done, wait); err != nil {
		if err != errNotNow {
			r.loseWriting(l, err)
		}
		return false
	}
	e := &w.done
	return e.fromPrev == w.right && e.toNext == w.right && e.fromNext == w.left && e.toPrev == w.left
}

// advance returns with errNotNow where a connection takes no more now; another error comes with the link it is about.
func (r *Ring) advance(e *exchanged, wait bool) (*link, error) {
	c, w := &r.call, &r.whole
	for e.fromPrev < r.came(&r.prev, c.seq) {
		if err := r.judge(&r.prev, e.fromPrev); err != nil {
			return &r.prev, err
		}
		e.fromPrev++
	}
	for e.fromNext < r.came(&r.next, c.seq) {
		if err := r.judge(&r.next, e.fromNext); err != nil {
			return &r.next, err
		}
		e.fromNext++
	}
	// The own contribution goes both ways, then what came from the other side goes on, nearest first.
	var full error
	for e.toNext < w.right && e.toNext <= e.fromPrev && r.seen(&r.next)+1 >= c.seq {
		err := r.pass(&r.next, (r.cfg.Rank+r.world-e.toNext)%r.world, e.toNext, &e.nextBegun, wait)
		if full = err; err == errNotNow {
			break
		} else if err != nil {
			return &r.next, err
		}
		e.toNext++
	}
	for e.toPrev < w.left && e.toPrev <= e.fromNext && r.seen(&r.prev)+1 >= c.seq {
		err := r.pass(&r.prev, (r.cfg.Rank+e.toPrev)%r.world, e.toPrev, &e.prevBegun, wait)
		if err != nil {
			return &r.prev, err
		}
		e.toPrev++
	}
	return nil, full
}

// judge compares the i-th contribution that came over a link with this rank's call.
func (r *Ring) judge(l *link, i int) error {
	c, origin := &r.call, r.origin(l, i)
	h, err := parseFrame(r.whole.frame(c.seq, origin))
	if err == nil {
		err = r.compare(&h)
	}
	if err == nil && int(h.length) != len(c.part(origin)) {
		err = fmt.Errorf("%w: contribution of %d bytes, expected %d", ErrProtocol, h.length, len(c.part(origin)))
	}
	return err
}

// pass writes a rank's contribution to a neighbour, or goes on with it.
func (r *Ring) pass(l *link, origin, hops int, begun *bool, wait bool) error {
	o := l.bulkOut
	if wait {
		o.Lock()
	} else if !o.TryLock() {
		return errNotNow
	}
	defer o.Unlock()
	if o.sealed {
		return ErrLeft
	}
	part := r.call.part(origin)
	if !*begun {
		if err := o.flush(wait); err != nil { // somebody else's
			return err
		}
		if origin != r.cfg.Rank {
			part = r.whole.frame(r.call.seq, origin)[headerSize : headerSize+len(part)]
		}
		h := r.callHeader(kindWhole)
		h.hop = uint16(hops + 1)
		o.begin(&h, part)
		*begun = true
	}
	err := o.flush(wait)
	if err == nil {
		*begun = false
		r.sentBytes.Add(uint64(len(part)))
	}
	return err
}

// part is what a rank contributes.
func (c *call) part(rank int) []byte {
	switch c.verb {
	case verbAllReduce, verbReduceScatter:
		if c.x.form != nil {
			return c.own
		}
		return c.x.input(0, c.elems)
	case verbAllGather, verbBroadcast:
		return c.x.bytes(c.bound(rank), c.bound(rank+1))
	}
	return nil
}

// combine makes the result out of all contributions, in the order of the ranks.
func (r *Ring) combine() {
	c := &r.call
	if c.x.form != nil {
		r.mergeWhole()
		return
	}
	lo, hi := 0, len(c.x.raw)
	switch c.verb {
	case verbBarrier:
		return
	case verbAllGather, verbBroadcast:
		for origin := range r.world {
			if origin != r.cfg.Rank {
				copy(c.part(origin), r.whole.frame(c.seq, origin)[headerSize:])
			}
		}
		return
	case verbReduceScatter:
		lo, hi = elemSize*c.bound(r.cfg.Rank), elemSize*c.bound(r.cfg.Rank+1)
	}
	for ; lo < hi; lo += wholeTile {
		r.sumWhole(lo, min(lo+wholeTile, hi))
	}
}

// wholeTile is how many bytes of a result are made at a time: those of all contributions stay in the first-level cache.
const wholeTile = 8 << 10

// sumWhole makes the bytes [lo, hi) of a sum.
func (r *Ring) sumWhole(lo, hi int) {
	c := &r.call
	of := func(origin int) []byte {
		if origin == r.cfg.Rank {
			return c.part(origin)[lo:hi]
		}
		return r.whole.frame(c.seq, origin)[headerSize+lo : headerSize+hi]
	}
	sum := of(0)
	if r.cfg.Rank == 0 && c.x.apart {
		sum = c.x.raw[lo:hi]
		copy(sum, of(0))
	}
	for origin := 1; origin < r.world; origin++ {
		c.reduce.apply(sum, of(origin))
	}
	if r.cfg.Rank != 0 {
		copy(c.x.raw[lo:hi], sum)
	}
}
