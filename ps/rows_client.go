package ps

import (
	"context"
	"fmt"
	"slices"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	pb "github.com/musterml/muster/proto"
	"github.com/musterml/muster/ps/table"
)

// rowsCall is what one shard is asked, and what it answers with.
type rowsCall struct {
	payload []byte
	to      [][]float32 // PULL_ROWS: where the row of each key goes
	slots   []byte      // SCAN_ROWS: the answer
}

// readsRows tells of a request that changes nothing.
func (op *operation) readsRows() bool {
	return op.kind == pb.ParamRequest_PULL_ROWS || op.kind == pb.ParamRequest_SCAN_ROWS
}

// PushRows gives the servers a step's gradients of the rows of some logical shards; every shard is told, also of parts
// that have nothing for it. It returns when they are committed; the step is done when the parts of all logical shards are.
// States from keep on, at most step, stay readable.
func (c *Client) PushRows(ctx context.Context, step, keep id.Step, parts []table.Part) error {
	for _, p := range parts {
		if err := c.checkTables(len(p.Tables)); err != nil {
			return err
		}
		for j, r := range p.Tables {
			if len(r.Values) != len(r.Keys)*c.cfg.Tables[j].Dim {
				return fmt.Errorf("%w: %d values of %d rows of %d", ErrRefused, len(r.Values), len(r.Keys), c.cfg.Tables[j].Dim)
			}
		}
	}
	return c.do(ctx, func(op *operation) {
		op.kind, op.step, op.keep = pb.ParamRequest_PUSH_ROWS, step, keep
		c.dealer(op).Parts(parts)
		op.ask()
	})
}

// dealer is that of an operation, which keeps its memory for the next.
func (c *Client) dealer(op *operation) *table.Dealer {
	if op.deal == nil {
		op.deal, op.calls = table.NewDealer(c.cfg.Tables, c.cfg.Layout.Shards), make([]rowsCall, c.cfg.Layout.Shards)
	}
	return op.deal
}

// ask sends each shard what the dealer has for it.
func (op *operation) ask() {
	op.rows = op.calls
	for shard, p := range op.deal.Payloads {
		op.rows[shard] = rowsCall{payload: p, to: op.rows[shard].to[:0]}
	}
}

func (c *Client) checkTables(n int) error {
	if n != len(c.cfg.Tables) {
		return fmt.Errorf("%w: rows of %d tables, there are %d", ErrRefused, n, len(c.cfg.Tables))
	}
	return nil
}

// PullRows reads the rows of the keys, one Rows for each table, in the state at a step, and waits for one that has not been
// reached yet. With since below step the values must be those of the state at since, and only what has changed is sent.
func (c *Client) PullRows(ctx context.Context, step, since id.Step, tables []table.Rows) error {
	if err := c.checkTables(len(tables)); err != nil {
		return err
	}
	for j, r := range tables {
		if dim := c.cfg.Tables[j].Dim; len(r.Values) != len(r.Keys)*dim {
			return fmt.Errorf("%w: room for %d values of %d rows of %d", ErrRefused, len(r.Values), len(r.Keys), dim)
		}
	}
	return c.do(ctx, func(op *operation) {
		op.kind, op.step, op.keep = pb.ParamRequest_PULL_ROWS, step, since
		d := c.dealer(op)
		d.Keys(tables)
		op.ask()
		shards := d.Shards
		for j, r := range tables {
			for dim, i := c.cfg.Tables[j].Dim, 0; i < len(r.Keys); i++ {
				call := &op.rows[shards[i]]
				call.to = append(call.to, r.Values[i*dim:(i+1)*dim:(i+1)*dim])
			}
			shards = shards[len(r.Keys):]
		}
	})
}

// ScanRows reads the slots [from, to) of all tables in the state at a step, without what is as in the state at since (0:
// everything). What it returns depends on the state alone, not on the shards.
func (c *Client) ScanRows(ctx context.Context, step, since id.Step, from, to int) ([]byte, error) {
	calls := make([]rowsCall, c.cfg.Layout.Shards)
	err := c.do(ctx, func(op *operation) {
		op.kind, op.step, op.keep, op.rows = pb.ParamRequest_SCAN_ROWS, step, since, calls
		op.first, op.last = id.Block(from), id.Block(to)
	})
	if err != nil {
		return nil, err
	}
	whole, err := table.New(c.cfg.Tables, 0, 1, 1)
	if err != nil {
		return nil, err
	}
	for i := range calls {
		if err := whole.Overlay(calls[i].slots, nil); err != nil {
			return nil, fmt.Errorf("ps: scan of %v: %w", id.ParamShard(i), err)
		}
	}
	whole.Settle(step)
	return whole.AppendSlots(nil, step, 0, from, to)
}

// LoadRows gives the servers the whole state of the tables at the step that a store is at. Servers that have it, or have
// gone beyond it, change nothing.
func (c *Client) LoadRows(ctx context.Context, all *table.Store) error {
	bytes := int64(0)
	for _, s := range all.Stats() {
		bytes += s.Bytes
	}
	each := min(max(1, int(table.Slots*int64(c.cfg.MaxRequest)/(bytes+1))), table.Slots)
	for from := 0; from < table.Slots; from += each {
		to := min(from+each, table.Slots)
		calls := make([]rowsCall, c.cfg.Layout.Shards)
		for shard := range calls {
			b, err := all.AppendShard(nil, all.Step(), from, to, shard, len(calls))
			if err != nil {
				return err
			}
			calls[shard].payload = loadPayload(b)
		}
		err := c.do(ctx, func(op *operation) {
			op.kind, op.step, op.rows = pb.ParamRequest_LOAD_ROWS, all.Step(), calls
			op.first, op.last = id.Block(from), id.Block(to)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// acceptRows reads what a shard answers a question on rows with.
func (l *lane) acceptRows(op *operation) error {
	call := &op.rows[l.s.shard]
	if l.ans.Length%4 != 0 || op.kind == pb.ParamRequest_PULL_ROWS && int(l.ans.Length) > maxRows {
		return errAgain{fmt.Sprintf("answer of %d bytes", l.ans.Length)}
	}
	data, err := l.read(int(l.ans.Length) / 4)
	if err != nil {
		return err
	}
	if op.kind == pb.ParamRequest_SCAN_ROWS {
		call.slots = slices.Clone(floats.Bytes(data))
		return nil
	}
	changed, values, ok := unpack(data, len(call.to))
	for i, to := range call.to {
		switch {
		case !ok:
		case changed[i/8]&(1<<(i%8)) == 0:
		case len(values) < len(to):
			ok = false
		default:
			values = values[copy(to, values):]
		}
	}
	if !ok || len(values) > 0 {
		return errAgain{fmt.Sprintf("answer of %d bytes does not fit %d rows", l.ans.Length, len(call.to))}
	}
	return nil
}
