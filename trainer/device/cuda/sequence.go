package cuda

import (
	"fmt"
	"math"
	"strconv"

	"github.com/musterml/muster/trainer/device"
)

const (
	maxHeadWidth = 256
	rowsPerBlock = blockThreads / warpThreads // a warp per row
	mostGridZ    = 65535                      // blocks, as
	mostGridY    = mostGridZ
)

func (s *stream) attends(g device.AttentionShape) bool {
	if !s.valid(g) {
		return false
	}
	if g.Width > maxHeadWidth || g.N > mostGridZ || g.Heads > mostGridZ {
		s.fail(fmt.Errorf("attention %+v: heads are at most %d wide on this device, samples and heads at most %d", g, maxHeadWidth, mostGridZ))
	}
	return s.err == nil
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// tensorAttention is how attention's kernels on tensor cores (kernels/attention_tensor.cuh, Tiles) cut their work.
type tensorAttention struct {
	suffix              string // of their names
	threads             int
	forward, query, key tensorPass
}

// tensorPass is one of the three kernels.
type tensorPass struct {
	rows   int // of queries, or keys, in a block
	shared int // bytes
}

// tensorCores says how tensor cores do it, if they do: rows of heads must begin at multiples of 16 bytes.
func (s *stream) tensorCores(g device.AttentionShape, o outputs, operands ...pointer) (a tensorAttention, ok bool) {
	perWord := map[device.Precision]int{device.TF32: 1, device.BF16: 2}[s.d.precision]
	if perWord == 0 || g.Width > 128 || g.Width*o.size()%16 != 0 || 3*g.T*g.Heads*g.Width > math.MaxInt32 {
		return a, false
	}
	for _, p := range operands {
		if p%16 != 0 {
			return a, false
		}
	}
	width := 64
	if g.Width > width {
		width = 128
	}
	words, warps, times := width/perWord, 4, 1
	if words == 128 {
		warps = 2
	}
	if words == 32 {
		times = 2
	}
	// Of own matrices a block has all rows; of those on the other side, two, it has some columns twice, and of each column perhaps some bytes.
	pass := func(rows, own, columns, besides int) tensorPass {
		return tensorPass{rows, 4*(own*rows+4*columns)*(words+4) + 2*columns*besides}
	}
	rows, columns := 16*warps*times, min(32, 2048/words)
	return tensorAttention{
		suffix: o.kernel(s.name("_", string(s.d.precision), "_"+strconv.Itoa(width))), threads: warpThreads * warps,
		forward: pass(16*warps*perWord, 1, 2048/words, 0), query: pass(rows, 2, columns, 0), key: pass(rows, 2, columns, 8),
	}, true
}

func (p tensorPass) grid(g device.AttentionShape) [3]int {
	return [3]int{ceil(g.T, p.rows), g.Heads, g.N}
}

// Attention implements device.Ops.
func (s *stream) Attention(p device.Attention) {
	const op = "attention"
	g := p.Shape
	if !s.attends(g) {
		return
	}
	n, o := g.N*g.T*g.Heads*g.Width, s.outputs(op, p.QKV)
	args := struct {
		y, qkv, lse                pointer
		n, t, heads, width, causal int64
		scale                      float32
	}{
		o.at("Y", p.Y, n), o.at("QKV", p.QKV, 3*n), s.floats(op, "LSE", p.LSE, g.N*g.Heads*g.T),
		int64(g.N), int64(g.T), int64(g.Heads), int64(g.Width), flag(g.Causal), g.Scale(),
	}
	if a, ok := s.tensorCores(g, o, args.qkv, args.y); ok {
		launchShared(s, s.name("attention", a.suffix, ""), a.forward.grid(g), a.threads, a.forward.shared, args)
		return
	}
	launch(s, o.kernel("attention"), [3]int{ceil(g.T, rowsPerBlock), g.Heads, g.N}, blockThreads, args)
}

// AttentionBackward implements device.Ops.
func (s *stream) AttentionBackward(p device.AttentionBackward) {
	const op = "gradient of attention"
	g := p.Shape
	if !s.attends(g) {
		return
	}
	n, rows, o := g.N*g.T*g.Heads*g.Width, g.N*g.Heads*g.T, s.outputs(op, p.QKV)
	args := struct {
		dqkv, delta, qkv, dy, y, lse pointer
		n, t, heads, width, causal   int64
		scale                        float32
	}{
		o.at("DQKV", p.DQKV, 3*n), s.room(roomOfParts, 4*rows), o.at("QKV", p.QKV, 3*n), o.at("DY", p.DY, n), o.at("Y", p.Y, n),
		s.floats(op, "LSE", p.LSE, rows), int64(g.N), int64(g.T), int64(g.Heads), int64(g.Width), flag(g.Causal), g.Scale(),
	}
	if a, ok := s.tensorCores(g, o, args.qkv, args.dy, args.y, args.dqkv); ok {
		launchShared(s, s.name("attention_backward_query", a.suffix, ""), a.query.grid(g), a.threads, a.query.shared, args)
		launchShared(s, s.name("attention_backward_key", a.suffix, ""), a.key.grid(g), a.threads, a.key.shared, args)
		return
	}
	grid := [3]int{ceil(g.T, rowsPerBlock), g.Heads, g.N}
	launch(s, o.kernel("attention_backward_query"), grid, blockThreads, args)
	launch(s, o.kernel("attention_backward_key"), grid, blockThreads, args)
}

// contextual refuses positions that are fewer than the sequence's.
func (s *stream) contextual(op string, positions device.Buffer, t, context int) bool {
	if !positions.IsNone() && context < t {
		s.fail(fmt.Errorf("%s: %d positions for sequences of %d", op, context, t))
	}
	return s.err == nil
}

// Embedding implements device.Ops.
func (s *stream) Embedding(p device.Embedding) {
	const op = "embedding"
	if !s.sized(op, p.N, p.T, p.Width, p.Vocab) || !s.contextual(op, p.Positions, p.T, p.Context) {
		return
	}
	n := p.N * p.T
	o := s.outputs(op, p.Y)
	launch(s, o.kernel("embedding"), each(n*p.Width), blockThreads, struct {
		y, tokens, table, positions pointer
		at                          fault
		n, t, width, vocab          int64
	}{
		o.at("Y", p.Y, n*p.Width), s.want(op, "Tokens", p.Tokens, n, device.Int32), s.floats(op, "Table", p.Table, p.Vocab*p.Width),
		s.optional(op, "Positions", p.Positions, p.Context*p.Width), s.mayBlame(op + ": tokens"), int64(p.N), int64(p.T), int64(p.Width), int64(p.Vocab),
	})
}

// EmbeddingBackward implements device.Ops.
func (s *stream) EmbeddingBackward(p device.EmbeddingBackward) {
	const op = "gradient of embedding"
	if !s.sized(op, p.N, p.T, p.Width, p.Vocab) || !s.contextual(op, p.DPositions, p.T, p.Context) {
		return
	}
	n := p.N * p.T
	o := s.outputs(op, p.DY)
	dy := o.at("DY", p.DY, n*p.Width)
	tokens := s.want(op, "Tokens", p.Tokens, n, device.Int32)
	s.rowsBackwardBy(o.kernel("rows_backward"), rowsBackwardArgs{s.floats(op, "DTable", p.DTable, p.Vocab*p.Width), tokens, dy, int64(n), 1, int64(p.Width), int64(p.Vocab), int64(p.Width), 0})
	if !p.DPositions.IsNone() {
		launch(s, o.kernel("positions_backward"), each(p.Context*p.Width), blockThreads, struct {
			out, dy              pointer
			n, t, width, context int64
		}{s.floats(op, "DPositions", p.DPositions, p.Context*p.Width), dy, int64(p.N), int64(p.T), int64(p.Width), int64(p.Context)})
	}
}

type sparseArgs struct {
	out, starts, columns, values, w, bias pointer
	at                                    fault
	rows, cols, entries, outs, act        int64
}

func (s *stream) sparse(op string, g device.Sparse, outs int) (a sparseArgs) {
	if !s.sized(op, g.Rows, g.Cols, outs) {
		return a
	}
	if g.Entries < 0 {
		s.fail(fmt.Errorf("%s: %d entries", op, g.Entries))
		return a
	}
	a.starts = s.want(op, "Starts", g.Starts, g.Rows+1, device.Int32)
	if g.Entries > 0 { // else the two may be none
		a.columns, a.values = s.want(op, "Columns", g.Columns, g.Entries, device.Int32), s.floats(op, "Values", g.Values, g.Entries)
	}
	a.at = s.mayBlame(op + ": starts and columns of rows")
	a.rows, a.cols, a.entries, a.outs = int64(g.Rows), int64(g.Cols), int64(g.Entries), int64(outs)
	return a
}

// SparseMatMul implements device.Ops.
func (s *stream) SparseMatMul(p device.SparseMatMul) {
	const op = "sparse matrix product"
	a := s.sparse(op, p.X, p.Out)
	if s.err != nil {
		return
	}
	a.out, a.w, a.bias = s.floats(op, "Y", p.Y, p.X.Rows*p.Out), s.floats(op, "W", p.W, p.Out*p.X.Cols), s.optional(op, "Bias", p.Bias, p.Out)
	a.act = int64(p.Act)
	launch(s, "sparse_matmul", each(p.X.Rows*p.Out), blockThreads, a)
}

// SparseMatMulBackwardWeight implements device.Ops.
func (s *stream) SparseMatMulBackwardWeight(p device.SparseMatMulBackwardWeight) {
	const op = "gradient of a sparse matrix product"
	a := s.sparse(op, p.X, p.Out)
	if s.err != nil {
		return
	}
	a.out, a.w = s.floats(op, "DW", p.DW, p.Out*p.X.Cols), s.floats(op, "DY", p.DY, p.X.Rows*p.Out)
	if s.err != nil {
		return
	}
	s.zero(a.out, 4*p.Out*p.X.Cols)
	launch(s, "sparse_matmul_backward_weight", [3]int{p.Out, 1, 1}, blockThreads, a)
}
