package collective

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterml/muster/internal/id"
)

var errBoom = errors.New("boom")

// mixed makes one round of every operation.
func mixed(r *Ring, step id.Step, x []int32) error {
	bounds := make([]int, r.World()+1)
	for i := range r.World() {
		bounds[i+1] = len(x) * (i + 1) / r.World()
	}
	v, op := Int32s(x), Op{Step: step}
	from, sum := make([]float32, len(x)), make([]float32, len(x))
	for i := range from {
		from[i] = float32(i)
	}
	before := slices.Clone(from)
	for _, add := range []func(x Vector) error{
		func(x Vector) error { return r.AllReduce(bg, op, x, SumFloat32) },
		func(x Vector) error { return r.Sum(bg, op, x, BF16{}) },
		func(x Vector) error { return r.Sum(bg, op, x, NewInt8(len(sum))) },
	}[step%3:] {
		err := add(Float32s(sum).From(from))
		if !slices.Equal(from, before) {
			return fmt.Errorf("the input has been written to, and: %v", err)
		}
		if err != nil {
			return err
		}
	}
	if err := r.ReduceScatter(bg, op, v, bounds, MaxInt32); err != nil {
		return err
	}
	if err := r.AllGather(bg, op, v, bounds); err != nil {
		return err
	}
	return r.Barrier(bg, op)
}

// fault happens at one write of the victim. It may give other bytes to be written instead.
type fault func(m *memNet, victim *Ring, name id.Node, b []byte) []byte

// headerIn is the header that is written, alone or in a stripe's chunk; nil: none is.
func headerIn(b []byte) []byte {
	for _, at := range []int{0, chunkHeader} {
		if len(b) >= at+headerSize && binary.LittleEndian.Uint32(b[at:]) == wireMagic {
			return b[at:]
		}
	}
	return nil
}

// faults: sudden ones are noticed in no time, blamed ones name the victim.
var faults = map[string]struct {
	do             fault
	sudden, blamed bool
	frames         bool // changes a header; else it happens at any write, also in the middle of a frame
}{
	"dies": {func(m *memNet, _ *Ring, name id.Node, b []byte) []byte {
		m.kill(name)
		return b
	}, true, true, false},
	"freezes": {func(m *memNet, _ *Ring, name id.Node, b []byte) []byte {
		m.freeze(name)
		return b
	}, false, true, false},
	"aborts": {func(_ *memNet, victim *Ring, _ id.Node, b []byte) []byte {
		go victim.Abort(errBoom)
		return b
	}, true, false, false},
	"garbage": {func(_ *memNet, _ *Ring, _ id.Node, b []byte) []byte {
		rng := rand.New(rand.NewPCG(uint64(len(b)), 3))
		b = make([]byte, 2*headerSize)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}, true, true, true},
	"stale view": {func(_ *memNet, _ *Ring, _ id.Node, b []byte) []byte {
		binary.LittleEndian.PutUint64(headerIn(b)[16:], 6)
		return b
	}, true, true, true},
	"other run": {func(_ *memNet, _ *Ring, _ id.Node, b []byte) []byte {
		headerIn(b)[8]++
		return b
	}, true, true, true},
	"absurd length": {func(_ *memNet, _ *Ring, _ id.Node, b []byte) []byte {
		binary.LittleEndian.PutUint32(headerIn(b)[36:], 1<<31)
		return b
	}, true, true, true},
	"wrong place": {func(_ *memNet, _ *Ring, _ id.Node, b []byte) []byte {
		h := headerIn(b)
		binary.LittleEndian.PutUint64(h[40:], 1<<62)
		binary.LittleEndian.PutUint64(h[48:], 1<<63)
		h[4] = byte(kindData)
		return b
	}, true, true, true},
}

// TestEveryFaultAtEveryWrite lets rank 1 fail at each of its writes in turn, in the middle of every phase of every
// operation, and demands of the survivors an error, in time, that names the victim. Larger worlds, which have most
// writes, deal them out over ways and faults.
func TestEveryFaultAtEveryWrite(t *testing.T) {
	turn := 0
	everyWay(t, func(t *testing.T, w way) {
		for _, name := range slices.Sorted(maps.Keys(faults)) {
			f := faults[name]
			turn++
			for world, stride := range map[int]int{2: 1, 3: 1, 6: 4} {
				t.Run(fmt.Sprintf("%s/world=%d", name, world), func(t *testing.T) {
					if testing.Short() {
						stride *= 7
					}
					if w.kind == striped { // above the stripes it is as waited
						stride *= 3
					}
					fired := true
					for at := turn % stride; fired; at += stride {
						synctest.Test(t, func(t *testing.T) { fired = failAt(t, f.do, f.sudden, f.blamed, f.frames, w, world, at) })
						if t.Failed() {
							t.Fatalf("at write %d", at)
						}
					}
				})
			}
		}
		turn++
	})
}

// failAt returns false when the victim made fewer writes than that.
func failAt(t *testing.T, do fault, sudden, blamed, framesOnly bool, w way, world, at int) (fired bool) {
	const n, rounds = 50, 2
	m := newMemNet(150).by(w)
	rings := joinAll(t, world, func(rank int) Config { return m.config(rank, world) })
	defer closeAll(rings)
	victim := nodeName(1)
	var mu sync.Mutex
	writes, armed := 0, true
	var when time.Time
	m.hook(func(owner id.Node, b []byte) []byte {
		if owner != victim || framesOnly && headerIn(b) == nil {
			return b
		}
		mu.Lock()
		defer mu.Unlock()
		if writes++; !armed || writes != at+1 {
			return b
		}
		fired, when = true, time.Now()
		return do(m, rings[1], victim, b)
	})
	var through sync.WaitGroup
	through.Add(world)
	errs := onAll(rings, func(_ int, r *Ring) error {
		x := make([]int32, n)
		var err error
		for step := id.Step(0); step < rounds && err == nil; step++ {
			err = mixed(r, step, x)
		}
		through.Done()
		through.Wait()
		mu.Lock()
		armed = false
		again := fired
		mu.Unlock()
		for step := id.Step(rounds); again && err == nil; step++ { // a fault in the last round is met in the next one
			err = mixed(r, step, x)
		}
		return err
	})
	if !fired {
		return false
	}
	deadline := DefaultDeadAfter + 2*DefaultHeartbeat
	if sudden {
		deadline = DefaultHeartbeat
	}
	if took := time.Since(when); took > deadline {
		t.Errorf("the last one noticed after %v", took)
	}
	named := 0
	for i, err := range errs {
		var peer *PeerError
		var abort *AbortError
		switch {
		case err == nil:
			t.Errorf("rank %d: no error", i)
		case i == 1:
		case errors.As(err, &peer):
			if peer.Peer != victim {
				t.Errorf("rank %d blames %s: %v", i, peer.Peer, err)
			}
			named++
		case errors.As(err, &abort):
			if blamed && abort.Suspect != victim {
				t.Errorf("rank %d: %v", i, err)
			}
			if !blamed && (abort.Origin != victim || abort.Reason != "boom") {
				t.Errorf("rank %d: %v", i, err)
			}
		default:
			t.Errorf("rank %d: %v", i, err)
		}
		if again := rings[i].Barrier(bg, Op{}); again != err {
			t.Errorf("rank %d: first %v, then %v", i, err, again)
		}
		select {
		case <-rings[i].Done():
		default:
			t.Errorf("rank %d: not done", i)
		}
	}
	if blamed && named == 0 {
		t.Error("no neighbour saw it itself")
	}
	return true
}

// A ring without a call running notices just as well.
func TestFaultsBetweenCalls(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		for name, hit := range map[string]func(m *memNet){
			"dies":    func(m *memNet) { m.kill("n2") },
			"freezes": func(m *memNet) { m.freeze("n2") },
		} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := newMemNet(150).by(w)
					rings := joinAll(t, 5, func(rank int) Config { return m.config(rank, 5) })
					defer closeAll(rings)
					<-time.After(time.Minute)
					if rings[0].Err() != nil {
						t.Fatal(rings[0].Err())
					}
					begin := time.Now()
					hit(m)
					for i, r := range rings {
						<-r.Done()
						if d := time.Since(begin); d > DefaultDeadAfter+2*DefaultHeartbeat {
							t.Errorf("rank %d noticed after %v", i, d)
						}
						if err := r.AllReduce(bg, Op{}, Int32s(make([]int32, 9)), SumInt32); err == nil || err != r.Err() {
							t.Errorf("rank %d: %v, then %v", i, r.Err(), err)
						}
					}
				})
			})
		}
	})
}

// A wire breaks in one direction: whoever misses the other says so, and all hear it, also who is missed.
func TestOneWayCut(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		synctest.Test(t, func(t *testing.T) {
			m := newMemNet(150).by(w)
			rings := joinAll(t, 4, func(rank int) Config { return m.config(rank, 4) })
			defer closeAll(rings)
			time.AfterFunc(10*time.Millisecond, func() { m.cut("n1", "n2") })
			begin := time.Now()
			errs := onAll(rings, func(_ int, r *Ring) (err error) {
				for step := id.Step(0); err == nil; step++ {
					<-time.After(time.Millisecond)
					err = mixed(r, step, make([]int32, 50))
				}
				return err
			})
			if d := time.Since(begin); d > 500*time.Millisecond {
				t.Errorf("took %v", d)
			}
			for i, err := range errs {
				var peer *PeerError
				var abort *AbortError
				if errors.As(err, &peer) && i == 2 && peer.Peer == "n1" ||
					errors.As(err, &abort) && abort.Origin == "n2" && abort.Suspect == "n1" {
					continue
				}
				t.Errorf("rank %d: %v", i, err)
			}
		})
	})
}

// A context that ends aborts the ring on every rank, and its cause is found.
func TestContext(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		synctest.Test(t, func(t *testing.T) {
			m := newMemNet(150).by(w)
			rings := joinAll(t, 3, func(rank int) Config { return m.config(rank, 3) })
			defer closeAll(rings)
			ctx, cancel := context.WithTimeoutCause(bg, time.Minute, errBoom)
			defer cancel()
			begin := time.Now()
			errs := onAll(rings[:2], func(i int, r *Ring) error { // rank 2 never calls
				use := bg
				if i == 0 {
					use = ctx
				}
				return r.AllReduce(use, Op{}, Int32s(make([]int32, 100)), SumInt32)
			})
			if d := time.Since(begin); d != time.Minute {
				t.Errorf("after %v", d)
			}
			if !errors.Is(errs[0], errBoom) || !errors.Is(errs[0], ErrAborted) {
				t.Error(errs[0])
			}
			var abort *AbortError
			if !errors.As(errs[1], &abort) || abort.Origin != "n0" || abort.Reason != "boom" {
				t.Error(errs[1])
			}
			if err := rings[2].Barrier(ctx, Op{}); !errors.Is(err, ErrAborted) {
				t.Error(err)
			}
		})
	})
}

// The caller's memory is its own again when the call returns, whatever blocked sends are under way: -race watches.
func TestMemoryIsGivenBack(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		synctest.Test(t, func(t *testing.T) {
			m := newMemNet(100).by(w)
			rings := joinAll(t, 4, func(rank int) Config { return m.config(rank, 4) })
			defer closeAll(rings)
			time.AfterFunc(10*time.Millisecond, func() { m.freeze("n2") })
			time.AfterFunc(20*time.Millisecond, func() { rings[0].Abort(errBoom) })
			onAll(rings, func(i int, r *Ring) error {
				if i == 3 {
					<-time.After(15 * time.Millisecond)
				}
				x := make([]int32, 10_000)
				err := r.AllReduce(bg, Op{}, Int32s(x), SumInt32)
				if err == nil && !w.small { // the short way may be through before anybody notices
					t.Error("no error")
				}
				for k := range x {
					x[k] = 1
				}
				return err
			})
		})
	})
}

// Ranks leave at different times: the others complete what they can without them, and are told when they cannot.
func TestClose(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		for _, world := range []int{2, 3, 5} {
			t.Run(fmt.Sprint(world), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					for seed := range uint64(20) {
						m := newMemNet(100).by(w)
						rings := joinAll(t, world, func(rank int) Config { return m.config(rank, world) })
						begin := time.Now()
						errs := onAll(rings, func(i int, r *Ring) error {
							err := mixed(r, 0, make([]int32, 10+seed))
							return errors.Join(err, r.Close()) // at once, while others are still at it
						})
						if err := errors.Join(errs...); err != nil {
							t.Fatal(err)
						}
						if d := time.Since(begin); d > time.Millisecond { // no time but for giving the seat back
							t.Fatalf("closing took %v", d)
						}
					}
					m := newMemNet(100).by(w)
					rings := joinAll(t, world, func(rank int) Config { return m.config(rank, world) })
					defer closeAll(rings)
					_ = rings[0].Close()
					for i, err := range onAll(rings, func(_ int, r *Ring) error { return r.Barrier(bg, Op{}) }) {
						want := ErrLeft
						if i == 0 {
							want = ErrClosed
						}
						if !errors.Is(err, want) && !errors.Is(err, ErrAborted) {
							t.Errorf("rank %d: %v", i, err)
						}
					}
					if err := rings[1].Barrier(bg, Op{}); err == nil {
						t.Error("no error")
					}
				})
			})
		}
	})
}

func TestCloseWhilePending(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		synctest.Test(t, func(t *testing.T) {
			m := newMemNet(100).by(w)
			rings := joinAll(t, 3, func(rank int) Config { return m.config(rank, 3) })
			defer closeAll(rings)
			time.AfterFunc(time.Second, func() { _ = rings[1].Close() })
			errs := onAll(rings[:2], func(_ int, r *Ring) error { return r.Barrier(bg, Op{}) })
			if !errors.Is(errs[1], ErrClosed) {
				t.Error(errs[1])
			}
			if !errors.Is(errs[0], ErrLeft) && !errors.Is(errs[0], ErrAborted) {
				t.Error(errs[0])
			}
		})
	})
}

func TestBusy(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		synctest.Test(t, func(t *testing.T) {
			m := newMemNet(100).by(w)
			rings := joinAll(t, 2, func(rank int) Config { return m.config(rank, 2) })
			defer closeAll(rings)
			first := make(chan error)
			go func() { first <- rings[0].Barrier(bg, Op{}) }()
			synctest.Wait()
			if err := rings[0].Barrier(bg, Op{}); !errors.Is(err, ErrBusy) {
				t.Error(err)
			}
			if err := errors.Join(rings[1].Barrier(bg, Op{}), <-first); err != nil {
				t.Error(err)
			}
		})
	})
}
