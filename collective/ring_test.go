package collective

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterml/muster/internal/flight"
)

var bg = context.Background()

// oracle reduces the slow way.
func oracle[T int32 | float32](inputs [][]T, f func(a, b T) T) []T {
	out := slices.Clone(inputs[0])
	for _, in := range inputs[1:] {
		for i, v := range in {
			out[i] = f(out[i], v)
		}
	}
	return out
}

func randomInts(rng *rand.Rand, world, n int) [][]int32 {
	in := make([][]int32, world)
	for r := range in {
		in[r] = make([]int32, n)
		for i := range in[r] {
			in[r][i] = int32(rng.Uint32())
		}
	}
	return in
}

func cloneAll[T any](in [][]T) [][]T {
	out := make([][]T, len(in))
	for i := range in {
		out[i] = slices.Clone(in[i])
	}
	return out
}

func randomBounds(rng *rand.Rand, world, n int) []int {
	b := make([]int, world+1)
	for i := 1; i < world; i++ {
		b[i] = rng.IntN(n + 1)
	}
	b[world] = n
	slices.Sort(b)
	return b
}

// checkAll runs every operation once on vectors of n elements and compares with the oracle.
func checkAll(t *testing.T, rings []*Ring, n int, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	world := len(rings)
	op := Op{Step: 3, Bucket: uint32(n)}
	must := func(errs []error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatalf("world %d, n %d: %v", world, n, err)
		}
	}
	in := randomInts(rng, world, n)
	for f, want := range map[Reduce][]int32{
		SumInt32: oracle(in, func(a, b int32) int32 { return a + b }),
		MaxInt32: oracle(in, func(a, b int32) int32 { return max(a, b) }),
	} {
		x := cloneAll(in)
		must(onAll(rings, func(i int, r *Ring) error { return r.AllReduce(bg, op, Int32s(x[i]), f) }))
		for i := range x {
			if !slices.Equal(x[i], want) {
				t.Fatalf("%v, world %d, n %d, rank %d: got %v, want %v", f, world, n, i, x[i], want)
			}
		}
		x, bounds := cloneAll(in), randomBounds(rng, world, n)
		must(onAll(rings, func(i int, r *Ring) error { return r.ReduceScatter(bg, op, Int32s(x[i]), bounds, f) }))
		for i := range x {
			if lo, hi := bounds[i], bounds[i+1]; !slices.Equal(x[i][lo:hi], want[lo:hi]) {
				t.Fatalf("ReduceScatter %v, world %d, bounds %v, rank %d: got %v", f, world, bounds, i, x[i][lo:hi])
			}
		}
		must(onAll(rings, func(_ int, r *Ring) error { return r.Barrier(bg, op) }))
		must(onAll(rings, func(i int, r *Ring) error { return r.AllGather(bg, op, Int32s(x[i]), bounds) }))
		for i := range x {
			if !slices.Equal(x[i], want) {
				t.Fatalf("AllGather, world %d, bounds %v, rank %d: got %v", world, bounds, i, x[i])
			}
		}
	}
	x, root := cloneAll(in), n%world
	must(onAll(rings, func(i int, r *Ring) error { return r.Broadcast(bg, op, Int32s(x[i]), root) }))
	for i := range x {
		if !slices.Equal(x[i], in[root]) {
			t.Fatalf("Broadcast from %d of %d, n %d: rank %d differs", root, world, n, i)
		}
	}
	fl := make([][]float32, world)
	for r := range fl {
		fl[r] = make([]float32, n)
		for i := range fl[r] {
			fl[r][i] = rng.Float32()*2 - 1
		}
	}
	want := oracle(fl, func(a, b float32) float32 { return a + b })
	apart, scattered, bounds := cloneAll(fl), cloneAll(fl), randomBounds(rng, world, n)
	for i := range fl { // what is there is of no account
		slices.Reverse(apart[i])
		clear(scattered[i])
	}
	must(onAll(rings, func(i int, r *Ring) error {
		from := slices.Clone(fl[i])
		err := errors.Join(r.AllReduce(bg, op, Float32s(apart[i]).From(from), SumFloat32),
			r.ReduceScatter(bg, op, Float32s(scattered[i]).From(from), bounds, SumFloat32))
		if !slices.Equal(from, fl[i]) {
			err = errors.Join(err, errors.New("the input has been written to"))
		}
		return err
	}))
	must(onAll(rings, func(i int, r *Ring) error { return r.AllReduce(bg, op, Float32s(fl[i]), SumFloat32) }))
	for i := range fl {
		if !slices.Equal(fl[i], fl[0]) {
			t.Fatalf("SumFloat32, world %d, n %d: rank %d differs from rank 0", world, n, i)
		}
		if !slices.Equal(fl[i], apart[i]) {
			t.Fatalf("SumFloat32, world %d, n %d: rank %d has another sum in place than apart", world, n, i)
		}
		for k := bounds[i]; k < bounds[i+1]; k++ {
			if d := math.Abs(float64(scattered[i][k] - want[k])); d > 1e-6*float64(world) {
				t.Fatalf("ReduceScatter apart, world %d: element %d off by %g", world, k, d)
			}
		}
		for k := range want {
			if d := math.Abs(float64(fl[i][k] - want[k])); d > 1e-6*float64(world) {
				t.Fatalf("SumFloat32, world %d: element %d off by %g", world, k, d)
			}
		}
	}
}

// Every world from 1 to 8, lengths around every border, chunks of one element and more, dealt out over the ways.
func TestOperationsMatchOracle(t *testing.T) {
	turn := 0
	everyWay(t, func(t *testing.T, w way) {
		for world := 1; world <= 8; world++ {
			if w.kind == striped && world > 3 {
				continue
			}
			chunk := []int{4, 12, 64}[(world+turn)%3]
			t.Run(fmt.Sprintf("world=%d/chunk=%d", world, chunk), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					net := newMemNet(100).by(w) // less than two frames: everything has to wait for everything
					rings := joinAll(t, world, func(rank int) Config {
						cfg := net.config(rank, world)
						cfg.ChunkBytes = chunk
						return cfg
					})
					defer closeAll(rings)
					for _, n := range []int{0, 1, 2, 3, world - 1, world, world + 1, 31, 16 * world, 16*world + 5, 500} {
						checkAll(t, rings, n, uint64(chunk))
					}
				})
			})
		}
		turn++
	})
}

func TestWorldOf64(t *testing.T) {
	for _, c := range []struct {
		w way
		n int
	}{{way{false, asked}, 1000}, {way{false, lanes}, 63}, {way{true, waited}, 1000}, {way{true, asked}, 63}} {
		synctest.Test(t, func(t *testing.T) {
			net := newMemNet(4096).by(c.w)
			rings := joinAll(t, 64, func(rank int) Config { return net.config(rank, 64) })
			defer closeAll(rings)
			checkAll(t, rings, c.n, 64)
		})
	}
}

func TestTCP(t *testing.T) {
	for _, world := range []int{2, 3, 5} {
		t.Run(fmt.Sprintf("world=%d", world), func(t *testing.T) {
			rings := joinAll(t, world, tcpConfigs(t, world))
			defer closeAll(rings)
			for _, n := range []int{0, 1, 1000, world<<17 + 1} { // at last a chunk and a small rest for each
				checkAll(t, rings, n, 1)
			}
		})
	}
}

// A small rest of a segment goes with what came before it: neither a round nor a frame of its own.
func TestSmallRests(t *testing.T) {
	tt := timetable{rank: 0, world: 2, elems: 2 * 1030, chunk: 1000, end: 2}
	if lo, hi := tt.part(0, 1); tt.rounds() != 1 || lo != 1030 || hi != 2060 {
		t.Errorf("%d rounds, the first takes elements %d to %d", tt.rounds(), lo, hi)
	}
	for left, want := range map[int]int{640: 640, 650: 650, 651: 640, 1280: 640} {
		if got := cut(left, 640); got != want {
			t.Errorf("%d of %d elements go next, want %d", got, left, want)
		}
	}
}

// What a rank sends is what theory says: 2(n-1)/n of the vector.
func TestSentBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet(4096)
		rings := joinAll(t, 4, func(rank int) Config { return net.config(rank, 4) })
		defer closeAll(rings)
		errs := onAll(rings, func(_ int, r *Ring) error {
			return r.AllReduce(bg, Op{}, Int32s(make([]int32, 400)), SumInt32)
		})
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		for i, r := range rings {
			if r.Sent() != 2*3*400 {
				t.Errorf("rank %d sent %d bytes, want %d", i, r.Sent(), 2*3*400)
			}
		}
	})
}

// A rank that computes for a minute is waited for, and Waiting names it.
func TestSlowRankIsWaitedFor(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		synctest.Test(t, func(t *testing.T) {
			const world = 5
			net := newMemNet(100).by(w)
			rings := joinAll(t, world, func(rank int) Config { return net.config(rank, world) })
			defer closeAll(rings)
			began := time.Now()
			slow := make(chan struct{})
			results := make(chan error, world)
			for i, r := range rings {
				go func() {
					if i == 3 {
						<-slow
					}
					results <- r.AllReduce(bg, Op{Step: 9, Bucket: 2}, Int32s(make([]int32, 1000)), SumInt32)
				}()
			}
			<-time.After(time.Minute)
			synctest.Wait()
			// From any rank, following the names leads to the one that is late.
			for i := range rings {
				at := i
				for range world {
					what, peer, since, ok := rings[at].Waiting()
					if !ok {
						break
					}
					if !strings.Contains(what, "step 9 bucket 2") || since.Before(began) || time.Since(since) < 50*time.Second {
						t.Fatalf("rank %d waits: %q since %v", at, what, since)
					}
					for k := range world {
						if nodeName(k) == peer {
							at = k
						}
					}
				}
				if at != 3 {
					t.Errorf("from rank %d the chain leads to rank %d, not 3", i, at)
				}
			}
			close(slow)
			for range world {
				if err := <-results; err != nil {
					t.Error(err)
				}
			}
			if _, _, _, ok := rings[0].Waiting(); ok {
				t.Error("waits for something after the operation")
			}
		})
	})
}

func TestMismatch(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		calls := map[string]func(r *Ring) error{
			"length": func(r *Ring) error { return r.AllReduce(bg, Op{Step: 1}, Int32s(make([]int32, 11)), SumInt32) },
			"reduce": func(r *Ring) error { return r.AllReduce(bg, Op{Step: 1}, Int32s(make([]int32, 10)), MaxInt32) },
			"bucket": func(r *Ring) error { return r.AllReduce(bg, Op{1, 1}, Int32s(make([]int32, 10)), SumInt32) },
			"verb":   func(r *Ring) error { return r.Barrier(bg, Op{Step: 1}) },
			"empty":  func(r *Ring) error { return r.AllReduce(bg, Op{Step: 1}, Int32s(nil), SumInt32) },
		}
		for name, odd := range calls {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					net := newMemNet(4096).by(w)
					rings := joinAll(t, 3, func(rank int) Config { return net.config(rank, 3) })
					defer closeAll(rings)
					errs := onAll(rings, func(i int, r *Ring) error {
						if i == 1 {
							if err := odd(r); err != nil || name != "empty" {
								return err
							}
							return r.Barrier(bg, Op{Step: 2}) // an empty call has nothing to wait for
						}
						return r.AllReduce(bg, Op{Step: 1}, Int32s(make([]int32, 10)), SumInt32)
					})
					seen := false
					for i, err := range errs {
						if err == nil {
							t.Errorf("rank %d: no error", i)
						}
						seen = seen || errors.Is(err, ErrMismatch)
					}
					if !seen {
						t.Errorf("nobody saw the mismatch: %v", errs)
					}
				})
			})
		}
	})
}

func TestArguments(t *testing.T) {
	net := newMemNet(4096)
	rings := joinAll(t, 2, func(rank int) Config { return net.config(rank, 2) })
	defer closeAll(rings)
	r := rings[0]
	x, y, both := Int32s(make([]int32, 4)), Float32s(make([]float32, 4)), make([]float32, 5)
	for i, err := range []error{
		r.AllReduce(bg, Op{}, x, SumFloat32),
		r.AllReduce(bg, Op{}, y, MaxInt32),
		r.AllReduce(bg, Op{}, y, 0),
		r.AllReduce(bg, Op{}, y.From(make([]float32, 3)), SumFloat32),
		r.AllReduce(bg, Op{}, y.From(nil), SumFloat32),
		r.AllReduce(bg, Op{}, Float32s(both[1:]).From(both[:4]), SumFloat32),
		r.AllReduce(bg, Op{}, x.From(make([]float32, 4)), SumInt32),
		r.AllGather(bg, Op{}, y.From(make([]float32, 4)), []int{0, 2, 4}),
		r.Sum(bg, Op{}, x, BF16{}),
		r.ReduceScatter(bg, Op{}, x, []int{0, 4}, SumInt32),
		r.AllGather(bg, Op{}, x, []int{0, 2, 5}),
		r.AllGather(bg, Op{}, x, []int{1, 2, 4}),
		r.AllGather(bg, Op{}, x, []int{0, 5, 4}),
	} {
		if !errors.Is(err, ErrArgument) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if err := errors.Join(onAll(rings, func(_ int, r *Ring) error { return r.Barrier(bg, Op{}) })...); err != nil {
		t.Errorf("the ring did not survive bad arguments: %v", err)
	}
	_, err := Join(bg, Config{Rank: 2, Peers: []Peer{{Node: "a"}, {Node: "a"}}, ChunkBytes: 3, Heartbeat: time.Second, DeadAfter: time.Second})
	for _, field := range []string{"Rank", "Peers[1].Node", "Dial", "DeadAfter", "ChunkBytes"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not in: %v", field, err)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	configs := tcpConfigs(t, 2)
	rings := joinAll(t, 2, func(rank int) Config {
		c := configs(rank)
		c.Flight = flight.New(16)
		return c
	})
	defer closeAll(rings)
	const n = 300_000
	x := [][]int32{make([]int32, n), make([]int32, n)}
	bounds := []int{0, 100, n}
	ctx, cancel := context.WithCancel(bg)
	defer cancel()
	e := Exact{BlockSize: 4096, Shards: 2}
	var grads [2][]float32
	var exact [2]ExactSum
	var int8s [2]*Int8
	for i := range grads {
		grads[i], int8s[i] = make([]float32, n), NewInt8(n)
		exact[i] = ExactSum{Exact: e, Exps: newExps(e.Blocks(n)), Parts: [][]float32{grads[i]}}
	}
	forms := func(i int, short []float32) error {
		exact[i].Exponents(exact[i].Exps, grads[i])
		return errors.Join(
			rings[i].Sum(ctx, Op{}, Float32s(grads[i]), BF16{}), rings[i].Sum(ctx, Op{}, Float32s(grads[i]), int8s[i]), rings[i].Sum(ctx, Op{}, Float32s(short), BF16{}),
			rings[i].Sum(ctx, Op{}, Float32s(grads[i]), &exact[i]), rings[i].SumScatter(ctx, Op{}, Float32s(grads[i]), bounds, &exact[i]))
	}
	step := func(i int) error {
		v := Int32s(x[i])
		return errors.Join(
			forms(i, grads[i][:1000]),
			rings[i].AllReduce(ctx, Op{}, v, SumInt32), rings[i].ReduceScatter(ctx, Op{}, v, bounds, SumInt32),
			rings[i].AllGather(ctx, Op{}, v, bounds), rings[i].Barrier(ctx, Op{}),
			rings[i].AllReduce(ctx, Op{}, Int32s(x[i][:1000]), SumInt32)) // the short way, as the barrier
	}
	const rounds = 50
	other := make(chan error)
	go func() {
		var err error
		for range rounds + 1 { // AllocsPerRun runs once more, to warm up
			err = errors.Join(err, step(1))
		}
		other <- err
	}()
	var err error
	allocs := testing.AllocsPerRun(rounds, func() { err = errors.Join(err, step(0)) })
	if err := errors.Join(err, <-other); err != nil {
		t.Fatal(err)
	}
	if allocs >= 1 {
		t.Errorf("%v allocations per round on both ranks together", allocs)
	}
}
