package ps

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/ps/table"
)

// rows is the sparse tables of one shard: package table's Store, for many goroutines. Raft's goroutine changes it, sessions
// read it.
type rows struct {
	decoder *table.Decoder // of Raft's goroutine

	mu      sync.RWMutex
	store   *table.Store
	changed chan struct{} // closed when the store comes to another step
}

// maxRows bounds the payload of one request on rows, in bytes.
const maxRows = 64 << 20

func newRows(cfg *ServerConfig, shard id.ParamShard) (*rows, error) {
	if len(cfg.Tables) == 0 {
		return nil, nil
	}
	s, err := table.New(cfg.Tables, int(shard), cfg.Layout.Shards, cfg.LogicalShards)
	if err != nil {
		return nil, err
	}
	return &rows{decoder: s.Decoder(), store: s, changed: make(chan struct{})}, nil
}

// ofRows tells whether an entry is of the sparse tables.
func ofRows(k pb.ParamEntry_Kind) bool {
	return k == pb.ParamEntry_PUSH_ROWS || k == pb.ParamEntry_LOAD_ROWS
}

// apply carries out an entry on the rows.
func (r *rows) apply(e *entry, payload []float32) result {
	if r == nil {
		return result{status: pb.ParamAnswer_BAD_REQUEST, message: "the job has no sparse tables"}
	}
	if e.kind == pb.ParamEntry_LOAD_ROWS {
		b := floats.Bytes(payload)
		if len(b) < loadHead {
			return result{status: pb.ParamAnswer_BAD_REQUEST, message: "no slots to load"}
		}
		return r.change(func() error { return r.store.Load(e.step, int(e.first), int(e.last), b[loadHead:]) })
	}
	parts, err := r.decoder.Parts(payload)
	if err != nil {
		return rowsResult(err)
	}
	return r.change(func() error { return r.store.Push(e.step, e.keep, parts) })
}

// loadHead is the word in front of what is loaded: no payload is empty.
const loadHead = 4

func (r *rows) change(do func() error) result {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.store.Step()
	err := do()
	if r.store.Step() != before {
		r.stepped()
	}
	return rowsResult(err)
}

// stepped wakes who waits for a step. The caller holds mu.
func (r *rows) stepped() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// rowsResult is what became of an entry or a question.
func rowsResult(err error) result {
	switch {
	case err == nil:
		return result{status: pb.ParamAnswer_OK}
	case errors.Is(err, table.ErrGap):
		return result{status: pb.ParamAnswer_GAP, message: err.Error()}
	case errors.Is(err, table.ErrGone):
		return result{status: pb.ParamAnswer_GONE, message: err.Error()}
	case errors.Is(err, table.ErrNotYet):
		return result{status: pb.ParamAnswer_NOT_YET, message: err.Error()}
	default:
		return result{status: pb.ParamAnswer_BAD_REQUEST, message: err.Error()}
	}
}

// reached tells whether the rows have come to a step and, if not, what is closed when they come to another.
func (r *rows) reached(step id.Step) (ok bool, changed <-chan struct{}) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.store.Step() >= step, r.changed
}

// read runs a question on the store; one that is not of the newest step has it to itself.
func (r *rows) read(step id.Step, question func(*table.Store) error) error {
	r.mu.RLock()
	if r.store.Newest(step) {
		defer r.mu.RUnlock()
		return question(r.store)
	}
	r.mu.RUnlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	return question(r.store)
}

func (r *rows) pin(step id.Step, keep bool) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.store.Pin(step, keep)
}

func (r *rows) stats() []table.Stats {
	if r == nil {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.store.Stats()
}

// snapshot begins a snapshot of the rows that steps from since on have seen; nil where there are none.
func (r *rows) snapshot(since id.Step) *table.Snapshot {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.store.Snapshot(since, func(do func()) {
		r.mu.Lock()
		defer r.mu.Unlock()
		do()
	})
}

// readRows reads the rows of a snapshot; nil where there are none.
func (r *rows) readSnapshot(from io.Reader) (*table.Store, error) {
	if r == nil {
		return nil, nil
	}
	return r.store.Restore(from)
}

// replace takes up the rows of a snapshot.
func (r *rows) replace(s *table.Store) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.store = s
	r.stepped()
}

// checkRows refuses what no replica would carry out.
func (c *ServerConfig) checkRows(kind pb.ParamEntry_Kind, first, last id.Block, length int) error {
	switch {
	case len(c.Tables) == 0:
		return errors.New("the job has no sparse tables")
	case length < loadHead || length%4 != 0 || length > maxRows:
		return fmt.Errorf("payload of %d bytes for rows, must be whole words, at most %d", length, maxRows)
	case kind == pb.ParamEntry_LOAD_ROWS && (first < 0 || first >= last || last > table.Slots):
		return fmt.Errorf("slots [%d, %d) are no range of %d", first, last, table.Slots)
	}
	return nil
}

// padded is a length in whole words.
func padded(n int) int { return (n + 3) &^ 3 }

// unpack takes apart what PULL_ROWS is answered with: which of n rows are there, and their values.
func unpack(data []float32, n int) (changed []byte, values []float32, ok bool) {
	head := padded((n + 7) / 8)
	if len(data) < head/4 {
		return nil, nil, false
	}
	return floats.Bytes(data[:head/4]), data[head/4:], true
}

// loadPayload is slots to load as they travel.
func loadPayload(b []byte) []byte { return append(binary.LittleEndian.AppendUint32(nil, 0), b...) }
