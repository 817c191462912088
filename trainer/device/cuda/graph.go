package cuda

import (
	"os"
	"slices"
)

// How calls reach the queue.
//
// Calls are kept back until something has to come after them: a copy, an event, the end of the step. What has gathered by then is a
// segment. One that has been asked for before, word for word, is made a graph of (the driver's: the same
// calls on a stream that captures them instead of doing them), which is one call to the driver instead of many, without gaps between kernels. The next time
// the graph is replayed. So a graph needs no rule for when it is out of date: it stands for the calls that it was made of, and where a
// shape or an address is another, another segment is asked for.
//
// What differs from step to step must therefore not be an argument: the key of dropout lies in memory (keys.go), as
// samples and weights do. And where a driver cannot do graphs, calls are asked for one by one, as soon as they come.

// GraphsVariable is the environment's variable that, set to off, has every kernel launched by itself.
const GraphsVariable = "MUSTER_CUDA_GRAPHS"

const (
	fewestCalls  = 4  // fewer are not worth a graph
	mostSegments = 64 // that are remembered; of more the one that was not used for the longest time is forgotten
)

// graphs are the segments of a stream that were asked for before.
type graphs struct {
	off      bool
	segments []*segment
	clock    int // counts segments
}

// segment is calls that follow one another.
type segment struct {
	calls []call
	graph graph // nil until they are asked for again
	used  int   // the clock then
}

func newGraphs() graphs { return graphs{off: os.Getenv(GraphsVariable) == "off"} }

// issue asks the queue for all calls that were kept back.
func (s *stream) issue() {
	calls := s.calls[s.issued:]
	s.issued = len(s.calls)
	if len(calls) == 0 || s.broken != nil {
		return
	}
	s.hasAsked = true
	if s.graphs.off || len(calls) < fewestCalls {
		s.asked(s.doAll(calls))
		return
	}
	g := s.graphs.find(calls)
	if g == nil {
		s.asked(s.graphs.remember(calls))
		s.asked(s.doAll(calls))
		return
	}
	if g.graph == nil {
		var err error
		if g.graph, err = s.q.capture(func() error { return s.doAll(calls) }); err != nil {
			s.graphs.off = true
			s.d.warn("kernels are launched one by one, for the driver makes no graph of them", err)
			s.asked(s.doAll(calls))
			return
		}
	}
	s.asked(s.q.replay(g.graph))
}

func (s *stream) doAll(calls []call) error {
	for i := range calls {
		if err := s.do(&calls[i]); err != nil {
			return err
		}
	}
	return nil
}

// find is the segment of the same calls, nil if there is none.
func (g *graphs) find(calls []call) *segment {
	g.clock++
	i := slices.IndexFunc(g.segments, func(s *segment) bool { return slices.Equal(s.calls, calls) })
	if i < 0 {
		return nil
	}
	g.segments[i].used = g.clock
	return g.segments[i]
}

// remember keeps calls for the next time.
func (g *graphs) remember(calls []call) (err error) {
	if len(g.segments) == mostSegments {
		oldest := slices.MinFunc(g.segments, func(a, b *segment) int { return a.used - b.used })
		err = oldest.close()
		g.segments = slices.DeleteFunc(g.segments, func(s *segment) bool { return s == oldest })
	}
	g.segments = append(g.segments, &segment{calls: slices.Clone(calls), used: g.clock})
	return err
}

func (g *graphs) close() (errs []error) {
	for _, s := range g.segments {
		errs = append(errs, s.close())
	}
	g.segments = nil
	return errs
}

func (s *segment) close() error {
	if s.graph == nil {
		return nil
	}
	return s.graph.close()
}
