package collective

import (
	"context"
	"runtime"
	"sync"
)

// Form is how the elements of a sum of float32 vectors travel: BF16, *Int8 or *ExactSum. (As float32 they travel with
// AllReduce and ReduceScatter.) It must be the same on all ranks.
//
// A vector is coded in units of up to about formUnit elements: a unit is what a frame of the ring carries, and no more words on
// the wire than it has elements. So the words of a unit lie where the unit begins in the caller's vector, from when they are
// made of this rank's contribution, and what has come, until the result is taken out of them, and every step of
// that is done once, while the unit is in the cache:
//
//   - where a segment begins its way, the contribution is encoded in place just before it is sent;
//   - where it passes, what comes is added to the contribution in place (decoded, added, encoded), and sent on;
//   - on its second way the result goes as it is from rank to rank, and is decoded where it lies once it has been sent
//     on; also by the rank that made it, so that all have the same bits. Where words are as long as elements, it is decoded
//     by the rank that made it alone, before its second way, and goes as elements.
//
// So the vector passes through memory twice: it is read once, encoded or added, and written once, decoded. What lies
// between is words in the cache. An exact sum reads it once before that, for the exponents.
//
// Rejected: memory for words beside the vector. It is one more stream through memory in each half of an all-reduce, and a
// cyclic one that fits the cache would stop a reader when the next rank is slow.
type Form interface {
	reduce() Reduce
	digest() uint32
	check(n int) error
	// words is how many n elements of a unit take.
	words(n int) int
	// encode makes dst of x, the elements of a unit from element lo of the vector on.
	encode(w *work, dst []int32, x []float32, lo int)
	// add makes dst of x and src. In both functions dst may begin where x or src do.
	add(w *work, dst, src []int32, x []float32, lo int)
	// decode makes elements of src, which may begin where dst does.
	decode(w *work, dst []float32, src []int32, lo int)
	// merge makes dst of the contributions of all ranks, in their order, and may use their memory.
	merge(w *work, dst []float32, parts [][]int32, lo int)
	// plain: words are as long as elements, so a result goes its second way as elements.
	plain() bool
}

// formUnit is how many elements a unit has at most, and 2*socketPiece how many bytes its words take. Measured on loopback: with
// half as many there are more calls of the kernel, with more there is less overlap.
const formUnit = 128 << 10

// unitGrain is what a unit is a multiple of: whole blocks of Int8, and whole lines of the cache.
const unitGrain = int8Block

// work is scratch memory of one goroutine.
type work struct {
	block [int8Block]float32
	words [int8Words]int32
}

// Sum adds x, of float32, over all ranks in a form. Like AllReduce it aborts the ring when ctx ends.
func (r *Ring) Sum(ctx context.Context, op Op, x Vector, f Form) error {
	return r.sum(ctx, verbAllReduce, op, x, nil, f)
}

// SumScatter adds x over all ranks in a form; rank i gets [bounds[i], bounds[i+1]) of the result in its place in x, as with
// ReduceScatter.
func (r *Ring) SumScatter(ctx context.Context, op Op, x Vector, bounds []int, f Form) error {
	return r.sum(ctx, verbReduceScatter, op, x, bounds, f)
}

func (r *Ring) sum(ctx context.Context, v verb, op Op, x Vector, bounds []int, f Form) error {
	if err := SumFloat32.check(x); err != nil {
		return err
	}
	if err := f.check(x.Len()); err != nil {
		return err
	}
	x.form = f
	return r.do(ctx, v, op, x, bounds, f.reduce(), 0)
}

// unitOf is how many elements a unit of a form has, where a round takes chunk elements of a segment: as many as just fill one
// to four of the segments that TCP cuts (socketPiece). Units are cut from where a round's part of a segment begins, and whoever
// receives cuts as who sends.
func unitOf(f Form, chunk int) int {
	bytes := f.words(formUnit) * elemSize
	segments := min(max(1, (headerSize+bytes)/loopbackSegment), 4)
	fit := formUnit * (segments*loopbackSegment - headerSize) / bytes
	return min(min(fit, formUnit)/unitGrain*unitGrain, chunk)
}

// coded: in that hop words travel, not elements as they are.
func (c *call) coded(hop int) bool {
	return c.x.form != nil && (c.phase(hop) == phaseReduce || !c.x.form.plain())
}

// wire is how many bytes n elements of the vector take in a frame of that hop.
func (c *call) wire(hop, n int) int {
	if !c.coded(hop) {
		return n * elemSize
	}
	return c.x.form.words(n) * elemSize
}

// outgoing is what a frame of n elements carries.
func (c *call) outgoing(hop, lo, n int) []byte {
	if hop == c.first && c.reduce != 0 && !c.coded(hop) {
		return c.x.input(lo, lo+n)
	}
	return c.x.raw[lo*elemSize:][:c.wire(hop, n)]
}

// frameElems is how many of n elements of a segment's part are carried by a frame of that many bytes; -1: none are.
func (c *call) frameElems(hop, bytes, n int) int {
	switch unit := cut(n, c.unit); {
	case !c.coded(hop):
		return min(bytes/elemSize, n+1)
	case bytes == c.wire(hop, unit):
		return unit
	}
	return -1
}

// place is where the words of a unit lie.
func (c *call) place(lo, n int) []byte { return c.x.bytes(lo, lo+c.x.form.words(n)) }

func (c *call) floats(lo, n int) []float32 { return asFloat32(c.x.bytes(lo, lo+n)) }

// input is this rank's contribution to a unit.
func (c *call) input(lo, n int) []float32 { return asFloat32(c.x.input(lo, lo+n)) }

// encodeUnit makes ready what begins its way here.
func (r *Ring) encodeUnit(lo, n int) {
	c := &r.call
	if hop := r.outgoing.hop; c.coded(hop) && c.phase(hop) == phaseReduce && hop == c.first {
		c.x.form.encode(&r.sendWork, asInt32(c.place(lo, n)), c.input(lo, n), lo)
	}
}

// decodeSent takes a result out of its words, which have been sent on.
func (r *Ring) decodeSent(lo, n int) {
	c := &r.call
	if hop := r.outgoing.hop; c.coded(hop) && c.phase(hop) == phaseGather {
		c.x.form.decode(&r.sendWork, c.floats(lo, n), asInt32(c.place(lo, n)), lo)
	}
}

// landing is where a unit that comes is put: where it is sent on from, or else the ring's scratch.
func (r *Ring) landing(lo, n int) []byte {
	c, hop := &r.call, r.incoming.hop
	if c.phase(hop) == phaseGather && hop < c.end-1 {
		return c.place(lo, n)
	}
	return r.scratch[:c.wire(hop, n)]
}

// takeUnit deals with a coded unit of n elements that has come.
func (r *Ring) takeUnit(n int) {
	c, at, w := &r.call, &r.incoming, &r.recvWork
	f, lo := c.x.form, at.lo
	came, place := asInt32(r.scratch[:c.wire(at.hop, n)]), asInt32(c.place(lo, n))
	last := at.hop == c.end-1                          // it goes no further
	result := last || at.hop == c.world-2 && f.plain() // it goes on as elements, if it does
	switch {
	case c.phase(at.hop) == phaseReduce && !result:
		f.add(w, place, came, c.input(lo, n), lo)
	case c.phase(at.hop) == phaseReduce:
		f.add(w, came, came, c.input(lo, n), lo)
		f.decode(w, c.floats(lo, n), came, lo)
	case last:
		f.decode(w, c.floats(lo, n), came, lo)
	} // else it has come to its place, and goes on from there
}

// eachUnit calls do for every unit of the whole vector and its place among all words: how it goes the short way, in units of
// wholeTile at most.
func (c *call) eachUnit(do func(lo, n, at int)) {
	at := 0
	for lo := 0; lo < c.elems; lo += c.unit {
		n := min(c.unit, c.elems-lo)
		do(lo, n, at)
		at += c.x.form.words(n)
	}
}

// wholeWords is how many words the vector takes the short way.
func (c *call) wholeWords() int {
	if c.elems == 0 {
		return 0
	}
	full := (c.elems - 1) / c.unit
	return full*c.x.form.words(c.unit) + c.x.form.words(c.elems-full*c.unit)
}

// encodeWhole makes this rank's contribution to an operation that goes the short way.
func (r *Ring) encodeWhole() {
	c := &r.call
	c.eachUnit(func(lo, n, at int) {
		c.x.form.encode(&r.sendWork, asInt32(c.own)[at:at+c.x.form.words(n)], c.input(lo, n), lo)
	})
}

// mergeWhole makes the result out of all contributions, also of those parts that a reduce-scatter need not give.
func (r *Ring) mergeWhole() {
	c := &r.call
	c.eachUnit(func(lo, n, at int) {
		for origin := range r.parts {
			frame := r.whole.frame(c.seq, origin)[headerSize:]
			r.parts[origin] = asInt32(frame)[at : at+c.x.form.words(n)]
		}
		c.x.form.merge(&r.recvWork, c.floats(lo, n), r.parts, lo)
	})
}

// sumAlone is a sum in a world of one: in a form it is rounded as any other, on all processors.
func (r *Ring) sumAlone(x Vector) {
	if x.form == nil {
		copy(x.raw, x.own)
		return
	}
	c := call{x: x, unit: unitOf(x.form, r.cfg.ChunkBytes/elemSize)}
	units := (x.Len() + c.unit - 1) / c.unit
	processors := min(runtime.GOMAXPROCS(0), max(1, units))
	var others sync.WaitGroup
	for i := range processors {
		part := func() {
			w := new(work)
			for u := i * units / processors; u < (i+1)*units/processors; u++ {
				lo := u * c.unit
				n := min(c.unit, x.Len()-lo)
				words := asInt32(c.place(lo, n))
				x.form.encode(w, words, c.input(lo, n), lo)
				x.form.decode(w, c.floats(lo, n), words, lo)
			}
		}
		if i == processors-1 {
			part()
		} else {
			others.Go(part)
		}
	}
	others.Wait()
}
