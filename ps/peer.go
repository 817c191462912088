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
	p := &peerConn{r: r, conn: conn, coming: map[payloadID]*payload{}}
	defer p.end()
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
	source    uint64                 // of the stream
	coming    map[payloadID]*payload // begun on it, known to nobody else
	bytes     int64                  // of those
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
	case frameBegin, framePart, frameEnd, frameDrop:
		return p.stream(f)
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

// stream takes in what a leader sends of its payloads.
func (p *peerConn) stream(f frame) error {
	t, got := p.r.payloads, p.coming[f.id]
	if !p.streaming || f.id.source != p.source || (got == nil) != (f.kind == frameBegin) {
		return fmt.Errorf("ps: side channel: frame of kind %d for payload %v is out of place", f.kind, f.id)
	}
	switch f.kind {
	case frameBegin:
		if err := checkLength(f, p.r.maxPayload); err != nil {
			return err
		}
		// More than a log may hold is not on its way from any leader that is of this version.
		if p.bytes += int64(f.length); p.bytes > 4*p.r.logLimit+int64(p.r.maxPayload) {
			return fmt.Errorf("ps: side channel: %d bytes of payloads have begun and not ended", p.bytes)
		}
		got = t.get(int(f.length / 4))
		got.id = f.id
		p.coming[f.id] = got
		t.begins(f.id)
		return nil
	case framePart:
		if rest := got.size() - int64(got.filled); f.length > uint64(rest) {
			return fmt.Errorf("ps: side channel: %d bytes of payload %v, of which only %d are missing", f.length, f.id, rest)
		}
		if err := t.fill(p.conn, got, int(f.length), p.r.cfg.Patience); err != nil {
			return err
		}
		return p.conn.SetReadDeadline(time.Time{})
	case frameEnd:
		if int64(got.filled) != got.size() || got.crc != f.crc {
			return fmt.Errorf("ps: side channel: payload %v: %d of %d bytes: %w", f.id, got.filled, got.size(), errChecksum)
		}
		p.forget(got)
		t.arrive(got, time.Now())
	default:
		p.forget(got)
		t.discard(got)
	}
	t.ends(f.id)
	return nil
}

func (p *peerConn) forget(got *payload) {
	delete(p.coming, got.id)
	p.bytes -= got.size()
}

// end gives back what was on its way when the connection ended.
func (p *peerConn) end() {
	for id, got := range p.coming {
		p.r.payloads.discard(got)
		p.r.payloads.ends(id)
	}
	if p.streaming {
		p.r.payloads.closed(p.source)
	}
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
