package ps

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/musterml/muster/internal/crash"
	pb "github.com/musterml/muster/proto"
)

// machine is the replica as Raft's state machine.
//
// Raft's snapshots are references, as its log entries are: a few bytes that say "the
// state after entry i". A replica that is given one fetches the state from the leader,
// or any replica that has got so far, on the side channel. What it gets is the sender's
// state of that moment, after some entry k >= i, with k: the entries up to k, all
// committed, are then skipped when Raft applies them, so the state is exactly that of
// every other replica at every index from k on. So the log can be cut at any time at the
// cost of a small file.
//
// Rejected: writing the state into Raft's snapshot files where the log is in memory. The
// log of a busy shard grows by its gradients and must be cut every second or so, and the
// whole state would go to disk each time; at 3 replicas on one machine that halved the
// rate of commits. With durability on disk (Durable) it is just that what is asked for.
type machine struct{ r *replica }

// Apply implements raft.FSM. The log holds the entry, so its payload is here; were it
// not, going on without it would make this replica differ from the others.
func (m machine) Apply(l *raft.Log) any {
	r := m.r
	<-r.ready
	if r.fenced() != nil {
		return result{status: pb.ParamAnswer_RETRY, message: "the replica is fenced"}
	}
	if r.state.has(l.Index) {
		return result{status: pb.ParamAnswer_RETRY, message: "applied with a snapshot"}
	}
	if string(l.Data) == auditEntry {
		r.audit(l.Index)
		return result{status: pb.ParamAnswer_OK}
	}
	e, err := decodeEntry(l.Data)
	if err != nil {
		r.state.advance(l.Index)
		return result{status: pb.ParamAnswer_BAD_REQUEST, message: err.Error()}
	}
	p := r.payloads.pin(e.ref.id)
	if p == nil {
		r.healer.wait(r.ctx, l.Index)
		if r.state.has(l.Index) {
			return result{status: pb.ParamAnswer_RETRY, message: "applied with a snapshot"}
		}
		p = r.payloads.pin(e.ref.id)
	}
	if p == nil {
		if r.ctx.Err() != nil {
			return result{status: pb.ParamAnswer_RETRY, message: "the replica is being stopped"}
		}
		r.fence(fmt.Errorf("entry %d of term %d is committed, but its payload %v is not here", l.Index, l.Term, e.ref.id))
		return result{status: pb.ParamAnswer_RETRY, message: "the replica is fenced"}
	}
	crash.At("ps.before-apply")
	res := r.state.apply(l.Index, &e, p.data)
	crash.At("ps.after-apply")
	r.payloads.release(p)
	if r.payloads.logBytes() > r.logLimit {
		poke(r.cut)
	}
	return res
}

// StoreConfiguration implements raft.ConfigurationStore. Without it Raft would not count a
// change of replicas as applied, and would refuse to cut the log until the next command:
// never, when the commands wait for the cut to make room.
func (m machine) StoreConfiguration(index uint64, _ raft.Configuration) {
	m.r.state.advance(index)
	poke(m.r.changed)
}

// Snapshot implements raft.FSM.
func (m machine) Snapshot() (raft.FSMSnapshot, error) {
	if err := m.r.fenced(); err != nil {
		return nil, err
	}
	if m.r.cfg.Durable {
		return m.r.disk.snapshot(m.r.state), nil
	}
	m.r.state.mu.Lock()
	defer m.r.state.mu.Unlock()
	return stateReference{m.r.state.applied}, nil
}

// Restore implements raft.FSM.
func (m machine) Restore(source io.ReadCloser) error {
	if m.r.cfg.Durable {
		return errors.Join(m.r.state.restore(source), source.Close())
	}
	index, err := readReference(source)
	if err = errors.Join(err, source.Close()); err != nil {
		return err
	}
	return m.r.fetchState(index)
}

// stateReference implements raft.FSMSnapshot.
type stateReference struct{ index uint64 }

const referenceMagic = "mstr-ref"

// Persist implements raft.FSMSnapshot.
func (s stateReference) Persist(sink raft.SnapshotSink) error {
	b := binary.LittleEndian.AppendUint64([]byte(referenceMagic), s.index)
	if _, err := sink.Write(b); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (stateReference) Release() {}

func readReference(r io.Reader) (index uint64, err error) {
	var b [len(referenceMagic) + 8]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, fmt.Errorf("%w: reference: %w", ErrSnapshot, err)
	}
	if string(b[:len(referenceMagic)]) != referenceMagic {
		return 0, fmt.Errorf("%w: %x is no reference", ErrSnapshot, b)
	}
	return binary.LittleEndian.Uint64(b[len(referenceMagic):]), nil
}

// fetchState makes the state that after at least the given entry. It does nothing where
// that is so already: Raft sends a snapshot again when the answer to the first was late.
func (r *replica) fetchState(index uint64) error {
	if r.state.has(index) {
		return nil
	}
	err := errNotFound
	for _, from := range r.candidates() {
		start := time.Now()
		if err = r.fetchStateFrom(from, index); err == nil {
			r.log.Info().Str("from", string(from.node)).Dur("took", time.Since(start)).Msg("state received")
			return nil
		}
		r.log.Warn().Err(err).Str("from", string(from.node)).Msg("could not get the state")
		if r.ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("ps: state of %v after entry %d: %w", r.shard, index, err)
}

func (r *replica) fetchStateFrom(from endpoint, index uint64) error {
	conn, done, err := r.ask(from, frame{kind: frameState, id: payloadID{seq: index}})
	if err != nil {
		return err
	}
	defer done()
	var head [frameSize]byte
	f, err := readFrame(conn, &head)
	if err != nil {
		return err
	}
	if f.kind != frameState {
		return errNotFound
	}
	return r.state.restore(impatient{conn, r.cfg.Patience})
}

// ask opens a side channel of its own and asks a question on it. The question ends with
// done, or with the replica.
func (r *replica) ask(to endpoint, question frame) (conn net.Conn, done func(), err error) {
	ctx, cancel := context.WithTimeout(r.ctx, r.cfg.Patience)
	defer cancel()
	conn, err = r.dial(ctx, to.addr, to.topic)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(r.ctx, func() { _ = conn.Close() })
	done = func() {
		stop()
		_ = conn.Close()
	}
	var w payloadWriter
	err = w.send(conn, question, nil, r.cfg.Patience)
	if err == nil {
		err = conn.SetReadDeadline(time.Now().Add(r.cfg.Patience))
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return conn, done, nil
}

// sendState answers a frameState: the whole state of this moment, if it has got so far.
func (p *peerConn) sendState(index uint64) error {
	r := p.r
	if !r.state.has(index) || r.fenced() != nil {
		return p.writer.send(p.conn, frame{kind: frameMissing}, nil, r.cfg.Patience)
	}
	if err := p.writer.send(p.conn, frame{kind: frameState}, nil, r.cfg.Patience); err != nil {
		return err
	}
	snapshot := r.state.snapshot(0)
	defer snapshot.release()
	w := bufio.NewWriterSize(impatient{p.conn, r.cfg.Patience}, 1<<18)
	if err := snapshot.writeLayer(w); err != nil {
		return err
	}
	if err := snapshot.write(w); err != nil {
		return err
	}
	return w.Flush()
}

// impatient gives every read and write of a long transfer its own deadline.
type impatient struct {
	conn     net.Conn
	patience time.Duration
}

func (i impatient) Read(b []byte) (int, error) {
	if err := i.conn.SetReadDeadline(time.Now().Add(i.patience)); err != nil {
		return 0, err
	}
	return i.conn.Read(b)
}

func (i impatient) Write(b []byte) (int, error) {
	if err := i.conn.SetWriteDeadline(time.Now().Add(allowance(i.patience, len(b)))); err != nil {
		return 0, err
	}
	return i.conn.Write(b)
}
