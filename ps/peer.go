package ps

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/musterml/muster/internal/raftgroup"
)

// servePeer is the side channel's receiving end: a leader streams payloads to it, and
// whoever lacks one fetches it here.
func (r *replica) servePeer(conn net.Conn) {
	p := &peerConn{r: r, conn: conn}
	defer func() {
		if p.streaming {
			r.payloads.closed(p.source)
		}
	}()
	for {
		f, err := readFrame(conn, &p.head)
		if err == nil {
			err = p.serve(f)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				r.log.Debug().Err(err).Stringer("from", conn.RemoteAddr()).Msg("side channel ended")
			}
			return
		}
	}
}

type peerConn struct {
	r         *replica
	conn      net.Conn
	streaming bool
	source    uint64 // of the stream
	head      [frameSize]byte
	writer    payloadWriter
}

func (p *peerConn) serve(f frame) error {
	t, patience := p.r.payloads, p.r.cfg.Patience
	switch f.kind {
	case frameOpen:
		if p.streaming {
			return errors.New("ps: side channel: a second stream on one connection")
		}
		p.streaming, p.source = true, f.id.source
		t.opened(f.id.source)
		return nil
	case frameStore:
		if !p.streaming || f.id.source != p.source {
			return fmt.Errorf("ps: side channel: payload %v outside its source's stream", f.id)
		}
		got, err := t.receive(p.conn, f, p.r.maxPayload, patience)
		if err != nil {
			return err
		}
		t.arrive(got, time.Now())
		t.passed(f.id)
		return nil
	case frameFetch:
		have := t.pin(f.id)
		if have == nil {
			return p.writer.send(p.conn, frame{kind: frameMissing, id: f.id}, nil, patience)
		}
		defer t.release(have)
		return p.writer.store(p.conn, have, patience)
	case frameApplied:
		select {
		case <-p.r.ready:
		case <-p.r.ctx.Done():
			return net.ErrClosed
		}
		applied := p.r.group.Raft().AppliedIndex()
		return p.writer.send(p.conn, frame{kind: frameApplied, id: payloadID{seq: applied}}, nil, patience)
	case frameState:
		return p.sendState(f.id.seq)
	}
	return fmt.Errorf("ps: side channel: frame of kind %d is no question", f.kind)
}

// applied asks another replica how far it has applied the log.
func (r *replica) applied(of raftgroup.Replica) (uint64, error) {
	conn, done, err := r.ask(r.endpoint(of), frame{kind: frameApplied})
	if err != nil {
		return 0, err
	}
	defer done()
	var head [frameSize]byte
	f, err := readFrame(conn, &head)
	if err != nil {
		return 0, err
	}
	if f.kind != frameApplied {
		return 0, fmt.Errorf("ps: side channel: answer of kind %d to a question for the applied index", f.kind)
	}
	return f.id.seq, nil
}
