package cpu

import (
	"fmt"

	"github.com/musterml/muster/trainer/device"
)

// tokens is the n tokens of b, each within the vocabulary.
func (s *stream) tokens(op string, b device.Buffer, n, vocab int) []int32 {
	v := s.ints(op, "Tokens", b, n)
	for i, t := range v {
		if t < 0 || int(t) >= vocab {
			s.fail(fmt.Errorf("%s: token %d at place %d is not within [0, %d)", op, t, i, vocab))
			return nil
		}
	}
	return v
}

// checkContext refuses positions that are too few.
func (s *stream) checkContext(op string, positions device.Buffer, t, context int) {
	if !positions.IsNone() && t > context {
		s.fail(fmt.Errorf("%s: %d tokens but %d positions", op, t, context))
	}
}

// Embedding implements device.Ops.
func (s *stream) Embedding(p device.Embedding) {
	const op = "embedding"
	if !s.sized(op, p.N, p.T, p.Width, p.Vocab) {
		return
	}
	y := s.floats(op, "Y", p.Y, p.N*p.T*p.Width)
	table := s.floats(op, "Table", p.Table, p.Vocab*p.Width)
	positions := s.optional(op, "Positions", p.Positions, p.Context*p.Width)
	tokens := s.tokens(op, p.Tokens, p.N*p.T, p.Vocab)
	s.checkContext(op, p.Positions, p.T, p.Context)
	if s.err != nil {
		return
	}
	for i, t := range tokens {
		row, from := y[i*p.Width:(i+1)*p.Width], table[int(t)*p.Width:(int(t)+1)*p.Width]
		if positions == nil {
			copy(row, from)
			continue
		}
		at := i % p.T
		s.k.add(row, from, positions[at*p.Width:(at+1)*p.Width], floorNone)
	}
}

// EmbeddingBackward implements device.Ops.
func (s *stream) EmbeddingBackward(p device.EmbeddingBackward) {
	const op = "embedding backward"
	if !s.sized(op, p.N, p.T, p.Width, p.Vocab) {
		return
	}
	dy := s.floats(op, "DY", p.DY, p.N*p.T*p.Width)
	dtable := s.floats(op, "DTable", p.DTable, p.Vocab*p.Width)
	dpositions := s.optional(op, "DPositions", p.DPositions, p.Context*p.Width)
	tokens := s.tokens(op, p.Tokens, p.N*p.T, p.Vocab)
	s.checkContext(op, p.DPositions, p.T, p.Context)
	if s.err != nil {
		return
	}
	clear(dtable)
	clear(dpositions)
	for i, t := range tokens {
		row, to := dy[i*p.Width:(i+1)*p.Width], dtable[int(t)*p.Width:(int(t)+1)*p.Width]
		s.k.add(to, to, row, floorNone)
		if dpositions != nil {
			at := i % p.T
			to := dpositions[at*p.Width : (at+1)*p.Width]
			s.k.add(to, to, row, floorNone)
		}
	}
}
