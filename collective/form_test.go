package collective

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/musterml/muster/internal/id"
)

// formCase is a form under test: what a rank needs, and how far the result of a sum may be from the truth.
type formCase struct {
	name string
	make func(rank int, parts [][]float32) func(r *Ring, x []float32, bounds []int) error
	// bound is for elements of which the magnitudes add up to size, in a vector whose largest partial sum is largest.
	bound func(world int, size, largest float64) float64
}

const formShards = 12

// formCases: a rank's contribution is the sum of its parts; only exact sums are given the parts themselves.
func formCases() []formCase {
	scatter := func(r *Ring, x Vector, bounds []int, f Form) error {
		if bounds != nil {
			return r.SumScatter(bg, Op{}, x, bounds, f)
		}
		return r.Sum(bg, Op{}, x, f)
	}
	sum := func(r *Ring, x []float32, bounds []int, f Form, parts [][]float32) error {
		from := make([]float32, len(x))
		for _, p := range parts {
			kernels.AddFloat32(from, p)
		}
		before, place := slices.Clone(from), slices.Clone(from)
		if err := scatter(r, Float32s(x).From(from), bounds, f); err != nil {
			return err
		}
		if _, remembers := f.(*Int8); !remembers {
			if err := scatter(r, Float32s(place), bounds, f); err != nil {
				return err
			}
			lo, hi := 0, len(x)
			if bounds != nil {
				lo, hi = bounds[r.Rank()], bounds[r.Rank()+1]
			}
			if !sameBits(place[lo:hi], x[lo:hi]) {
				return errors.New("another sum in place")
			}
		}
		if !sameBits(from, before) {
			return errors.New("the input has been written to")
		}
		return nil
	}
	return []formCase{
		{"bf16", func(_ int, parts [][]float32) func(*Ring, []float32, []int) error {
			return func(r *Ring, x []float32, bounds []int) error {
				return sum(r, x, bounds, BF16{}, parts)
			}
		}, func(world int, size, _ float64) float64 {
			n := float64(world)
			return n / 256 * math.Pow(1+1./256, n) * size
		}},
		{"int8", func(_ int, parts [][]float32) func(*Ring, []float32, []int) error {
			return func(r *Ring, x []float32, bounds []int) error {
				return sum(r, x, bounds, NewInt8(len(x)), parts)
			}
		}, func(world int, _, largest float64) float64 { return float64(world) * largest / 253 }},
		{"exact", exactly(scatter, false), func(_ int, _, largest float64) float64 { return formShards * largest / (1 << 26) }},
		{"exact of words", exactly(scatter, true), func(_ int, _, largest float64) float64 { return formShards * largest / (1 << 26) }},
	}
}

// exactly is the sum of parts, or of what they come to as multiples.
func exactly(sum func(r *Ring, x Vector, bounds []int, f Form) error, words bool) func(int, [][]float32) func(*Ring, []float32, []int) error {
	return func(_ int, parts [][]float32) func(*Ring, []float32, []int) error {
		return func(r *Ring, x []float32, bounds []int) error {
			s := &ExactSum{Exact: Exact{BlockSize: 37, Shards: formShards}, Parts: parts}
			s.Exps = newExps(s.Blocks(len(x)))
			for _, p := range parts {
				s.Exponents(s.Exps, p)
			}
			if err := r.AllReduce(bg, Op{}, Int32s(s.Exps), MaxInt32); err != nil {
				return err
			}
			if words {
				made := make([]int32, len(x))
				s.encode(nil, made, nil, 0)
				s.Parts, s.Words = nil, made
			}
			return sum(r, Float32s(x), bounds, s)
		}
	}
}

// formInputs are the contributions of all shards; of a world each rank has some, and where it is larger some have none.
func formInputs(seed uint64, n int) [][]float32 {
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	in := make([][]float32, formShards)
	for s := range in {
		in[s] = make([]float32, n)
		for i := range in[s] {
			in[s][i] = float32(math.Ldexp(rng.NormFloat64(), rng.IntN(6)))
		}
	}
	return in
}

func dealt(in [][]float32, rank, world int) (parts [][]float32) {
	for s := rank; s < len(in); s += world {
		parts = append(parts, in[s])
	}
	return parts
}

// checkForm sums the inputs over the rings and returns the result, which is the same on all ranks and within the bound.
func checkForm(t *testing.T, c formCase, rings []*Ring, in [][]float32) []float32 {
	t.Helper()
	world, n := len(rings), len(in[0])
	x := make([][]float32, world)
	sums := make([]func(*Ring, []float32, []int) error, world)
	for r := range x {
		x[r], sums[r] = make([]float32, n), c.make(r, dealt(in, r, world))
	}
	if err := errors.Join(onAll(rings, func(i int, r *Ring) error { return sums[i](r, x[i], nil) })...); err != nil {
		t.Fatalf("world %d, n %d: %v", world, n, err)
	}
	bounds := randomBounds(rand.New(rand.NewPCG(uint64(world), uint64(n))), world, n)
	part := cloneAll(x)
	if err := errors.Join(onAll(rings, func(i int, r *Ring) error { return sums[i](r, part[i], bounds) })...); err != nil {
		t.Fatalf("world %d, n %d, scattered: %v", world, n, err)
	}
	truth, size := make([]float64, n), make([]float64, n)
	largest := 0.0
	for i := range truth {
		for _, p := range in {
			truth[i] += float64(p[i])
			size[i] += math.Abs(float64(p[i]))
		}
		largest = max(largest, size[i])
	}
	near := func(where string, rank, i int, v float32) {
		t.Helper()
		if d := math.Abs(float64(v) - truth[i]); d > c.bound(world, size[i], largest)+1e-6*size[i] {
			t.Fatalf("world %d, n %d, rank %d%s: element %d is %g, off by %g, bound %g", world, n, rank, where, i, v, d, c.bound(world, size[i], largest))
		}
	}
	for r := range x {
		if !sameBits(x[r], x[0]) {
			t.Fatalf("world %d, n %d: rank %d has other bits", world, n, r)
		}
		for i := bounds[r]; i < bounds[r+1]; i++ {
			near(" scattered", r, i, part[r][i])
		}
	}
	for i := range truth {
		near("", 0, i, x[0][i])
	}
	return x[0]
}

// Every form, any world, both ways, over connections and lanes, with units from one element to many blocks.
func TestForms(t *testing.T) {
	want := map[string][]float32{} // exact sums: the same bits in any world and way
	everyWay(t, func(t *testing.T, w way) {
		for world := 1; world <= 9; world++ {
			if w.kind == striped && world != 3 {
				continue
			}
			chunk := []int{4, 64, 3000, 1 << 20}[world%4]
			synctest.Test(t, func(t *testing.T) {
				net := newMemNet(5000).by(w)
				rings := joinAll(t, world, func(rank int) Config {
					cfg := net.config(rank, world)
					cfg.ChunkBytes = chunk
					return cfg
				})
				defer closeAll(rings)
				for _, n := range []int{0, 1, 2, 7, world + 1, 258, 1031} {
					for _, c := range formCases() {
						got := checkForm(t, c, rings, formInputs(3, n))
						if key := fmt.Sprint(n); strings.HasPrefix(c.name, "exact") {
							if want[key] == nil {
								want[key] = got
							}
							if !sameBits(got, want[key]) {
								t.Fatalf("world %d, n %d: other bits than in another world", world, n)
							}
						}
					}
				}
			})
		}
	})
}

func TestFormsInAWorldOf64(t *testing.T) {
	for _, kind := range []string{asked, lanes} {
		synctest.Test(t, func(t *testing.T) {
			net := newMemNet(4096).by(way{false, kind})
			rings := joinAll(t, 64, func(rank int) Config { return net.config(rank, 64) })
			defer closeAll(rings)
			for _, c := range formCases() {
				checkForm(t, c, rings, formInputs(9, 777))
			}
		})
	}
}

// Many units, over sockets, where frames come in pieces; the last ones are a little longer.
func TestFormsOverTCP(t *testing.T) {
	rings := joinAll(t, 3, func(cfg func(int) Config) func(int) Config {
		return func(rank int) Config {
			c := cfg(rank)
			c.NoLanes, c.SmallBytes, c.ChunkBytes = true, -1, 5120*elemSize
			return c
		}
	}(tcpConfigs(t, 3)))
	defer closeAll(rings)
	for _, c := range formCases() {
		checkForm(t, c, rings, formInputs(4, 3*(6*5120+70)))
	}
}

// What int8 has given in all steps and what it remembers is all that it was given, whatever the gradients were; a step that
// is made again changes nothing.
func TestInt8RemembersWhatItDidNotSend(t *testing.T) {
	for _, world := range []int{1, 2, 5} {
		for _, small := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				net := newMemNet(4096).by(way{small, asked})
				rings := joinAll(t, world, func(rank int) Config { return net.config(rank, world) })
				defer closeAll(rings)
				const n = 300
				rng := rand.New(rand.NewPCG(2, uint64(world)))
				sums, given, gotten := make([]*Int8, world), make([]float64, n), make([]float64, n)
				for i := range sums {
					sums[i] = NewInt8(n)
				}
				for step := range 40 {
					in := make([][]float32, world)
					for r := range in {
						in[r] = make([]float32, n)
						for i := range in[r] {
							in[r][i] = float32(rng.NormFloat64() * math.Pow(10, float64(-i%6)))
							given[i] += float64(in[r][i])
						}
					}
					var first [][]float32
					for range 1 + step%3 { // made again
						x := cloneAll(in)
						if err := errors.Join(onAll(rings, func(i int, r *Ring) error { return r.Sum(bg, Op{}, Float32s(x[i]), sums[i]) })...); err != nil {
							t.Fatal(err)
						}
						if first == nil {
							first = x
						}
						if !sameBits(x[0], first[0]) || !sameBits(x[world-1], first[0]) {
							t.Fatal("other bits")
						}
					}
					for i := range gotten {
						gotten[i] += float64(first[0][i])
					}
					for _, s := range sums {
						s.Commit()
						s.Commit() // once is enough
					}
				}
				for i := range given {
					rest := 0.0
					for _, s := range sums {
						rest += float64(s.rest[i])
					}
					if d := gotten[i] + rest - given[i]; math.Abs(d) > 1e-4 || math.Abs(rest) > float64(world)*20/254 {
						t.Fatalf("world %d: element %d: %g given, %g gotten, %g remembered", world, i, given[i], gotten[i], rest)
					}
				}
			})
		}
	}
}

// What is no number is none on every rank, and spoils no later step.
func TestFormsOfWhatIsNotFinite(t *testing.T) {
	net := newMemNet(4096)
	rings := joinAll(t, 3, func(rank int) Config { return net.config(rank, 3) })
	defer closeAll(rings)
	for _, bad := range []float64{math.NaN(), math.Inf(1)} {
		sums := []*Int8{NewInt8(600), NewInt8(600), NewInt8(600)}
		for step := range 2 {
			x := make([][]float32, 3)
			for r := range x {
				x[r] = make([]float32, 600)
			}
			if step == 0 {
				x[1][300] = float32(bad)
			}
			if err := errors.Join(onAll(rings, func(i int, r *Ring) error { return r.Sum(bg, Op{}, Float32s(x[i]), sums[i]) })...); err != nil {
				t.Fatal(err)
			}
			for r := range x {
				sums[r].Commit()
				if isNaN := x[r][300] != x[r][300]; isNaN != (step == 0) || x[r][0] != 0 {
					t.Errorf("step %d, rank %d: %v, %v", step, r, x[r][300], x[r][0])
				}
			}
		}
		x := [3][]float32{{1}, {float32(bad)}, {1}}
		if err := errors.Join(onAll(rings, func(i int, r *Ring) error { return r.Sum(bg, Op{}, Float32s(x[i]), BF16{}) })...); err != nil {
			t.Fatal(err)
		}
		if got := x[0][0]; fmt.Sprint(got) != fmt.Sprint(bad) {
			t.Errorf("bf16: %v, want %v", got, bad)
		}
	}
}

// Ranks that mean different sums find out, whichever way they go.
func TestFormsThatDiffer(t *testing.T) {
	exact := func(shards int) Form { return &ExactSum{Exact: Exact{BlockSize: 8, Shards: shards}, Exps: newExps(5)} }
	for _, forms := range [][2]Form{{BF16{}, NewInt8(40)}, {exact(2), exact(3)}, {exact(2), BF16{}}} {
		for _, small := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				net := newMemNet(4096).by(way{small, asked})
				rings := joinAll(t, 2, func(rank int) Config { return net.config(rank, 2) })
				defer closeAll(rings)
				for _, err := range onAll(rings, func(i int, r *Ring) error { return r.Sum(bg, Op{}, Float32s(make([]float32, 40)), forms[i]) }) {
					if !errors.Is(err, ErrMismatch) && !errors.Is(err, ErrAborted) {
						t.Errorf("%T, %T: %v", forms[0], forms[1], err)
					}
				}
			})
		}
	}
}

func TestFormsRefuse(t *testing.T) {
	r, err := Join(bg, Config{Peers: []Peer{{Node: "alone"}}})
	if err != nil {
		t.Fatal(err)
	}
	e := Exact{BlockSize: 4, Shards: 1}
	one := make([]float32, 5)
	for _, f := range []Form{
		NewInt8(4), &ExactSum{}, &ExactSum{Exact: e, Exps: newExps(1)}, &ExactSum{Exact: e, Exps: newExps(2), Parts: [][]float32{one, one}},
		&ExactSum{Exact: e, Exps: newExps(2), Parts: [][]float32{one[1:]}},
	} {
		if err := errors.Join(r.Sum(bg, Op{}, Float32s(one), f)); !errors.Is(err, ErrArgument) {
			t.Errorf("%#v: %v", f, err)
		}
		if err := r.SumScatter(bg, Op{}, Float32s(one), []int{0, 5}, f); !errors.Is(err, ErrArgument) {
			t.Errorf("%#v: %v", f, err)
		}
	}
	if err := r.AllReduce(bg, Op{}, Float32s(one), sumBF16); !errors.Is(err, ErrArgument) || !strings.Contains(err.Error(), "SumBF16") {
		t.Error(err)
	}
}

// A peer that is gone or frozen in the middle of a sum is named, and what int8 remembers is what it was.
func TestFormsWhenAPeerIsGone(t *testing.T) {
	for _, frozen := range []bool{false, true} {
		for _, kind := range []string{waited, asked, lanes, striped} {
			synctest.Test(t, func(t *testing.T) {
				net := newMemNet(200).by(way{false, kind})
				rings := joinAll(t, 3, func(rank int) Config { return net.config(rank, 3) })
				defer closeAll(rings)
				sums := []*Int8{NewInt8(9000), NewInt8(9000), NewInt8(9000)}
				ctx, cancel := context.WithCancel(bg)
				defer cancel()
				var writes atomic.Int64
				net.hook(func(_ id.Node, b []byte) []byte {
					if writes.Add(1) == 40 {
						go func() {
							if frozen {
								net.freeze("n2")
							} else {
								net.kill("n2")
							}
						}()
					}
					return b
				})
				errs := onAll(rings, func(i int, r *Ring) error {
					sums[i].rest[0] = 1
					return r.Sum(ctx, Op{Step: 4, Bucket: 2}, Float32s(make([]float32, 9000)), sums[i])
				})
				for i, err := range errs[:2] {
					var peer *PeerError
					var abort *AbortError
					switch {
					case errors.As(err, &peer) && peer.Peer == "n2" && peer.Op == Op{4, 2}:
					case errors.As(err, &abort) && abort.Suspect == "n2":
					default:
						t.Errorf("frozen %t, %s, rank %d: %v", frozen, kind, i, err)
					}
					if sums[i].rest[0] != 1 || slices.Max(sums[i].rest[1:]) != 0 {
						t.Error("what was remembered has changed")
					}
				}
			})
		}
	}
}

// A unit's frame fills the segments that TCP cuts on loopback, within one block: a rest costs as much as a full one.
func TestUnitsFillSegments(t *testing.T) {
	for name, f := range map[string]Form{"bf16": BF16{}, "int8": &Int8{}, "exact": &ExactSum{}} {
		n := unitOf(f, FarChunkBytes/elemSize)
		segments := float64(headerSize+f.words(n)*elemSize) / loopbackSegment
		if rest := math.Ceil(segments) - segments; rest > 0.01*segments || segments > 4 {
			t.Errorf("%s: a unit of %d elements takes %.3f segments", name, n, segments)
		}
		if got := unitOf(f, 5); got != 5 {
			t.Errorf("%s: a unit of %d elements where a round takes 5", name, got)
		}
	}
}
