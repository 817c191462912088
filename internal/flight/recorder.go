package flight

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/musterml/muster/internal/id"
)

// Track is the line of a trace that a span is drawn on; spans of one track do not overlap, except on Push and Servers, those of two may.
type Track uint8

// The tracks of a node.
const (
	Step    Track = iota // the step loop itself
	Sum                  // adding up gradients here, for the ring
	Ring                 // operations on the ring
	Push                 // buckets given to the parameter servers, several at a time
	Servers              // other requests to them
	Compute              // the first of those that compute, one logical shard at a time; the next is Compute+1
)

// NoBucket is the Bucket of an operation on the ring that is of none.
const NoBucket = math.MaxUint32

// Span is one thing that a node did.
type Span struct {
	What   string // the same every time: "forward", "AllReduce"
	Track  Track
	View   id.View
	Step   id.Step
	Shard  id.LogicalShard // on the Compute tracks: the first of
	Shards int             // so many that are computed together

	// Of operations on the ring:
	Of        string // how elements become one: "SumInt32"; "" where they do not
	Bucket    uint32 // of the gradient; on the Sum and Push tracks as well
	Bytes     int    // of the vector
	Transport string

	// Waits is asked, while the span is under way, for whom it waits and since when. It may be nil.
	Waits func() (peer id.Node, since time.Time, ok bool)

	Begin int64 // nanoseconds, Unix time by a clock that never jumps
	End   int64 // 0 while it is under way
	Outcome
}

// Outcome is what is known of a span at its end.
type Outcome struct {
	Err error

	// Of operations on the ring, since Begin:
	Data    time.Duration // until the first data came in; the short way: until all had come. 0 where none did
	Reduced time.Duration // until this rank's part was the sum of all; 0 where nothing is summed piece by piece
	Peer    id.Node       // the neighbour that was waited for longest, "" for none
	Waited  time.Duration // that longest wait
}

// Recorder keeps the last spans of a node. Safe for concurrent use; a nil Recorder records nothing.
type Recorder struct {
	unix int64     // when it was made, Unix nanoseconds
	made time.Time // the same moment, with the monotonic clock

	mu    sync.Mutex
	spans []Span // span number n is at n % len(spans)
	next  uint64 // number of the next span
}

// Mark is a span that has begun.
type Mark struct {
	number uint64
	made   bool // false of the zero Mark, which is no span
}

// DefaultSpans is enough for some hundreds of steps, in a megabyte.
const DefaultSpans = 4096

// New makes a recorder that keeps n spans.
func New(n int) *Recorder {
	now := time.Now()
	return &Recorder{unix: now.UnixNano(), made: now, spans: make([]Span, n)}
}

func (r *Recorder) now() int64 { return r.unix + int64(time.Since(r.made)) }

// Begin records that s is under way from now on.
func (r *Recorder) Begin(s Span) Mark {
	if r == nil {
		return Mark{}
	}
	s.Begin, s.End = r.now(), 0
	r.mu.Lock()
	defer r.mu.Unlock()
	m := Mark{number: r.next, made: true}
	r.spans[r.next%uint64(len(r.spans))] = s
	r.next++
	return m
}

// End records that a span has ended. One that newer spans have pushed out stays out.
func (r *Recorder) End(m Mark, o Outcome) {
	if r == nil || !m.made {
		return
	}
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next-m.number <= uint64(len(r.spans)) {
		s := &r.spans[m.number%uint64(len(r.spans))]
		s.End, s.Outcome, s.Waits = now, o, nil
	}
}

// Spans returns what is kept, in the order in which the spans began.
func (r *Recorder) Spans() []Span {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := uint64(len(r.spans))
	if r.next <= n {
		return slices.Clone(r.spans[:r.next])
	}
	at := r.next % n
	return append(slices.Clone(r.spans[at:]), r.spans[:at]...)
}
