package ps

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
)

const (
	// maxHeader bounds the message in front of a payload.
	maxHeader = 4096
	// working is how often a client that waits for a commit hears from the leader, so
	// that it can tell a slow commit from a server that is cut off.
	working = 100 * time.Millisecond
	// enqueueTimeout bounds Raft's queue in front of the leader's loop.
	enqueueTimeout = time.Second
)

// session serves one client connection, one request at a time. All buffers are reused.
type session struct {
	r        *replica
	conn     net.Conn
	req      pb.ParamRequest
	ans      pb.ParamAnswer
	head     []byte
	out      gather
	in       intake
	versions []*version
	ticker   *time.Ticker
	rows     rowsRoom
	halves   []float32 // words of an answer in half the bytes

	// A future can only be waited for by blocking, so a goroutine of the session does.
	futures chan raft.Future
	settled chan error
}

// errHangUp ends a session after an answer that leaves the stream out of step.
var errHangUp = errors.New("ps: connection given up")

func (r *replica) serveClient(conn net.Conn) {
	s := &session{
		r: r, conn: conn, ticker: time.NewTicker(working),
		futures: make(chan raft.Future), settled: make(chan error, 1),
	}
	defer s.ticker.Stop()
	defer close(s.futures)
	// Not counted in wg: a Raft that is shut down may leave a committed entry's future
	// unanswered, and whoever waits for it waits until the process ends.
	go func() {
		for f := range s.futures {
			s.settled <- f.Error()
		}
	}()
	for {
		err := pb.ReadMessage(conn, &s.req, maxHeader)
		if err == nil {
			err = s.serve()
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, errHangUp) {
				r.log.Debug().Err(err).Stringer("client", conn.RemoteAddr()).Msg("client connection ended")
			}
			return
		}
	}
}

func (s *session) serve() error {
	switch s.req.Kind {
	case pb.ParamRequest_PUT:
		return s.write(pb.ParamEntry_PUT)
	case pb.ParamRequest_PUSH:
		return s.write(pb.ParamEntry_PUSH)
	case pb.ParamRequest_PULL:
		return s.pull()
	case pb.ParamRequest_STEPS:
		return s.steps()
	case pb.ParamRequest_PIN:
		return s.pin()
	case pb.ParamRequest_PUSH_ROWS, pb.ParamRequest_PULL_ROWS, pb.ParamRequest_SCAN_ROWS, pb.ParamRequest_LOAD_ROWS:
		return s.serveRows()
	default:
		return s.refuse(fmt.Sprintf("unknown kind of request %d", s.req.Kind))
	}
}

// write does a put or push: receive the payload, replicate it, commit, answer.
func (s *session) write(kind pb.ParamEntry_Kind) error {
	r, q := s.r, &s.req
	if q.First > uint64(r.cfg.Layout.Blocks()) || q.Last > uint64(r.cfg.Layout.Blocks()) {
		return s.refuse(fmt.Sprintf("blocks [%d, %d) are no range of the model's %d", q.First, q.Last, r.cfg.Layout.Blocks()))
	}
	e := entry{
		kind: kind, step: id.Step(q.Step), keep: id.Step(q.Keep),
		first: id.Block(q.First), last: id.Block(q.Last), parts: bytes.Clone(q.Parts), half: q.Half,
	}
	if q.Half && r.cfg.Half == nil {
		return s.refuse(noHalf)
	}
	if err := checkRequest(r.cfg.Layout, r.shard, r.cfg.Optimizer.Slots(), &e, int(q.Length)); err != nil {
		return s.refuse(err.Error())
	}
	// A push that was applied before is answered by anyone who holds what it made.
	if kind == pb.ParamEntry_PUSH && r.fenced() == nil {
		var res result
		if s.versions, res = r.state.made(s.versions[:0], &e); res.status == pb.ParamAnswer_OK {
			if err := s.drain(int(q.Length)); err != nil {
				releaseAll(s.versions)
				return err
			}
			return s.sendVersions(false)
		}
	}
	if !r.leads() {
		if err := s.drain(int(q.Length)); err != nil {
			return err
		}
		return s.notLeader()
	}
	p, err := s.take(int(q.Length) / 4)
	if p == nil {
		return err
	}
	res, err := s.commit(&e, p)
	if err != nil {
		return err
	}
	if res.status == pb.ParamAnswer_OK && kind == pb.ParamEntry_PUSH {
		s.versions, res = r.state.made(s.versions[:0], &e)
		if res.status == pb.ParamAnswer_OK {
			return s.sendVersions(false)
		}
	}
	return s.answer(res)
}

// take receives a payload that is to be replicated; the followers are sent what there is of it. It is nil when the
// request is done with, because of err or without.
func (s *session) take(values int) (*payload, error) {
	t := s.r.payloads
	p := t.get(values)
	s.r.announce(p)
	if err := s.fill(p); err != nil {
		t.abandon(p)
		return nil, s.unreadable(err)
	}
	t.complete(p, s.in.crc)
	return p, nil
}

// fill reads a request's payload, and its checksum.
func (s *session) fill(p *payload) error {
	r, data := s.r, floats.Bytes(p.data)
	if len(data) == 0 {
		return nil
	}
	s.in.crc = 0
	for done := 0; done < len(data); {
		n := min(len(data)-done, pieceBytes)
		if err := s.in.read(s.conn, data[done:done+n], r.cfg.Patience); err != nil {
			return err
		}
		r.bytesIn.Add(uint64(n))
		done += n
		r.payloads.grow(p, done)
		if err := s.sign(); err != nil {
			return err
		}
	}
	if err := s.in.end(s.conn, r.cfg.Patience); err != nil {
		return err
	}
	return s.conn.SetReadDeadline(time.Time{})
}

// unreadable answers a request whose payload was damaged on the way; the connection is still in step.
func (s *session) unreadable(err error) error {
	if !errors.Is(err, errChecksum) {
		return err
	}
	return s.answer(result{status: pb.ParamAnswer_BAD_REQUEST, message: "the payload is not what was sent: " + err.Error()})
}

// drain reads a payload that nobody needs, and its checksum, so that the connection can go on.
func (s *session) drain(n int) error {
	if n == 0 {
		return nil
	}
	for rest := n + len(s.in.tail); rest > 0; rest -= min(rest, pieceBytes) {
		if _, err := io.CopyN(io.Discard, impatient{s.conn, s.r.cfg.Patience}, int64(min(rest, pieceBytes))); err != nil {
			return err
		}
		if err := s.sign(); err != nil {
			return err
		}
	}
	return s.conn.SetReadDeadline(time.Time{})
}

// sign tells the client now and then that its request is being read: the rest of it may lie in sockets for longer than
// the client waits without a word.
func (s *session) sign() error {
	select {
	case <-s.ticker.C:
		return s.send(&pb.ParamAnswer{Status: pb.ParamAnswer_WORKING})
	default:
		return nil
	}
}

// commit gives the reference to Raft and waits. The payload stays pinned until Raft is done with the proposal: a leader
// that could not find its own payload would lose its leadership.
func (s *session) commit(e *entry, p *payload) (result, error) {
	r := s.r
	defer r.payloads.release(p)
	if err := s.waitForRoom(); err != nil {
		return result{}, err
	}
	future, err := r.submit(e, p)
	if err != nil {
		return result{}, err
	}
	if err := s.await(future); err != nil {
		if errors.Is(err, errHangUp) {
			return result{}, err
		}
		return result{status: pb.ParamAnswer_RETRY, message: err.Error()}, nil
	}
	res, ok := future.Response().(result)
	if !ok {
		return result{}, fmt.Errorf("ps: state machine answered %T", future.Response())
	}
	return res, nil
}

// announce names a payload and has the senders pass it on as it grows.
func (r *replica) announce(p *payload) {
	r.propose.Lock()
	defer r.propose.Unlock()
	r.payloads.name(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, to := range r.senders {
		if to.offer(p) {
			p.readers = append(p.readers, to)
		}
	}
}

// submit proposes an entry with a payload that is whole.
func (r *replica) submit(e *entry, p *payload) (raft.ApplyFuture, error) {
	e.ref = reference{id: p.id, length: int(p.size()), crc: p.crc}
	data, err := e.encode()
	if err != nil {
		return nil, err
	}
	return r.group.Raft().Apply(data, enqueueTimeout), nil
}

// waitForRoom delays a proposal while the log is far beyond its limit because cutting it
// does not keep up.
func (s *session) waitForRoom() error {
	r := s.r
	for r.payloads.logBytes() > 3*r.logLimit {
		poke(r.cut)
		select {
		case <-s.ticker.C:
			if err := s.send(&pb.ParamAnswer{Status: pb.ParamAnswer_WORKING}); err != nil {
				return err
			}
		case <-r.ctx.Done():
			return errHangUp
		}
	}
	return nil
}

// await waits for Raft and lets the client know meanwhile. A client that has gone does
// not end the wait, see commit.
func (s *session) await(f raft.Future) error {
	s.futures <- f
	alive := true
	for {
		select {
		case err := <-s.settled:
			if !alive {
				return errHangUp
			}
			return err
		case <-s.ticker.C:
			if alive && s.send(&pb.ParamAnswer{Status: pb.ParamAnswer_WORKING}) != nil {
				alive = false
			}
		case <-s.r.ctx.Done():
			// Give Raft the moment it needs to answer; after that it never may.
			select {
			case err := <-s.settled:
				return err
			case <-time.After(working):
				return errHangUp
			}
		}
	}
}

func (s *session) pull() error {
	r, q := s.r, &s.req
	if q.First > uint64(r.cfg.Layout.Blocks()) || q.Last > uint64(r.cfg.Layout.Blocks()) || q.Length != 0 {
		return s.refuse(fmt.Sprintf("pull of blocks [%d, %d) of %d with %d bytes", q.First, q.Last, r.cfg.Layout.Blocks(), q.Length))
	}
	first, last := id.Block(q.First), id.Block(q.Last)
	if err := r.cfg.Layout.check(first, last); err != nil {
		return s.refuse(err.Error())
	}
	i0, i1 := r.cfg.Layout.local(r.shard, first, last)
	if n := 4 * r.cfg.Layout.floats(r.shard, i0, i1) * (1 + r.cfg.Optimizer.Slots()); n > math.MaxInt32 {
		return s.refuse(fmt.Sprintf("pull of %d bytes at once, the limit is %d", n, math.MaxInt32))
	}
	if q.Half && r.cfg.Half == nil {
		return s.refuse(noHalf)
	}
	if err := r.fenced(); err != nil {
		return s.answer(result{status: pb.ParamAnswer_RETRY, message: "the replica is fenced"})
	}
	var res result
	s.versions, res = r.state.read(s.versions[:0], id.Step(q.Step), first, last)
	if res.status != pb.ParamAnswer_OK {
		return s.answer(res)
	}
	return s.sendVersions(q.State)
}

// steps reads through the leader: a barrier makes sure that everything committed
// before the question is applied.
func (s *session) steps() error {
	if s.req.Length != 0 {
		return s.refuse("a question for steps has no payload")
	}
	if !s.r.leads() {
		return s.notLeader()
	}
	if err := s.await(s.r.group.Raft().Barrier(enqueueTimeout)); err != nil {
		if errors.Is(err, errHangUp) {
			return err
		}
		return s.answer(result{status: pb.ParamAnswer_RETRY, message: err.Error()})
	}
	ans := &s.ans
	proto.Reset(ans)
	ans.Status = pb.ParamAnswer_OK
	held := s.r.state.steps()
	if s.r.cfg.Layout.Parts > 0 {
		held = s.r.state.clocks()
	}
	for _, step := range held {
		ans.Steps = append(ans.Steps, uint64(step))
	}
	return s.send(ans)
}

// pin is done by the leader: clients ask it first.
func (s *session) pin() error {
	if s.req.Length != 0 {
		return s.refuse("a request to pin has no payload")
	}
	if !s.r.leads() {
		return s.notLeader()
	}
	s.r.state.pin(id.Step(s.req.Step), s.req.State)
	return s.answer(result{status: pb.ParamAnswer_OK})
}

// sendVersions answers OK with the collected versions, straight from their memory.
func (s *session) sendVersions(state bool) error {
	defer releaseAll(s.versions)
	slots := s.r.cfg.Optimizer.Slots()
	s.out.reset()
	if s.req.Half && !state {
		s.addHalf(slots)
	}
	for _, v := range s.versions {
		switch {
		case state:
			s.out.add(floats.Bytes(v.state()))
		case !s.req.Half:
			s.out.add(floats.Bytes(v.w(slots)))
		}
	}
	ans := &s.ans
	proto.Reset(ans)
	ans.Status, ans.Length = pb.ParamAnswer_OK, uint32(s.out.size)
	ans.Clock, ans.Updates = progress(s.versions)
	return s.flush(ans)
}

func (s *session) answer(r result) error {
	ans := &s.ans
	proto.Reset(ans)
	ans.Status, ans.Message = r.status, r.message
	ans.Block, ans.Newest = uint64(r.block), uint64(r.newest)
	return s.send(ans)
}

// refuse answers a request that no replica will ever accept. What may follow it cannot
// be trusted, so the connection ends; a payload of a sane length is read first, because
// closing with bytes unread could destroy the answer on its way.
func (s *session) refuse(why string) error {
	if n := int(s.req.Length); n <= s.r.maxPayload {
		if err := s.drain(n); err != nil {
			return err
		}
	}
	if err := s.answer(result{status: pb.ParamAnswer_BAD_REQUEST, message: why}); err != nil {
		return err
	}
	return errHangUp
}

func (s *session) notLeader() error {
	ans := &s.ans
	proto.Reset(ans)
	ans.Status, ans.Message = pb.ParamAnswer_NOT_LEADER, "no leader is known here"
	if err := s.r.fenced(); err != nil {
		ans.Message = "the replica is fenced"
	} else if leader, known := s.r.group.Leader(); known {
		ans.Leader, ans.Message = leader.Addr, fmt.Sprintf("%s leads", leader.Node)
	}
	return s.send(ans)
}

func (s *session) send(ans *pb.ParamAnswer) error {
	s.out.reset()
	return s.flush(ans)
}

// flush writes the answer and whatever is to go behind it.
func (s *session) flush(ans *pb.ParamAnswer) error {
	ans.Node = string(s.r.cfg.Self.Node)
	head, err := pb.AppendMessage(s.head[:0], ans)
	if err != nil {
		return err
	}
	s.head = head
	err = s.out.writeTo(s.conn, head, s.r.cfg.Patience)
	s.out.reset()
	return err
}
