package collective

// The ring's timetable, as pure functions.
//
// The vector is cut into one segment per rank; rank i owns segment i. Time goes in hops, numbered from 0 to 2(n-1)-1.
// In hop h rank r sends segment r-1-h to r+1 and receives segment r-2-h from r-1 (all modulo n). What arrives in hop h
// is what goes out in hop h+1. In the hops before n-1 (reduce-scatter) an arriving segment is added to the own one: in
// hop n-2 arrives segment r, now the sum of all. From hop n-1 on (all-gather) it replaces the own one.
//
// All hops are made with one chunk of every segment before the next chunks are: a round. What comes in is then
// still in the processor's cache when it goes out again, and at the end of the round its result replaces it there. What
// is on its way at one time is a chunk for each rank, so it must not be too small for long ways: see FarChunkBytes.
//
// A chunk is sent in frames, cut by the sender as it goes: while one travels, the one before it is being added.

// phase is one half of an all-reduce.
type phase uint8

const (
	phaseNone phase = iota
	phaseReduce
	phaseGather
	phaseExchange // the short way: whole.go
)

func (p phase) String() string {
	switch p {
	case phaseReduce:
		return "reduce-scatter"
	case phaseGather:
		return "all-gather"
	case phaseExchange:
		return "exchange"
	}
	return "idle"
}

// timetable is what one operation does, from the view of one rank.
type timetable struct {
	rank, world int
	elems       int   // length of the vector
	chunk       int   // elements of a segment that a round takes, about
	bounds      []int // world+1 offsets, or nil: equal segments
	first, end  int   // hops [first, end)
}

// bound is where segment i begins. Equal segments differ by at most one element; the first ones are longer.
func (t *timetable) bound(i int) int {
	if t.bounds != nil {
		return t.bounds[i]
	}
	return t.elems/t.world*i + min(i, t.elems%t.world)
}

// part is what a round takes of segment i.
func (t *timetable) part(round, i int) (lo, hi int) {
	lo, hi = t.bound(i), t.bound(i+1)
	switch last := t.roundsFor(hi-lo) - 1; {
	case round > last:
		return hi, hi
	case round == last:
		return lo + round*t.chunk, hi
	}
	lo += round * t.chunk
	return lo, lo + t.chunk
}

// roundsFor is how many a segment of that length needs. The last one takes up to an eighth more than a chunk: a round of its
// own for the rest would be all waiting. (A mebibyte in two ranks has 768 bytes more than two chunks.)
func (t *timetable) roundsFor(length int) int {
	if length == 0 {
		return 0
	}
	return max(1, (length-t.chunk/8+t.chunk-1)/t.chunk)
}

func (t *timetable) length(round, i int) int {
	lo, hi := t.part(round, i)
	return hi - lo
}

// rounds is how many the longest segment needs.
func (t *timetable) rounds() int {
	longest := 0
	for i := range t.world {
		longest = max(longest, t.bound(i+1)-t.bound(i))
	}
	return t.roundsFor(longest)
}

// sent is the segment that goes out in a hop; received the one that comes in.
func (t *timetable) sent(hop int) int     { return t.wrap(t.rank - 1 - hop) }
func (t *timetable) received(hop int) int { return t.sent(hop + 1) }

func (t *timetable) wrap(i int) int {
	i %= t.world
	if i < 0 {
		i += t.world
	}
	return i
}

func (t *timetable) phase(hop int) phase {
	if hop < t.world-1 {
		return phaseReduce
	}
	return phaseGather
}

// cursor walks over the elements of an operation in the order of the rounds and hops: those that go out, or those that
// come in.
type cursor struct {
	incoming bool
	round    int
	rounds   int
	hop      int
	lo, end  int // elements [lo, end) are left of the chunk of this hop
	done     bool

	// In this round element i that comes in is element i+lead that goes out, both counted from the first of the operation.
	lead int
	size int // elements of this round, in all segments
}

func (c *cursor) start(t *timetable, incoming bool) {
	*c = cursor{incoming: incoming, rounds: t.rounds(), hop: t.end, round: -1}
	c.skip(t)
}

// skip goes on to the next hop that has anything to do.
func (c *cursor) skip(t *timetable) {
	for c.lo == c.end {
		if c.hop++; c.hop >= t.end {
			if c.round+1 == c.rounds {
				c.done = true
				return
			}
			c.turn(t)
		}
		s := t.sent(c.hop)
		if c.incoming {
			s = t.received(c.hop)
		}
		c.lo, c.end = t.part(c.round, s)
	}
}

// turn begins the next round.
func (c *cursor) turn(t *timetable) {
	if c.round >= 0 { // what had come of the last round before it was the lead's end, and what never went out
		c.lead -= t.length(c.round, t.sent(t.end))
	}
	c.round++
	c.hop = t.first
	c.lead += t.length(c.round, t.sent(t.first))
	c.size = 0
	for i := range t.world {
		c.size += t.length(c.round, i)
	}
}

// next passes n elements of the current chunk.
func (c *cursor) next(t *timetable, n int) {
	c.lo += n
	c.skip(t)
}
