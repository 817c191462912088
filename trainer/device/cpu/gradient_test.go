package cpu

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/musterml/muster/trainer/device"
)

// The operations of this file have a naive forward pass in float64 for an oracle, and as oracle of the
// backward pass its finite differences.

func wide(x []float32) []float64 {
	w := make([]float64, len(x))
	for i, v := range x {
		w[i] = float64(v)
	}
	return w
}

// gradientOf is d(sum of dy*f(x))/dx[i] for about probes of the i, others NaN.
func gradientOf(f func(x []float64) []float64, x, dy []float64, probes int) []float64 {
	const h = 1e-5
	at := func(i int, v float64) (sum float64) {
		old := x[i]
		x[i] = v
		for j, y := range f(x) {
			sum += dy[j] * y
		}
		x[i] = old
		return sum
	}
	g := slices.Repeat([]float64{math.NaN()}, len(x))
	for i := 0; i < len(x); i += 1 + len(x)/probes {
		g[i] = (at(i, x[i]+h) - at(i, x[i]-h)) / (2 * h)
	}
	return g
}

// close compares what is not NaN in want.
func (b *bench) close(what string, got []float32, want []float64, tol float64) {
	b.Helper()
	size := 0.0
	for _, v := range want {
		if v == v {
			size = max(size, math.Abs(v))
		}
	}
	for i, v := range got {
		if want[i] == want[i] && !(math.Abs(float64(v)-want[i]) <= tol*(size+1)) {
			b.Fatalf("%s: element %d is %v, want %v", what, i, v, want[i])
		}
	}
}

func (b *bench) int32s(v []int32) device.Buffer {
	b.Helper()
	m, err := b.s.Alloc(device.Int32, len(v))
	if err != nil {
		b.Fatal(err)
	}
	copy(m.(*memory).i, v)
	return device.Whole(m)
}

// naiveNorm normalises groups of elements, by row or by column of x (rows, cols).
func naiveNorm(x, gamma, beta []float64, rows, cols int, byRow bool) []float64 {
	y := make([]float64, len(x))
	groups, size := cols, rows
	index := func(g, i int) int { return i*cols + g }
	if byRow {
		groups, size = rows, cols
		index = func(g, i int) int { return g*cols + i }
	}
	for g := range groups {
		mean, variance := 0.0, 0.0
		for i := range size {
			mean += x[index(g, i)] / float64(size)
		}
		for i := range size {
			d := x[index(g, i)] - mean
			variance += d * d / float64(size)
		}
		for i := range size {
			k := index(g, i)
			y[k] = (x[k]-mean)/math.Sqrt(variance+1e-5)*gamma[k%cols] + beta[k%cols]
		}
	}
	return y
}

func TestNorms(t *testing.T) {
	for _, byRow := range []bool{true, false} {
		t.Run(map[bool]string{true: "layer", false: "batch"}[byRow], func(t *testing.T) {
			eachSet(t, func(b *bench) []float32 {
				var all []float32
				for _, g := range [][2]int{{3, 1}, {2, 7}, {5, 16}, {4, 33}, {600, 3}, {7, 127}, {300, 20}, {1000, 1}, {33, 31}, {31, 33}, {3, 1000}, {127, 7}} {
					all = append(all, b.norm(g[0], g[1], byRow)...)
				}
				return all
			})
		})
	}
}

func (b *bench) norm(rows, cols int, byRow bool) []float32 {
	b.Helper()
	stats := cols
	if byRow {
		stats = rows
	}
	xv, _ := b.random(rows * cols)
	for i := range xv {
		xv[i] = xv[i]*2 + float32(i%cols%3) // means that are not zero
	}
	x := b.buffer(xv)
	gv, gamma := b.random(cols)
	bv, beta := b.random(cols)
	dyv, dy := b.random(rows * cols)
	mean, rstd := b.room(stats), b.room(stats)
	y, dx, dgamma, dbeta := b.room(rows*cols), b.room(rows*cols), b.room(cols), b.room(cols)
	if byRow {
		b.s.LayerNorm(device.LayerNorm{Rows: rows, Cols: cols, Y: y, X: x, Gamma: gamma, Beta: beta, Mean: mean, RStd: rstd, Eps: 1e-5})
		b.s.LayerNormBackward(device.LayerNormBackward{Rows: rows, Cols: cols, DX: dx, DY: dy, X: x, Gamma: gamma, DGamma: dgamma, DBeta: dbeta, Mean: mean, RStd: rstd})
	} else {
		b.s.BatchNorm(device.BatchNorm{Rows: rows, Channels: cols, Y: y, X: x, Gamma: gamma, Beta: beta, Mean: mean, RStd: rstd, Eps: 1e-5, Act: device.ReLU})
		b.s.BatchNormBackward(device.BatchNormBackward{Rows: rows, Channels: cols, DX: dx, DY: dy, X: x, Gamma: gamma, DGamma: dgamma, DBeta: dbeta, Mean: mean, RStd: rstd})
	}
	what := fmt.Sprintf("norm of %dx%d, by row %v", rows, cols, byRow)
	want := naiveNorm(wide(xv), wide(gv), wide(bv), rows, cols, byRow)
	if !byRow {
		for i := range want {
			want[i] = max(0, want[i])
		}
	}
	b.close(what, b.result(y), want, 1e-5)
	wx, wg, wb, wdy := wide(xv), wide(gv), wide(bv), wide(dyv)
	b.close(what+", dx", b.result(dx), gradientOf(func(x []float64) []float64 { return naiveNorm(x, wg, wb, rows, cols, byRow) }, wx, wdy, 50), 2e-5)
	b.close(what+", dgamma", b.result(dgamma), gradientOf(func(g []float64) []float64 { return naiveNorm(wx, g, wb, rows, cols, byRow) }, wg, wdy, 50), 2e-5)
	b.close(what+", dbeta", b.result(dbeta), gradientOf(func(v []float64) []float64 { return naiveNorm(wx, wg, v, rows, cols, byRow) }, wb, wdy, 50), 2e-5)
	return slices.Concat(b.result(y), b.result(dx), b.result(dgamma), b.result(dbeta))
}

func naiveAttention(g device.AttentionShape, qkv []float64) []float64 {
	c := g.Heads * g.Width
	y := make([]float64, g.N*g.T*c)
	p := make([]float64, g.T)
	for nh := range g.N * g.Heads {
		n, h := nh/g.Heads, nh%g.Heads
		at := func(part, i, j int) float64 { return qkv[((n*g.T+i)*3+part)*c+h*g.Width+j] }
		for i := range g.T {
			seen, sum := g.T, 0.0
			if g.Causal {
				seen = i + 1
			}
			for j := range seen {
				score := 0.0
				for d := range g.Width {
					score += at(0, i, d) * at(1, j, d)
				}
				p[j] = math.Exp(score / math.Sqrt(float64(g.Width)))
				sum += p[j]
			}
			for d := range g.Width {
				v := 0.0
				for j := range seen {
					v += p[j] / sum * at(2, j, d)
				}
				y[(n*g.T+i)*c+h*g.Width+d] = v
			}
		}
	}
	return y
}

func TestAttention(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		var all []float32
		for _, g := range []device.AttentionShape{
			{N: 1, T: 1, Heads: 1, Width: 1, Causal: true},
			{N: 2, T: 7, Heads: 3, Width: 5, Causal: true},
			{N: 2, T: 31, Heads: 2, Width: 16},
			{N: 1, T: 64, Heads: 1, Width: 33, Causal: true},
			{N: 1, T: 131, Heads: 2, Width: 8, Causal: true},
			{N: 1, T: 80, Heads: 1, Width: 7},
			{N: 1, T: 33, Heads: 7, Width: 1},
			{N: 1, T: 7, Heads: 1, Width: 127, Causal: true},
			{N: 1, T: 31, Heads: 1, Width: 31, Causal: true},
			{N: 1, T: 127, Heads: 1, Width: 33},
			{N: 2, T: 1, Heads: 1, Width: 1000},
		} {
			all = append(all, b.attend(g, 20)...)
		}
		return all
	})
}

// attend checks attention of one geometry, and some elements of its gradient.
func (b *bench) attend(g device.AttentionShape, probes int) []float32 {
	b.Helper()
	c := g.Heads * g.Width
	v, _ := b.random(3 * g.N * g.T * c)
	for i := range v {
		v[i] *= 3
	}
	qkv := b.buffer(v)
	dyv, dy := b.random(g.N * g.T * c)
	y, dqkv, lse := b.room(len(dyv)), b.room(len(v)), b.room(g.N*g.Heads*g.T)
	b.s.Attention(device.Attention{Shape: g, Y: y, QKV: qkv, LSE: lse})
	b.s.AttentionBackward(device.AttentionBackward{Shape: g, DQKV: dqkv, QKV: qkv, DY: dy, LSE: lse})
	b.close(fmt.Sprintf("%+v", g), b.result(y), naiveAttention(g, wide(v)), 2e-6)
	want := gradientOf(func(x []float64) []float64 { return naiveAttention(g, x) }, wide(v), wide(dyv), probes)
	b.close(fmt.Sprintf("%+v backward", g), b.result(dqkv), want, 1e-5)
	return slices.Concat(b.result(y), b.result(dqkv))
}

// naive functions and their slopes.
var naiveFunctions = map[device.Function]func(x float64) (y, slope float64){
	device.GELU: func(x float64) (float64, float64) {
		phi := math.Erfc(-x/math.Sqrt2) / 2
		return x * phi, phi + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
	},
	device.SiLU: func(x float64) (float64, float64) {
		s := 1 / (1 + math.Exp(-x))
		return x * s, s + s*x/(1+math.Exp(x))
	},
	device.Tanh: func(x float64) (float64, float64) {
		return math.Tanh(x), 1 / (math.Cosh(x) * math.Cosh(x))
	},
	device.Sigmoid: func(x float64) (float64, float64) {
		return 1 / (1 + math.Exp(-x)), 1 / (1 + math.Exp(-x)) / (1 + math.Exp(x))
	},
	device.Rectifier: func(x float64) (float64, float64) {
		if x > 0 {
			return x, 1
		}
		return 0, 0
	},
}

func TestFunctions(t *testing.T) {
	var xv []float32
	for x := float32(-20); x < 20; x += 0.00913 {
		xv = append(xv, x)
	}
	xv = append(xv, 0, float32(math.Copysign(0, -1)), 1e-30, -1e-30, 1e-5, -3e-4, 1e15, -1e15, 85, -85, 100, -100)
	eachSet(t, func(b *bench) []float32 {
		var all []float32
		n := len(xv)
		for f := range device.Functions {
			x := b.buffer(xv)
			dyv, dy := b.random(n)
			y, dx := b.room(n), b.room(n)
			b.s.Apply(y, x, n, f)
			b.s.ApplyBackward(dx, dy, x, n, f)
			for i, v := range xv {
				want, slope := naiveFunctions[f](float64(v))
				// What goes to zero as e**-z has an error that grows with z, and is zero at last.
				tol := 5e-7*math.Abs(want)*(1+min(float64(v*v)/2, 100)) + 1e-35
				if got := b.result(y)[i]; !(math.Abs(float64(got)-want) <= tol) {
					b.Fatalf("function %d of %v is %v, want %v", f, v, got, want)
				}
				if got := b.result(dx)[i]; !(math.Abs(float64(got)-slope*float64(dyv[i])) <= 4e-7*(math.Abs(slope)+1+min(math.Abs(float64(v)), 20)/4)) {
					b.Fatalf("slope of function %d at %v is %v, want %v", f, v, got, slope*float64(dyv[i]))
				}
			}
			b.s.ApplyBackward(dy, dy, x, n, f)
			sameBits(t, "in place", b.result(dy), b.result(dx))
			all = slices.Concat(all, b.result(y), b.result(dx))

			nans := b.room(33) // must not be hidden
			b.s.Apply(y, nans, 33, f)
			b.s.ApplyBackward(dx, nans, nans, 33, f)
			for i := range 33 {
				if v, d := b.result(y)[i], b.result(dx)[i]; v == v || d == d {
					b.Fatalf("function %d of NaN is %v, its slope %v", f, v, d)
				}
			}
		}
		b.s.Apply(b.room(1), b.room(1), 1, device.Functions)
		if err := b.s.Sync(); err == nil || err.Error() != "function: there is no function 5" {
			b.Fatalf("error %v", err)
		}
		return all
	})
}

func TestExps(t *testing.T) {
	eachSet(t, func(b *bench) []float32 {
		var xv []float32
		for x := float32(0); x > -100; x -= 0.00713 {
			xv = append(xv, x)
		}
		xv = append(xv, floorNone, -86.999, -87.001, -1e30)
		x, y := b.buffer(xv), b.room(len(xv))
		sum := b.s.k.exps(y.Mem.(*memory).f[guard:], x.Mem.(*memory).f[guard:], 1, 0)
		total := 0.0
		for i, v := range b.result(y) {
			want := math.Exp(float64(xv[i]))
			total += want
			if math.Abs(float64(v)-want) > 2e-7*want && xv[i] > -87 || v > 1.7e-38 && xv[i] < -87 {
				b.Fatalf("exp(%v) is %v, want %v", xv[i], v, want)
			}
		}
		b.near("sum", []float32{sum}, []float64{total}, len(xv))
		return append(b.result(y), sum)
	})
}

func TestEmbedding(t *testing.T) {
	eachSet(t, func(b *bench) (all []float32) {
		for _, width := range allSizes {
			all = append(all, b.embed(3, 5, width, 4, 7)...)
		}
		all = append(all, b.embed(1, 127, 7, 1000, 127)...)
		_, table := b.random(2)
		b.s.Embedding(device.Embedding{N: 3, T: 1, Width: 1, Vocab: 2, Y: b.room(3), Tokens: b.int32s([]int32{0, 1, 2}), Table: table})
		if err := b.s.Sync(); err == nil || err.Error() != "embedding: token 2 at place 2 is not within [0, 2)" {
			b.Fatalf("error %v", err)
		}
		return all
	})
}

// embed checks the two operations of one geometry.
func (b *bench) embed(n, steps, width, vocab, context int) []float32 {
	b.Helper()
	tv, table := b.random(vocab * width)
	pv, positions := b.random(context * width)
	dyv, dy := b.random(n * steps * width)
	ids := make([]int32, n*steps)
	wantY := make([]float64, len(dyv))
	wantT, wantP := make([]float64, len(tv)), make([]float64, len(pv))
	for i := range ids {
		ids[i] = int32(b.r.IntN(vocab))
		for j := range width {
			t, p := int(ids[i])*width+j, i%steps*width+j
			wantY[i*width+j] = float64(tv[t]) + float64(pv[p])
			wantT[t] += float64(dyv[i*width+j])
			wantP[p] += float64(dyv[i*width+j])
		}
	}
	tokens := b.int32s(ids)
	y, dt, dp := b.room(len(dyv)), b.room(len(tv)), b.room(len(pv))
	b.s.Embedding(device.Embedding{N: n, T: steps, Width: width, Vocab: vocab, Context: context, Y: y, Tokens: tokens, Table: table, Positions: positions})
	b.s.EmbeddingBackward(device.EmbeddingBackward{N: n, T: steps, Width: width, Vocab: vocab, Context: context, DY: dy, Tokens: tokens, DTable: dt, DPositions: dp})
	b.near("embedding", b.result(y), wantY, 1)
	b.near("table", b.result(dt), wantT, n*steps)
	b.near("positions", b.result(dp), wantP, n)
	return slices.Concat(b.result(y), b.result(dt), b.result(dp))
}

func TestAddAndAverage(t *testing.T) {
	eachSet(t, func(b *bench) (all []float32) {
		for i, c := range allSizes {
			all = append(all, b.addAndAverage(2, allSizes[len(allSizes)-1-i], c)...)
		}
		return append(all, b.addAndAverage(2, 9, 37)...)
	})
}

func (b *bench) addAndAverage(n, pixels, c int) []float32 {
	b.Helper()
	xv, x := b.random(n * pixels * c)
	av, a := b.random(n * pixels * c)
	dyv, dy := b.random(n * c)
	sum, y, dx := b.room(len(xv)), b.room(n*c), b.room(len(xv))
	b.s.Add(sum, x, a, len(xv), device.ReLU)
	b.s.GlobalAveragePool(y, x, n, pixels, c)
	b.s.GlobalAveragePoolBackward(dx, dy, n, pixels, c)
	wantS, wantY, wantDX := make([]float64, len(xv)), make([]float64, n*c), make([]float64, len(xv))
	for i, v := range xv {
		k := i/(pixels*c)*c + i%c
		wantS[i] = max(0, float64(v)+float64(av[i]))
		wantY[k] += float64(v) / float64(pixels)
		wantDX[i] = float64(dyv[k]) / float64(pixels)
	}
	b.near("sum", b.result(sum), wantS, 1)
	b.near("average", b.result(y), wantY, pixels)
	b.near("average backward", b.result(dx), wantDX, 1)
	return slices.Concat(b.result(sum), b.result(y), b.result(dx))
}
