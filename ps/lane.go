package ps

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/pacing"
	pb "github.com/musterml/muster/proto"
)

// shardLink is a client's view of one shard: whom to ask first, and the lanes that ask.
type shardLink struct {
	shard  id.ParamShard
	pieces chan piece
	lanes  []*lane

	mu     sync.Mutex
	leader string // address; "" when unknown
}

func (s *shardLink) hint() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leader
}

func (s *shardLink) setHint(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leader = addr
}

// forget drops the hint unless it has been replaced meanwhile.
func (s *shardLink) forget(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leader == addr {
		s.leader = ""
	}
}

// lane is one connection to a shard and the goroutine that uses it, one request at a
// time. When a server fails it, it walks through the replicas.
type lane struct {
	c    *Client
	s    *shardLink
	conn net.Conn
	addr string // of conn
	walk int    // next replica to try when no leader is known
	mute string // address that failed last; not the next to try

	req  pb.ParamRequest
	ans  pb.ParamAnswer
	head []byte
	out  gather
	in   intake

	scratch []float32 // an answer whose places it says itself

	mu     sync.Mutex // what waiting tells
	busy   bool
	now    piece
	kind   pb.ParamRequest_Kind
	step   id.Step
	ofRows bool // a request on sparse tables
	asked  string
	node   id.Node // who answered last
	since  time.Time
	last   string // why the last attempt failed
}

func newLane(c *Client, s *shardLink) *lane {
	return &lane{c: c, s: s, walk: rand.IntN(1 << 10)}
}

func (l *lane) run() {
	defer l.hangUp()
	for {
		select {
		case p := <-l.s.pieces:
			l.begin(p)
			err := l.do(p)
			l.mu.Lock()
			l.busy = false
			l.mu.Unlock()
			p.op.finish(err, errors.Is(err, context.Canceled))
		case <-l.c.ctx.Done():
			return
		}
	}
}

func (l *lane) begin(p piece) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy, l.now, l.kind, l.step = true, p, p.op.kind, p.op.step
	l.since, l.last, l.ofRows = time.Now(), "", p.op.rows != nil
}

// what names the request. The caller holds mu.
func (l *lane) what() string {
	verb := strings.ToLower(l.kind.String())
	if l.kind == pb.ParamRequest_STEPS {
		return fmt.Sprintf("question for the steps held by %v", l.s.shard)
	}
	if l.ofRows {
		return fmt.Sprintf("%s of step %d on %v", strings.ReplaceAll(verb, "_", " "), l.step, l.s.shard)
	}
	return fmt.Sprintf("%s of step %d, blocks [%d, %d) on %v", verb, l.step, l.now.first, l.now.last, l.s.shard)
}

func (l *lane) waiting() (what string, peer id.Node, since time.Time, busy bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.busy {
		return "", "", time.Time{}, false
	}
	what = l.what()
	if l.asked != "" {
		what += ", asked " + l.asked
	}
	if l.last != "" {
		what += " (before: " + l.last + ")"
	}
	return what, l.node, l.since, true
}

// errAgain is an attempt that failed in a way that another attempt may mend.
type errAgain struct{ why string }

func (e errAgain) Error() string { return e.why }

// do repeats attempts until one answers or the operation's context ends.
func (l *lane) do(p piece) error {
	for hops, tries := 0, 0; ; tries++ {
		ctx := p.op.ctx
		if ctx.Err() != nil || l.c.ctx.Err() != nil {
			return l.ended(ctx)
		}
		addr := l.pick(p.op.kind == pb.ParamRequest_PULL && tries > 0)
		if addr == "" {
			l.note("", "no replica is known")
			l.pause(ctx)
			continue
		}
		redirect, err := l.attempt(ctx, addr, p)
		var again errAgain
		if err == nil || !errors.As(err, &again) {
			return err
		}
		if ctx.Err() == nil { // else it failed because the context ended
			l.note(addr, again.why)
		}
		if redirect != "" && redirect != addr && hops < 3 {
			hops++ // at once; more would be two replicas that each believe in the other
			continue
		}
		hops = 0
		l.pause(ctx)
	}
}

func (l *lane) note(addr, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if addr != "" {
		why = addr + ": " + why
	}
	l.last = why
}

// ended names what the operation was waiting for when its context ended.
func (l *lane) ended(ctx context.Context) error {
	cause := context.Cause(ctx)
	if cause == nil {
		cause = ErrClosed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.last
	if last == "" {
		last = "no answer yet"
	}
	return fmt.Errorf("ps: %s: waited %v for a leader with a majority of %v; last: %s: %w",
		l.what(), time.Since(l.since).Round(time.Millisecond), l.s.shard, last, cause)
}

// pick is the leader, if one is known, else the next replica. Any replica may answer a
// pull, so a pull that failed goes round.
func (l *lane) pick(round bool) string {
	if addr := l.s.hint(); addr != "" && !round {
		return addr
	}
	all := l.c.cfg.Replicas(l.s.shard)
	if len(all) == 0 {
		return ""
	}
	l.walk++
	if len(all) > 1 && all[l.walk%len(all)] == l.mute {
		l.walk++
	}
	return all[l.walk%len(all)]
}

func (l *lane) pause(ctx context.Context) {
	t := time.NewTimer(10*time.Millisecond + rand.N(10*time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-l.c.ctx.Done():
	}
}

func (l *lane) hangUp() {
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
	}
}

// attempt asks one server once. redirect is the leader it points to.
func (l *lane) attempt(ctx context.Context, addr string, p piece) (redirect string, err error) {
	l.mu.Lock()
	l.asked = addr
	l.mu.Unlock()
	if err := l.connect(ctx, addr); err != nil {
		return "", l.failed(addr, err)
	}
	conn := l.conn
	closer := func() { _ = conn.Close() }
	defer context.AfterFunc(ctx, closer)()
	defer context.AfterFunc(l.c.ctx, closer)()
	if err := l.send(p); err != nil {
		l.hangUp()
		return "", l.failed(addr, err)
	}
	if err := l.receive(); err != nil {
		l.hangUp()
		return "", l.failed(addr, err)
	}
	if addr == l.mute {
		l.mute = ""
	}
	redirect, err = l.judge(addr, p)
	// After a bad OK the bytes behind it were not read, or not right; after a refusal
	// the server hangs up; and a context that has ended has closed the connection.
	if err != nil && (l.ans.Status == pb.ParamAnswer_OK || l.ans.Status == pb.ParamAnswer_BAD_REQUEST) || ctx.Err() != nil {
		l.hangUp()
	}
	return redirect, err
}

// failed has the next attempt go elsewhere: a host that is frozen or cut off costs the client's patience each time.
func (l *lane) failed(addr string, err error) error {
	l.s.forget(addr)
	l.mute = addr
	return errAgain{err.Error()}
}

func (l *lane) connect(ctx context.Context, addr string) error {
	if l.conn != nil && l.addr == addr {
		return nil
	}
	l.hangUp()
	ctx, cancel := context.WithTimeout(ctx, l.c.cfg.Patience)
	defer cancel()
	defer context.AfterFunc(l.c.ctx, cancel)()
	conn, err := l.c.cfg.Dial(ctx, addr, clientTopic(l.s.shard))
	if err != nil {
		return err
	}
	pacing.Unpace(conn)
	l.conn, l.addr = conn, addr
	return nil
}

// send writes the request and, straight from the caller's memory, its payload.
func (l *lane) send(p piece) error {
	op, layout := p.op, l.c.cfg.Layout
	add := func(f []float32) { l.out.add(floats.Bytes(f)) }
	l.out.reset()
	defer l.out.reset()
	if op.rows != nil {
		l.out.add(op.rows[l.s.shard].payload)
	} else if op.kind == pb.ParamRequest_PUT || op.kind == pb.ParamRequest_PUSH {
		i0, i1 := layout.local(l.s.shard, p.first, p.last)
		if l.c.half(op) {
			l.addHalf(op, i0, i1)
			i0 = i1
		}
		for i := i0; i < i1; i++ {
			lo, hi := layout.Range(layout.block(l.s.shard, i))
			if op.kind == pb.ParamRequest_PUSH {
				add(op.grad[lo-op.base : hi-op.base])
				continue
			}
			add(op.out.W[lo-op.base : hi-op.base])
			for _, slot := range op.out.Slots {
				add(slot[lo-op.base : hi-op.base])
			}
		}
	}
	q := &l.req
	proto.Reset(q)
	q.Kind, q.Step, q.Keep = op.kind, uint64(op.step), uint64(op.keep)
	q.First, q.Last, q.Parts = uint64(p.first), uint64(p.last), op.parts
	q.Half = l.c.half(op)
	q.Length, q.State = uint32(l.out.size), op.kind == pb.ParamRequest_PULL && op.out.Slots != nil || op.kind == pb.ParamRequest_PIN && op.pin
	head, err := pb.AppendMessage(l.head[:0], q)
	if err != nil {
		return err
	}
	l.head = head
	return l.out.writeTo(l.conn, head, l.c.cfg.Patience)
}

// receive reads the answer's head. A server that is at work says so and is waited for,
// but not for ever: it may be cut off from its own group without knowing.
func (l *lane) receive() error {
	for start := time.Now(); ; {
		if err := l.conn.SetReadDeadline(time.Now().Add(l.c.cfg.Patience)); err != nil {
			return err
		}
		if err := pb.ReadMessage(l.conn, &l.ans, maxHeader); err != nil {
			return err
		}
		l.mu.Lock()
		l.node = id.Node(l.ans.Node)
		l.mu.Unlock()
		if l.ans.Status != pb.ParamAnswer_WORKING {
			return nil
		}
		if d := time.Since(start); d > 20*l.c.cfg.Patience {
			return fmt.Errorf("still at work after %v", d.Round(time.Millisecond))
		}
	}
}

// judge turns an answer into a result, another attempt, or an error for the caller.
func (l *lane) judge(addr string, p piece) (redirect string, err error) {
	a := &l.ans
	switch a.Status {
	case pb.ParamAnswer_OK:
		if p.op.kind != pb.ParamRequest_PULL && !p.op.readsRows() {
			l.s.setHint(addr)
		}
		return "", l.accept(p)
	case pb.ParamAnswer_NOT_LEADER:
		l.s.forget(addr)
		if a.Leader != "" {
			l.s.setHint(a.Leader)
		}
		return a.Leader, errAgain{a.Message}
	case pb.ParamAnswer_NOT_YET:
		return "", errAgain{a.Message}
	case pb.ParamAnswer_RETRY:
		l.s.forget(addr)
		return "", errAgain{a.Message}
	case pb.ParamAnswer_GAP, pb.ParamAnswer_GONE, pb.ParamAnswer_SPLIT:
		e := &StepError{
			Shard: l.s.shard, Block: id.Block(a.Block), Step: p.op.step,
			Newest: id.Step(a.Newest), Message: a.Message, Kind: ErrGap,
		}
		switch a.Status {
		case pb.ParamAnswer_GONE:
			e.Kind = ErrGone
		case pb.ParamAnswer_SPLIT:
			e.Kind = ErrSplit
		}
		return "", e
	default:
		return "", fmt.Errorf("%w: %v at %s: %s", ErrRefused, l.s.shard, addr, a.Message)
	}
}

// accept reads what an OK brings.
func (l *lane) accept(p piece) error {
	op, layout := p.op, l.c.cfg.Layout
	switch op.kind {
	case pb.ParamRequest_STEPS:
		steps := make([]id.Step, len(l.ans.Steps))
		for i, s := range l.ans.Steps {
			steps[i] = id.Step(s)
		}
		op.mu.Lock()
		op.steps[l.s.shard] = steps
		op.mu.Unlock()
		return nil
	case pb.ParamRequest_PUT, pb.ParamRequest_PIN, pb.ParamRequest_PUSH_ROWS, pb.ParamRequest_LOAD_ROWS:
		return nil
	case pb.ParamRequest_PULL_ROWS, pb.ParamRequest_SCAN_ROWS:
		return l.acceptRows(op)
	}
	slots := 0
	if op.kind == pb.ParamRequest_PULL {
		slots = len(op.out.Slots)
	}
	i0, i1 := layout.local(l.s.shard, p.first, p.last)
	n := layout.floats(l.s.shard, i0, i1) * (1 + slots)
	if l.c.half(op) {
		n = layout.halves(l.s.shard, i0, i1)
	}
	if int(l.ans.Length) != 4*n {
		return errAgain{fmt.Sprintf("answer of %d bytes, must be %d", l.ans.Length, 4*n)}
	}
	if err := l.spread(p, i0, i1, slots); err != nil {
		return errAgain{"answer: " + err.Error()}
	}
	op.see(&l.ans, i1-i0)
	return nil
}

// spread reads an answer straight into the caller's memory. If its checksum turns out wrong, the next attempt writes over it.
func (l *lane) spread(p piece, i0, i1, slots int) error {
	op, layout := p.op, l.c.cfg.Layout
	if l.c.half(op) {
		return l.spreadHalf(op, i0, i1)
	}
	l.in.crc = 0
	for i := i0; i < i1; i++ {
		lo, hi := layout.Range(layout.block(l.s.shard, i))
		if err := l.in.read(l.conn, floats.Bytes(op.out.W[lo-op.base:hi-op.base]), l.c.cfg.Patience); err != nil {
			return err
		}
		for k := range slots {
			if err := l.in.read(l.conn, floats.Bytes(op.out.Slots[k][lo-op.base:hi-op.base]), l.c.cfg.Patience); err != nil {
				return err
			}
		}
	}
	return l.in.end(l.conn, l.c.cfg.Patience)
}

// read reads the n floats of an answer, valid until the next.
func (l *lane) read(n int) ([]float32, error) {
	if cap(l.scratch) < n {
		l.scratch = make([]float32, n)
	}
	data := l.scratch[:n]
	if n == 0 {
		return data, nil
	}
	l.in.crc = 0
	err := l.in.read(l.conn, floats.Bytes(data), l.c.cfg.Patience)
	if err == nil {
		err = l.in.end(l.conn, l.c.cfg.Patience)
	}
	if err != nil {
		return nil, errAgain{"answer: " + err.Error()}
	}
	return data, nil
}
