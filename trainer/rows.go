package trainer

import (
	"context"
	"slices"
	"sync"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/ps/table"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/nn"
)

// How a step gets its rows of the sparse tables, and what becomes of their gradients.
//
// Before computing, a trainer has the rows of all keys that its logical shards have in the step, each key once. While it
// computes, it reads the samples of the next step and pulls their rows as they are now. When it has the gradients it pushes
// those of each logical shard, and at the same time asks for the next step's rows again, of which only those are sent that
// the step has changed. The servers answer that when the parts of all logical shards are in, so the answer
// also says that the step is complete: only then is the dense part of the step done. Hence the tables are never behind
// the dense state, whatever is lost, and as far ahead of it as it may fall back: by one step, or in mode ring to the commit before the
// last; so far back the servers can still read their rows, and pushes of what they have done change nothing.

// rowSource is where rows are read.
type rowSource interface {
	PullRows(ctx context.Context, step, since id.Step, tables []table.Rows) error
}

// rowServers is where gradients go as well.
type rowServers interface {
	rowSource
	PushRows(ctx context.Context, step, keep id.Step, parts []table.Part) error
}

// rowSet is the samples of some logical shards in a step, and the rows of all their keys.
type rowSet struct {
	step   id.Step // of the samples
	at     id.Step // the rows are those of the state at it
	shards []id.LogicalShard
	units  []rowUnit    // by logical shard
	tables []table.Rows // all have the same keys
}

// rowUnit is the part of one logical shard.
type rowUnit struct {
	room, batch data.Batch // batch is what of room is filled
	rows        data.Rows
}

// rows is a trainer's part in the sparse tables.
type rows struct {
	servers   rowServers
	loader    *data.Loader
	specs     []nn.Table
	now, next *rowSet
}

func newRows(spec *nn.Spec, servers rowServers, loader *data.Loader, train data.Dataset, b data.Batches) *rows {
	if len(spec.Tables()) == 0 {
		return nil
	}
	r := &rows{servers: servers, loader: loader, specs: spec.Tables()}
	for _, set := range []**rowSet{&r.now, &r.next} {
		*set = &rowSet{units: make([]rowUnit, b.LogicalShards), tables: make([]table.Rows, len(r.specs))}
		for l := range b.LogicalShards {
			(*set).units[l].room = data.NewBatch(train, b.MaxSlice())
		}
	}
	return r
}

// fill reads the samples of a step, and makes room for their rows.
func (r *rows) fill(set *rowSet, step id.Step, shards []id.LogicalShard) {
	set.step, set.shards = step, slices.Clone(shards)
	var keys []uint64
	for _, l := range shards {
		u := &set.units[l]
		u.batch = r.loader.Fill(step, []id.LogicalShard{l}, u.room)
		u.rows.Sort(u.batch.Keys)
		u.batch.Rows = &u.rows
		keys = append(keys, u.rows.Keys...)
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	for i, t := range r.specs {
		set.tables[i].Keys = keys
		set.tables[i].Values = resized(set.tables[i].Values, len(keys)*t.Width)
	}
}

func resized(s []float32, n int) []float32 {
	if cap(s) < n {
		return make([]float32, n, n+n/4)
	}
	return s[:n]
}

// deal gives each unit its rows.
func (r *rows) deal(set *rowSet) {
	for _, l := range set.shards {
		u := &set.units[l].rows
		u.Values, u.Grads = sizedList(u.Values, len(r.specs)), sizedList(u.Grads, len(r.specs))
		for i, t := range r.specs {
			u.Values[i], u.Grads[i] = resized(u.Values[i], len(u.Keys)*t.Width), resized(u.Grads[i], len(u.Keys)*t.Width)
			gather(u.Values[i], u.Keys, set.tables[i], t.Width)
		}
	}
}

func sizedList(s [][]float32, n int) [][]float32 {
	if s == nil {
		return make([][]float32, n)
	}
	return s
}

// gather copies the rows of keys, which are among those of a table; both ascend.
func gather(dst []float32, keys []uint64, from table.Rows, width int) {
	at := 0
	for i, k := range keys {
		for from.Keys[at] != k {
			at++
		}
		copy(dst[i*width:(i+1)*width], from.Values[at*width:])
	}
}

// ready sees that the rows of a step are here.
func (r *rows) ready(ctx context.Context, step id.Step, shards []id.LogicalShard) error {
	if r.now.step == step && r.now.at == step && slices.Equal(r.now.shards, shards) {
		return nil
	}
	r.fill(r.now, step, shards)
	r.now.at = step + 1 // not valid until all is here
	if err := r.servers.PullRows(ctx, step, step, r.now.tables); err != nil {
		return err
	}
	r.deal(r.now)
	r.now.at = step
	return nil
}

// ahead reads the samples of the step after this one, and their rows as they are now. It runs beside computing.
func (r *rows) ahead(ctx context.Context, shards []id.LogicalShard) error {
	r.fill(r.next, r.now.step+1, shards)
	r.next.at = r.next.step + 1 // not valid until all is here
	return r.servers.PullRows(ctx, r.now.step, r.now.step, r.next.tables)
}

// push gives the step's gradients to the servers and takes the rows of the next step, which there are when the step is done.
// States from keep on stay readable.
func (r *rows) push(ctx context.Context, keep id.Step, shards []id.LogicalShard) error {
	var parts []table.Part
	for _, l := range shards {
		u := &r.now.units[l].rows
		p := table.Part{Shard: l}
		for i := range r.specs {
			p.Tables = append(p.Tables, table.Rows{Keys: u.Keys, Values: u.Grads[i]})
		}
		parts = append(parts, p)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var pulling sync.WaitGroup
	var pulled error
	pulling.Go(func() { pulled = r.servers.PullRows(ctx, r.next.step, r.now.step, r.next.tables) })
	err := r.servers.PushRows(ctx, r.now.step, keep, parts)
	if err != nil {
		cancel()
	}
	pulling.Wait()
	if err == nil {
		err = pulled
	}
	if err != nil {
		return err
	}
	r.deal(r.next)
	r.next.at = r.next.step
	r.now, r.next = r.next, r.now
	return nil
}

// rowsOfHeldOut reads the rows of held-out samples, in the state at a step.
func (w *work) rowsOfHeldOut(ctx context.Context, b *bench, s id.Step, in *data.Batch) error {
	if len(w.tables) == 0 {
		return nil
	}
	rows := &b.heldOut
	rows.Sort(in.Keys)
	rows.Values = sizedList(rows.Values, len(w.tables))
	pull := make([]table.Rows, len(w.tables))
	for i, t := range w.tables {
		rows.Values[i] = resized(rows.Values[i], len(rows.Keys)*t.Width)
		pull[i] = table.Rows{Keys: rows.Keys, Values: rows.Values[i]}
	}
	in.Rows = rows
	return w.source.PullRows(ctx, s, s, pull)
}

// prefetch begins ahead; the function that it returns waits for it. At the last step the set after it is of no samples.
func (s *shift) prefetch(ctx context.Context, at id.Step) (wait func() error) {
	r := s.work.rows
	if r == nil || at == s.steps {
		return func() error { return nil }
	}
	shards := s.shards
	if at+1 == s.steps {
		shards = nil
	}
	var ahead sync.WaitGroup
	var err error
	ahead.Go(func() { err = r.ahead(ctx, shards) })
	return func() error {
		ahead.Wait()
		return err
	}
}

// readyRows waits for the rows of a step, if the model has tables and the step samples.
func (s *shift) readyRows(ctx context.Context, at id.Step) error {
	if s.work.rows == nil || at == s.steps {
		return nil
	}
	if s.work.rows.now.step != at {
		s.work.forget() // what units have done of the step, the gradients of their rows are lost
	}
	return s.ask("the rows of tables", at, func() error { return s.work.rows.ready(ctx, at, s.shards) })
}

// pushRows does the step in the tables.
func (s *shift) pushRows(ctx context.Context, at id.Step) error {
	if s.work.rows == nil {
		return nil
	}
	keep := at
	if ring, ok := s.sync.(ringSync); ok { // all trainers may be lost, and begin again at a commit: the last may not be complete
		for !ring.commits(keep) {
			keep--
		}
		keep = ring.committedBefore(keep)
	}
	return s.ask("the update of rows by the servers", at, func() error { return s.work.rows.push(ctx, keep, s.shards) })
}
