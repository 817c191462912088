package collective

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/pacing"
)

// Join connects this rank with its two neighbours and returns when both have agreed on run, view, world and order. It
// tries again after any error, a refused connection as well as a stranger's, until ctx ends or the next neighbour's host
// does not answer; the error then names the neighbour that is missing, and why. ctx bounds only the joining.
func Join(ctx context.Context, cfg Config) (*Ring, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("ring: %w", err)
	}
	r := newRing(cfg)
	if r.world == 1 {
		return r, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begin := time.Now()
	errs := make(chan error, 2)
	go func() { errs <- r.connect(ctx, &r.prev, r.acceptOnce) }()
	go func() { errs <- r.connect(ctx, &r.next, r.dialOnce) }()
	var missing []error
	for left := 2; left > 0; {
		select {
		case err := <-errs:
			if left--; err != nil {
				missing = append(missing, err)
				cancel(err)
			}
		case <-r.failed: // by the neighbour that has come already
			cancel(r.Err())
			for ; left > 0; left-- {
				<-errs
			}
		}
	}
	if len(missing) > 0 || r.Err() != nil {
		err := r.Err()
		if err == nil {
			err = errors.Join(missing...)
			expired := errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, ErrSilent)
			if lost := (*PeerError)(nil); expired && errors.As(err, &lost) {
				_ = r.fail(lost, nil) // its time was up: those that have come must learn who has not
			} else {
				r.giveUp(fmt.Errorf("could not join: %w", err))
			}
		}
		r.wg.Wait()
		return nil, fmt.Errorf("ring of %v: %w", cfg.View, err)
	}
	if err := r.complete(); err != nil {
		r.wg.Wait()
		return nil, fmt.Errorf("ring of %v: %w", cfg.View, err)
	}
	cfg.Log.Debug().Stringer("view", cfg.View).Int("rank", cfg.Rank).Int("world", r.world).
		Str("prev", string(r.prev.peer.Node)).Str("next", string(r.next.peer.Node)).
		Dur("took", time.Since(begin)).Msg("ring joined")
	cfg.Log.Info().Stringer("view", cfg.View).Msg("ring: to " + string(r.next.peer.Node) + " over " + r.next.over() +
		", from " + string(r.prev.peer.Node) + " over " + r.prev.over())
	return r, nil
}

// complete starts the watch, now that both neighbours owe signs of life.
func (r *Ring) complete() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	r.transport = transportOf(&r.prev, &r.next)
	r.wg.Add(1)
	go r.watchLoop()
	return nil
}

// connect tries until the neighbour is there, its host is found not to answer, or ctx ends.
func (r *Ring) connect(ctx context.Context, l *link, once func(context.Context, *link) error) error {
	begin := time.Now()
	pause := 10 * time.Millisecond
	var last error
	answered := begin // or might have
	for {
		err := once(ctx, l)
		if err == nil {
			return nil
		}
		if !unanswered(err) {
			answered = time.Now()
		} else if time.Since(answered) >= AnswerWithin {
			return &PeerError{Peer: l.peer.Node, Phase: "join", Waited: time.Since(begin), Err: fmt.Errorf("%w: %w", ErrSilent, err)}
		}
		if ctx.Err() != nil {
			if last != nil && errors.Is(err, ctx.Err()) {
				err = fmt.Errorf("%w; before that: %w", err, last)
			}
			return &PeerError{Peer: l.peer.Node, Phase: "join", Waited: time.Since(begin), Err: err}
		}
		last = err
		r.cfg.Log.Debug().Err(err).Str("peer", string(l.peer.Node)).Stringer("view", r.cfg.View).Msg("join: trying again")
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		pause = min(2*pause, 250*time.Millisecond)
	}
}

// unanswered says of an error that nobody was there: not even a refusal has come.
func unanswered(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" &&
		(op.Timeout() || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH))
}

// dialOnce: hello there, hello back, ready there. The answer comes when the next rank joins; until then the connection
// waits in its inbox.
func (r *Ring) dialOnce(ctx context.Context, l *link) error {
	conn, err := r.cfg.Dial(ctx, l.peer)
	if err != nil {
		return err
	}
	return r.shake(ctx, l, conn, func() error {
		o := r.makeOffer(conn)
		var text []byte
		if o != nil {
			text = o.encode()
		}
		err := r.writeHello(l, kindHello, false, text)
		if err == nil {
			_, err = r.readHello(l, kindHello)
		}
		if o != nil {
			r.seal(l, o, err == nil && l.control.h.hop != 0)
		}
		if err != nil {
			return err
		}
		if l.lane != nil || r.cfg.Stripes == 1 {
			return r.writeHello(l, kindReady, l.lane != nil, nil)
		}
		token := newToken()
		if err := r.writeHello(l, kindReady, false, token); err != nil {
			return err
		}
		return r.dialStripes(ctx, l, token)
	})
}

// acceptOnce is the other side. It waits for the ready because the connection may be a dead one: left in the inbox by
// an earlier attempt of the previous rank, with its hello in it.
func (r *Ring) acceptOnce(ctx context.Context, l *link) error {
	conn, err := r.cfg.Accept(ctx)
	if err != nil {
		return err
	}
	return r.shake(ctx, l, conn, func() error {
		var token []byte
		// The hello was sent on dialing: a silent stranger must not keep the neighbour out.
		soon, cancel := context.WithTimeout(ctx, 2*r.cfg.DeadAfter)
		defer cancel()
		err := bounded(soon, conn, func() (err error) {
			token, err = r.answer(l)
			return err
		})
		if err == nil && l.lane == nil && r.cfg.Stripes > 1 {
			err = r.acceptStripes(ctx, l, token)
		}
		return err
	})
}

// answer is the handshake on the accepting side.
func (r *Ring) answer(l *link) (token []byte, err error) {
	text, err := r.readHello(l, kindHello)
	if err != nil {
		return nil, err
	}
	taken := r.takeOffer(l, text)
	if err := r.writeHello(l, kindHello, taken, nil); err != nil {
		return nil, err
	}
	token, err = r.readHello(l, kindReady)
	if err == nil && taken != (l.control.h.hop != 0) {
		err = fmt.Errorf("%w: it does not see the memory that it has offered", ErrProtocol)
	}
	return token, err
}

// bounded runs a part of a handshake; when ctx ends, reads and writes of the connection do, too.
func bounded(ctx context.Context, conn net.Conn, talk func() error) error {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = conn.SetDeadline(time.Unix(1, 0))
	})
	err := talk()
	if !stop() {
		<-interrupted // its deadline must not hit the link at work
		if err == nil {
			err = context.Cause(ctx)
		}
	}
	return err
}

// shake runs a handshake on a fresh connection, bounded by ctx, and puts the link to work.
func (r *Ring) shake(ctx context.Context, l *link, conn net.Conn, talk func() error) error {
	l.init(conn, r.now)
	err := bounded(ctx, conn, talk)
	if err == nil {
		err = r.start(l)
	}
	if err != nil {
		_ = l.conn.Close() // with its stripes, if it has any
	}
	return err
}

// start sets a link's goroutines to work. Heartbeats begin at once: the peer may be complete before we are.
func (r *Ring) start(l *link) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	l.up = true
	if l.lane == nil {
		if r.cfg.Stripes == 1 { // several have enough on their way, and with more lose each other's packets
			pacing.Widen(l.conn)
		}
		l.conn, l.prompt = asPrompt(l.conn)
		l.waiting = l.prompt == nil
		l.out.conn, l.out.prompt = l.conn, l.prompt
	} else {
		l.bulkOut.ended = r.failed
		r.wg.Add(1)
		kick(l.laneKick) // look, and say that you doze
		go r.laneLoop(l)
	}
	r.wg.Add(2)
	go r.readLoop(l)
	if l == &r.prev {
		go r.answerLoop()
	} else {
		go r.sendLoop()
	}
	return nil
}

// hello is what the ranks of a ring must agree on.
func (r *Ring) hello(k kind) header {
	h := r.header(k)
	h.step, h.verb = id.Step(r.cfg.SmallBytes), verb(r.cfg.Stripes)
	h.bucket, h.seq, h.offset, h.digest = wireVersion, uint64(r.world), uint64(r.cfg.ChunkBytes), r.digest
	return h
}

func (r *Ring) writeHello(l *link, k kind, lane bool, text []byte) error {
	h := r.hello(k)
	if lane {
		h.hop = 1
	}
	return l.out.write(&h, text)
}

// readHello returns the offer or the token that came with it.
func (r *Ring) readHello(l *link, k kind) ([]byte, error) {
	text, err := readText(&l.control)
	if err == nil {
		err = r.judgeHello(l, &l.control.h, k)
	}
	return text, err
}

// readText reads a whole frame, whose payload is short.
func readText(in *inlet) ([]byte, error) {
	if err := in.readHeader(); err != nil {
		return nil, err
	}
	text := make([]byte, in.h.length)
	_, err := io.ReadFull(in.conn, text)
	return text, err
}

func (r *Ring) judgeHello(l *link, h *header, k kind) error {
	if h.kind != k {
		return fmt.Errorf("%w: %v instead of %v", ErrProtocol, h.kind, k)
	}
	if h.bucket != wireVersion {
		return fmt.Errorf("%w: it speaks version %d of the ring protocol, here %d", ErrProtocol, h.bucket, wireVersion)
	}
	if err := r.check(l, h); err != nil {
		return err
	}
	switch {
	case h.seq != uint64(r.world):
		return fmt.Errorf("%w: it has %d ranks in %v, here %d", ErrMismatch, h.seq, r.cfg.View, r.world)
	case h.digest != r.digest:
		return fmt.Errorf("%w: it has other peers, or another order, in %v", ErrMismatch, r.cfg.View)
	case h.offset != uint64(r.cfg.ChunkBytes):
		return fmt.Errorf("%w: ChunkBytes is %d there, %d here", ErrMismatch, h.offset, r.cfg.ChunkBytes)
	case int(h.verb) != r.cfg.Stripes:
		return fmt.Errorf("%w: Stripes is %d there, %d here", ErrMismatch, h.verb, r.cfg.Stripes)
	case h.step != id.Step(r.cfg.SmallBytes):
		return fmt.Errorf("%w: SmallBytes is %d there, %d here", ErrMismatch, int64(h.step), r.cfg.SmallBytes)
	}
	return nil
}
