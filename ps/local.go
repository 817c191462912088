package ps

import (
	"fmt"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

// Commit pushes on the leader itself, without a client: fill writes the gradient of the blocks [first, last) straight
// into the payload's buffer, which may hold values of an earlier one. It returns when the push is committed and applied here; what it
// has done when it returns an error is unknown. This is replication alone (muster bench server --mode log).
func (s *Server) Commit(shard id.ParamShard, step id.Step, first, last id.Block, fill func(grad []float32)) error {
	s.mu.Lock()
	r := s.replicas[shard]
	s.mu.Unlock()
	if r == nil || !r.leads() {
		return fmt.Errorf("ps: %v is not led here", shard)
	}
	n := payloadFloats(s.cfg.Layout, shard, 0, pb.ParamEntry_PUSH, first, last)
	e := entry{kind: pb.ParamEntry_PUSH, step: step, first: first, last: last}
	p := r.payloads.get(n)
	fill(p.data)
	r.payloads.grow(p, 4*n)
	r.announce(p)
	r.payloads.complete(p, floats.Checksum(0, p.data))
	defer r.payloads.release(p)
	future, err := r.submit(&e, p)
	if err == nil {
		err = future.Error()
	}
	if err != nil {
		return err
	}
	if res := future.Response().(result); res.status != pb.ParamAnswer_OK {
		return fmt.Errorf("ps: %v: %v: %s", shard, res.status, res.message)
	}
	return nil
}
