package collective

// The ring's timetable, as pure functions.
//
// The vector is cut into one segment per rank; rank i owns segment i. Time goes in hops, numbered from 0 to 2(n-1)-1.
// In hop h rank r sends segment r-1-h to r+1 and receives segment r-2-h from r-1 (all modulo n). What arrives in hop h
// is what goes out in hop h+1. In the hops before n-1 (reduce-scatter) an arriving segment is added to the own one: in
// hop n-2 arrives segment r, now the sum of all. From hop n-1 on (all-gather) it replaces the own one.
//
// A segment is sent in chunks, cut by the sender as it goes: while one chunk travels, the one before it is being added.

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
	chunk       int   // elements per chunk, at most
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

func (t *timetable) length(segment int) int { return t.bound(segment+1) - t.bound(segment) }

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

// cursor walks over the elements of an operation in the order of the hops: those that go out, or those that come in.
type cursor struct {
	incoming bool
	hop      int
	lo, end  int // elements [lo, end) are left of the segment of this hop
	done     bool
}

func (c *cursor) start(t *timetable, incoming bool) {
	*c = cursor{incoming: incoming, hop: t.first - 1}
	c.skip(t)
}

// skip goes on to the next hop that has anything to do.
func (c *cursor) skip(t *timetable) {
	for c.lo == c.end {
		if c.hop++; c.hop >= t.end {
			c.done = true
			return
		}
		s := t.sent(c.hop)
		if c.incoming {
			s = t.received(c.hop)
		}
		c.lo, c.end = t.bound(s), t.bound(s+1)
	}
}

// next passes n elements of the current segment.
func (c *cursor) next(t *timetable, n int) {
	c.lo += n
	c.skip(t)
}
