package ps

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/ps/table"
)

// rowsRoom is what a session needs for questions on rows, used again by each.
type rowsRoom struct {
	decoder *table.Decoder
	changed []byte
	values  []float32
	slots   []byte
}

// serveRows answers the requests on sparse tables.
func (s *session) serveRows() error {
	r, q := s.r, &s.req
	if r.state.rows == nil {
		return s.refuse("the job has no sparse tables")
	}
	if s.rows.decoder == nil {
		s.rows.decoder = r.state.rows.decoderOf()
	}
	switch q.Kind {
	case pb.ParamRequest_PUSH_ROWS:
		return s.writeRows(pb.ParamEntry_PUSH_ROWS)
	case pb.ParamRequest_LOAD_ROWS:
		return s.writeRows(pb.ParamEntry_LOAD_ROWS)
	case pb.ParamRequest_PULL_ROWS:
		return s.pullRows()
	default:
		return s.scanRows()
	}
}

// decoderOf makes a decoder for one session.
func (r *rows) decoderOf() *table.Decoder {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.store.Decoder()
}

// writeRows does a push or a load: receive the payload, replicate it, commit, answer. What the log would refuse on every
// replica does not get there.
func (s *session) writeRows(kind pb.ParamEntry_Kind) error {
	r, q := s.r, &s.req
	e := entry{kind: kind, step: id.Step(q.Step), keep: id.Step(q.Keep)}
	if kind == pb.ParamEntry_LOAD_ROWS {
		if q.First > table.Slots || q.Last > table.Slots {
			return s.refuse(fmt.Sprintf("slots [%d, %d) are no range of %d", q.First, q.Last, table.Slots))
		}
		e.first, e.last = id.Block(q.First), id.Block(q.Last)
	}
	if err := r.cfg.checkRows(kind, e.first, e.last, int(q.Length)); err != nil {
		return s.refuse(err.Error())
	}
	past := e.step // what the rows have come to when the request has nothing left to do
	if kind == pb.ParamEntry_PUSH_ROWS {
		past++
	}
	done, _ := r.state.rows.reached(past)
	if done = done && r.fenced() == nil; done || !r.leads() {
		if err := s.drain(int(q.Length)); err != nil {
			return err
		}
		if !done {
			return s.notLeader()
		}
		return s.answer(result{status: pb.ParamAnswer_OK})
	}
	p, err := s.take(int(q.Length) / 4)
	if p == nil {
		return err
	}
	if kind == pb.ParamEntry_PUSH_ROWS {
		if _, err := s.rows.decoder.Parts(p.data); err != nil {
			r.payloads.release(p) // the followers drop theirs, which no entry refers to
			return s.answer(result{status: pb.ParamAnswer_BAD_REQUEST, message: err.Error()})
		}
	}
	res, err := s.commit(&e, p)
	if err != nil {
		return err
	}
	return s.answer(res)
}

// pullRows waits for the step, on the leader, which hears of it first.
func (s *session) pullRows() error {
	r, q := s.r, &s.req
	if q.Length > maxRows || q.Length%4 != 0 {
		return s.refuse(fmt.Sprintf("keys of %d bytes, must be whole words, at most %d", q.Length, maxRows))
	}
	p := r.payloads.get(int(q.Length) / 4)
	if err := s.fill(p); err != nil {
		r.payloads.discard(p)
		return s.unreadable(err)
	}
	keys, _, err := s.rows.decoder.Keys(floats.Bytes(p.data))
	r.payloads.discard(p)
	if err != nil {
		return s.answer(rowsResult(err))
	}
	step := id.Step(q.Step)
	if ok, err := s.awaitRows(step); !ok || err != nil {
		return err
	}
	room := &s.rows
	err = r.state.rows.read(step, func(t *table.Store) (err error) {
		room.changed, room.values, err = t.Pull(step, id.Step(q.Keep), keys, room.changed[:0], room.values[:0])
		return err
	})
	if err != nil {
		return s.answer(rowsResult(err))
	}
	for len(room.changed)%4 != 0 {
		room.changed = append(room.changed, 0)
	}
	return s.sendBytes(room.changed, floats.Bytes(room.values))
}

// awaitRows waits until the rows have come to a step; ok is false when the request has been answered otherwise.
func (s *session) awaitRows(step id.Step) (ok bool, err error) {
	r := s.r
	for {
		ok, changed := r.state.rows.reached(step)
		switch {
		case r.fenced() != nil:
			return false, s.answer(result{status: pb.ParamAnswer_RETRY, message: "the replica is fenced"})
		case ok:
			return true, nil
		case !r.leads():
			return false, s.notLeader()
		}
		select {
		case <-changed:
		case <-s.ticker.C:
			if err := s.send(&pb.ParamAnswer{Status: pb.ParamAnswer_WORKING}); err != nil {
				return false, err
			}
		case <-r.ctx.Done():
			return false, errHangUp
		}
	}
}

func (s *session) scanRows() error {
	r, q := s.r, &s.req
	if q.First >= q.Last || q.Last > table.Slots || q.Length != 0 {
		return s.refuse(fmt.Sprintf("scan of slots [%d, %d) of %d with %d bytes", q.First, q.Last, table.Slots, q.Length))
	}
	if !r.leads() { // the step may be pinned, which only the leader knows of
		return s.notLeader()
	}
	step := id.Step(q.Step)
	if ok, err := s.awaitRows(step); !ok || err != nil {
		return err
	}
	err := r.state.rows.read(step, func(t *table.Store) (err error) {
		s.rows.slots, err = t.AppendSlots(s.rows.slots[:0], step, id.Step(q.Keep), int(q.First), int(q.Last))
		return err
	})
	if err != nil {
		return s.answer(rowsResult(err))
	}
	return s.sendBytes(s.rows.slots)
}

// sendBytes answers OK with bytes.
func (s *session) sendBytes(pieces ...[]byte) error {
	s.out.reset()
	for _, b := range pieces {
		s.out.add(b)
	}
	ans := &s.ans
	proto.Reset(ans)
	ans.Status, ans.Length = pb.ParamAnswer_OK, uint32(s.out.size)
	return s.flush(ans)
}
