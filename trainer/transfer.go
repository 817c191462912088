package trainer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/membership"
	pb "github.com/musterml/muster/proto"
)

// How a trainer that does not hold the state at the beginning of a view comes by it:
// at step 0 it makes it, otherwise it asks the view's holders one after another, and
// where none is left, or in mode server, where the servers have it all, the servers.
// The state cannot move on meanwhile: the view's first step needs this trainer's part.

const (
	stateTopic    = "state"
	stateStall    = 2 * time.Second // a transfer that moves no byte for so long is given up
	stateMessages = 1 << 16         // bytes of its messages
)

// serve answers other trainers on the port.
func (t *Trainer) serve() {
	t.cfg.Port.Handle(port.Ring, "", func(conn net.Conn, from port.Peer) { t.inbox.Deliver(from.Topic, conn) })
	t.cfg.Port.Handle(port.Control, stateTopic, t.serveState)
}

// obtain makes sure that this trainer holds the state at the view's first step.
func (s *shift) obtain(ctx context.Context) error {
	from := s.view.From
	if s.has(from) {
		return nil
	}
	end := s.cfg.Waits.Begin("the state", from.String(), "")
	defer end()
	begin := time.Now()
	source, err := s.fetch(ctx, from)
	if err != nil {
		return err
	}
	s.cfg.Log.Info().Stringer("step", from).Str("from", source).Dur("took", time.Since(begin)).Msg("has the state")
	s.work.forget()
	s.sums.forget()
	s.cards.stale()
	return s.advance(s.view.Number, func() { s.state.step, s.holds = from, true })
}

func (t *Trainer) has(step id.Step) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.holds && t.state.step == step
}

// abandon gives up the state that this trainer holds, to be written over; when it
// returns, nobody reads it any more. It comes as late as it can: a trainer that is one
// step behind holds the newest state there is if those ahead of it die now.
func (t *Trainer) abandon() {
	t.giving.Lock()
	defer t.giving.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.holds = false
}

// fetch writes the state at a step over the one that this trainer holds.
func (s *shift) fetch(ctx context.Context, from id.Step) (source string, err error) {
	if from == 0 {
		s.abandon()
		return "the job", s.state.begin(s.cfg.Spec, s.cfg.Job)
	}
	if s.cfg.Job.Sync.Mode == ModeRing {
		for _, m := range s.view.Members {
			if !m.Holder {
				continue
			}
			err := s.fetchFrom(ctx, m, from)
			if err == nil {
				return string(m.Node), nil
			}
			s.cfg.Log.Warn().Err(err).Msg("a holder did not give the state; asking the next")
		}
	}
	s.abandon()
	err = s.ask("the state from the servers", from, func() error {
		all := s.sums.all()
		return s.cfg.Servers.Pull(ctx, from, all.first, all.last, s.state.part(0, len(s.state.w)))
	})
	return "the parameter servers", err
}

func (s *shift) fetchFrom(ctx context.Context, m membership.Member, from id.Step) error {
	end := s.cfg.Waits.Begin("the state from a holder", from.String(), string(m.Node))
	defer end()
	dial, cancel := context.WithTimeout(ctx, stateStall)
	defer cancel()
	conn, err := s.cfg.Port.Dial(dial, m.Addr, port.Control, stateTopic)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := s.readState(stalling{conn}, from); err != nil {
		return fmt.Errorf("state at %v from %s: %w", from, m.Node, err)
	}
	return nil
}

func (s *shift) readState(conn io.ReadWriter, from id.Step) error {
	var h pb.StateHeader
	if err := pb.WriteMessage(conn, &pb.StateRequest{Step: uint64(from)}); err != nil {
		return err
	}
	if err := pb.ReadMessage(conn, &h, stateMessages); err != nil {
		return err
	}
	if h.Refused != "" {
		return errors.New(h.Refused)
	}
	vectors := s.state.vectors()
	if h.Params != uint64(len(s.state.w)) || int(h.Slots) != len(vectors)-1 {
		return fmt.Errorf("it has %d parameters and %d slots, not %d and %d", h.Params, h.Slots, len(s.state.w), len(vectors)-1)
	}
	s.abandon()
	crc := uint32(0)
	for _, v := range vectors {
		if _, err := io.ReadFull(conn, floats.Bytes(v)); err != nil {
			return err
		}
		crc = floats.Checksum(crc, v)
	}
	if crc != h.Checksum {
		return fmt.Errorf("its checksum is %08x, not %08x: damaged on the way", crc, h.Checksum)
	}
	return nil
}

// vectors are the parts of a state in the order in which they travel.
func (s *state) vectors() [][]float32 { return append([][]float32{s.w}, s.slots...) }

// leave notes, in advance, that the newest state is the cards' from now on.
func (t *Trainer) leave() {
	if t.cards != nil && t.away == nil {
		t.away = make(chan struct{})
	}
}

// comeHome makes the host's state the newest, where cards have a newer one, when a shift is over; err, which may be nil, is why it is. A state that cannot be had is held no longer.
func (s *shift) comeHome(err error) error {
	c := s.cards
	if c == nil {
		return err
	}
	s.giving.Lock()
	defer s.giving.Unlock()
	failed := c.give(0, len(s.state.w))
	s.mu.Lock()
	defer s.mu.Unlock()
	if failed != nil {
		s.holds, c.fresh = false, false
	}
	if c.newer, c.torn = false, nil; s.away != nil {
		close(s.away)
		s.away = nil
	}
	return cmp.Or(failed, err)
}

// lend read-locks the state, once it is the host's, if that is soon; done unlocks it. In the view before the one in which somebody asks for it, it may
// have been the cards'.
func (t *Trainer) lend() (done func(), ok bool) {
	late := time.NewTimer(stateStall)
	defer late.Stop()
	for {
		t.giving.RLock()
		t.mu.Lock()
		away := t.away
		t.mu.Unlock()
		if away == nil {
			return t.giving.RUnlock, true
		}
		t.giving.RUnlock()
		select {
		case <-away:
		case <-late.C:
			return nil, false
		}
	}
}

// serveState gives the state away; meanwhile it does not change.
func (t *Trainer) serveState(conn net.Conn, _ port.Peer) {
	defer conn.Close()
	c := stalling{conn}
	var req pb.StateRequest
	if err := pb.ReadMessage(c, &req, stateMessages); err != nil {
		return
	}
	done, ok := t.lend()
	if ok {
		defer done()
	}
	if !ok || !t.has(id.Step(req.Step)) {
		_ = pb.WriteMessage(c, &pb.StateHeader{Refused: fmt.Sprintf("this trainer does not hold %v", id.Step(req.Step))})
		return
	}
	vectors := t.state.vectors()
	h := &pb.StateHeader{Params: uint64(len(t.state.w)), Slots: uint32(len(vectors) - 1)}
	for _, v := range vectors {
		h.Checksum = floats.Checksum(h.Checksum, v)
	}
	if err := pb.WriteMessage(c, h); err != nil {
		return
	}
	for _, v := range vectors {
		if _, err := c.Write(floats.Bytes(v)); err != nil {
			t.cfg.Log.Warn().Err(err).Msg("a trainer did not take the state that it asked for")
			return
		}
	}
}

// stalling is a connection that may take as long as it likes, as long as it moves.
type stalling struct{ net.Conn }

func (c stalling) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(stateStall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c stalling) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		if err = c.SetWriteDeadline(time.Now().Add(stateStall)); err == nil {
			k, err = c.Conn.Write(p[n:min(len(p), n+1<<20)])
		}
		n += k
	}
	return n, err
}
