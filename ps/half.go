package ps

import (
	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// Half makes half as many words of values, and values of them: gradients and parameters then travel, and are logged, in half the
// bytes. Rounding is a function of the value alone, so whoever pulls a step gets the same bits; the servers keep parameters and
// slots as float32. A client that has one uses it for gradients and for parameters without slots. Concurrent calls are allowed.
type Half interface {
	// Encode writes the values to (len(values)+1)/2 words.
	Encode(words []int32, values []float32)
	// Decode writes the values that so many words hold.
	Decode(values []float32, words []int32)
}

const noHalf = "values in half the bytes are not spoken here"

func halfWords(n int) int { return (n + 1) / 2 }

// halves is halfWords of the shard's own blocks [i0, i1), each by itself.
func (l Layout) halves(shard id.ParamShard, i0, i1 int) int {
	if i0 >= i1 {
		return 0
	}
	lo, hi := l.Range(l.block(shard, i1-1))
	return (i1-1-i0)*halfWords(l.BlockSize) + halfWords(hi-lo)
}

// cut takes the gradient of the next n parameters from the rest of an entry's payload; it is valid until the next.
func (s *shardState) cut(e *entry, rest *[]float32, n int) []float32 {
	words := n
	if e.half {
		words = halfWords(n)
	}
	part := (*rest)[:words]
	*rest = (*rest)[words:]
	if !e.half {
		return part
	}
	if len(s.whole) < n {
		s.whole = make([]float32, s.layout.BlockSize)
	}
	s.half.Decode(s.whole[:n], floats.Words(part))
	return s.whole[:n]
}

// addHalf adds parameters to an answer in half the bytes.
func (s *session) addHalf(slots int) {
	n := 0
	for _, v := range s.versions {
		n += halfWords(len(v.w(slots)))
	}
	if cap(s.halves) < n {
		s.halves = make([]float32, n)
	}
	rest := s.halves[:n]
	for _, v := range s.versions {
		w := v.w(slots)
		part := rest[:halfWords(len(w))]
		rest = rest[len(part):]
		s.r.cfg.Half.Encode(floats.Words(part), w)
		s.out.add(floats.Bytes(part))
	}
}

// half tells that the operation's values travel in half the bytes.
func (c *Client) half(op *operation) bool {
	return c.cfg.Half != nil && (op.kind == pb.ParamRequest_PUSH || op.kind == pb.ParamRequest_PULL && op.out.Slots == nil)
}

// addHalf adds the gradient of the own blocks [i0, i1) to a request.
func (l *lane) addHalf(op *operation, i0, i1 int) {
	layout := l.c.cfg.Layout
	rest := l.words(layout.halves(l.s.shard, i0, i1))
	for i := i0; i < i1; i++ {
		lo, hi := layout.Range(layout.block(l.s.shard, i))
		part := rest[:halfWords(hi-lo)]
		rest = rest[len(part):]
		l.c.cfg.Half.Encode(floats.Words(part), op.grad[lo-op.base:hi-op.base])
		l.out.add(floats.Bytes(part))
	}
}

// spreadHalf is spread of an answer in half the bytes.
func (l *lane) spreadHalf(op *operation, i0, i1 int) error {
	layout := l.c.cfg.Layout
	l.in.crc = 0
	part := l.words(halfWords(layout.BlockSize))
	for i := i0; i < i1; i++ {
		lo, hi := layout.Range(layout.block(l.s.shard, i))
		part := part[:halfWords(hi-lo)]
		if err := l.in.read(l.conn, floats.Bytes(part), l.c.cfg.Patience); err != nil {
			return err
		}
		l.c.cfg.Half.Decode(op.out.W[lo-op.base:hi-op.base], floats.Words(part))
	}
	return l.in.end(l.conn, l.c.cfg.Patience)
}

// words is scratch memory.
func (l *lane) words(n int) []float32 {
	if cap(l.scratch) < n {
		l.scratch = make([]float32, n)
	}
	return l.scratch[:n]
}
