package cuda

import (
	"fmt"
	"strings"

	"github.com/musterml/muster/trainer/device"
)

// product is a tiled product: M x N sums of K products each.
type product struct {
	kernel  string // the base of its name
	m, n, k int
	padded  int  // columns that tiles cover, where those are more than n
	split   bool // may be cut along K
	bias    pointer
	act     device.Activation
	out     device.Kind
}

const (
	sliceK    = 64   // parts are whole slices
	minPart   = 1024 // of a K that is cut
	wantTiles = 512  // of 128 x 128, parts of K counted: enough for the largest cards, and few enough that adding parts up costs little
)

// parts is in how many parts K is cut, and how long they are: a function of the product's shape alone.
func (p *product) parts() (n, length int) {
	n = min(ceil(wantTiles, ceil(p.m, 128)*ceil(p.n, 128)), p.k/minPart)
	if !p.split || n < 2 {
		return 1, p.k
	}
	length = ceil(ceil(p.k, n), sliceK) * sliceK
	return ceil(p.k, length), length
}

// tile is a kernel's share of a product for a block, and the shared memory that it is launched with.
type tile struct {
	suffix string
	m, n   int
	shared int // bytes
}

// tilesOf is those that there are of a precision, the largest first: on the ordinary cores (kernels/gemm.cuh), or on tensor cores
// (kernels/tensor.cuh), with so many stages of 32 words by the height and the width in shared memory.
func tilesOf(p device.Precision) []tile {
	const stage = 4 * 32
	switch p {
	case device.TF32:
		return []tile{{"_tf32_medium", 128, 128, 3 * stage * (128 + 128)}, {"_tf32_small", 64, 64, 3 * stage * (64 + 64)}}
	case device.BF16:
		return []tile{{"_bf16_large", 128, 256, 2 * stage * (128 + 256)}, {"_bf16_medium", 128, 128, 3 * stage * (128 + 128)}, {"_bf16_small", 64, 64, 3 * stage * (64 + 64)}}
	}
	return []tile{{"_large", 128, 128, 0}, {"_small", 32, 32, 0}}
}

// tile is the largest of which there are enough for all processors, and which is not mostly beyond the edge. The results do not hang on it.
func (s *stream) tile(p *product, parts int) (t tile) {
	for _, t = range s.tiles {
		if p.m > t.m/2 && p.n > t.n/2 && parts*ceil(p.m, t.m)*ceil(p.n, t.n) >= s.d.gpu.processors() {
			break
		}
	}
	return t
}

// multiply launches p into out; args makes the kernel's arguments from where the parts go and how long they are.
func multiply[A any](s *stream, p product, out pointer, args func(partial pointer, partK int64) A) {
	parts, length := p.parts()
	t := s.tile(&p, parts)
	if wide := ceil(max(p.n, p.padded), t.n); wide > mostGridY {
		s.fail(fmt.Errorf("%s: %d columns are too many for a GPU: at most %d", p.kernel, p.n, mostGridY*t.n))
		return
	}
	var partial pointer
	if parts > 1 {
		partial = s.room(roomOfParts, 4*parts*p.m*p.n)
	}
	launchShared(s, s.name(p.kernel, t.suffix, ""), [3]int{ceil(p.m, t.m), ceil(max(p.n, p.padded), t.n), parts}, blockThreads, t.shared, args(partial, int64(length)))
	if parts > 1 {
		s.end(out, partial, p.bias, p.m, p.n, parts, p.act, 0)
	}
	s.factors.wrote(out, sizeOf(p.out)*p.m*p.n, len(s.calls))
}

// name joins the parts of a kernel's name, once for each.
func (s *stream) name(parts ...string) string {
	key := [3]string(parts)
	name, ok := s.names[key]
	if !ok {
		name = strings.Join(parts, "")
		s.names[key] = name
	}
	return name
}

type partsArgs struct {
	c, partial, bias       pointer
	m, n, parts, act, half int64
	second
}

// end adds the parts of a product, its bias, and applies its activation. What is kept in bf16 has one part, which is out itself.
func (s *stream) end(out, partial, bias pointer, m, n, parts int, act device.Activation, half int64) {
	launch(s, "gemm_parts", each(m*n), blockThreads, partsArgs{c: out, partial: partial, bias: bias, m: int64(m), n: int64(n), parts: int64(parts), act: int64(act), half: half})
}

type matmulArgs struct {
	a, b, c, bias, partial pointer
	m, n, k, act, partK    int64
}

// tensorArgs are the same for tensor cores.
type tensorArgs struct {
	a, b, c, bias, partial    pointer
	m, n, k, act, half, partK int64
	second
}

var matmuls = [...]string{device.NN: "matmul_nn", device.NT: "matmul_nt", device.TN: "matmul_tn"}

// MatMul implements device.Ops.
func (s *stream) MatMul(p device.MatMul) {
	const op = "matrix product"
	if !s.sized(op, p.M, p.N, p.K) {
		return
	}
	left, right, out := s.outputs(op, p.A), s.outputs(op, p.B), s.outputs(op, p.C)
	args := matmulArgs{
		left.factor("A", p.A, p.M*p.K), right.factor("B", p.B, p.K*p.N), out.result("C", p.C, p.M*p.N), s.optional(op, "Bias", p.Bias, p.N), 0,
		int64(p.M), int64(p.N), int64(p.K), int64(p.Act), 0,
	}
	s.roundFactors(&p, &args, left.kind, right.kind)
	if s.err != nil {
		return
	}
	if s.d.library {
		s.multiplyByLibrary(p, args, out)
		return
	}
	// Rows of NN and NT are samples: their sums must not depend on how many there are.
	g := product{kernel: matmuls[p.Trans%3], m: p.M, n: p.N, k: p.K, split: p.Trans == device.TN, bias: args.bias, act: p.Act, out: out.kind}
	if chunk(s.d.precision) == 0 {
		multiply(s, g, args.c, func(partial pointer, partK int64) matmulArgs {
			args.partial, args.partK = partial, partK
			return args
		})
		return
	}
	multiply(s, g, args.c, func(partial pointer, partK int64) tensorArgs {
		return tensorArgs{a: args.a, b: args.b, c: args.c, bias: args.bias, partial: partial, m: args.m, n: args.n, k: args.k, act: args.act, half: out.half(), partK: partK}
	})
}

// roundFactors puts rounded ones in the place of a and b, where the product needs them.
func (s *stream) roundFactors(p *device.MatMul, args *matmulArgs, left, right device.Kind) {
	if chunk(s.d.precision) == 0 || s.d.library && s.d.precision != device.BF16 || s.err != nil {
		return // the library rounds to tf32 itself
	}
	args.a = s.rounded(roomOfLeft, factor{args.a, left, leftRows(p), p.M * p.K / leftRows(p), 1})
	args.b = s.rounded(roomOfRight, factor{args.b, right, rightRows(p), p.K * p.N / rightRows(p), 1})
}

// leftRows and rightRows are how many lines the factors have in memory.
func leftRows(p *device.MatMul) int {
	if p.Trans == device.TN {
		return p.K
	}
	return p.M
}

func rightRows(p *device.MatMul) int {
	if p.Trans == device.NT {
		return p.N
	}
	return p.K
}
