package ps

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
	pb "github.com/musterml/muster/proto"
)

func testState(t testing.TB, l Layout, shard id.ParamShard, c optim.Config) *shardState {
	t.Helper()
	if err := l.Validate(); err != nil {
		t.Fatal(err)
	}
	return newShardState(l, shard, testOptimizer(t, c))
}

// part is the shard's own blocks in [first, last) of a vector over the whole model.
func part(l Layout, shard id.ParamShard, first, last id.Block, vectors ...[]float32) []float32 {
	var out []float32
	i0, i1 := l.local(shard, first, last)
	for i := i0; i < i1; i++ {
		lo, hi := l.Range(l.block(shard, i))
		for _, v := range vectors {
			out = append(out, v[lo:hi]...)
		}
	}
	return out
}

func push(step id.Step, first, last id.Block) *entry {
	return &entry{kind: pb.ParamEntry_PUSH, step: step, first: first, last: last}
}

func put(step, keep id.Step, first, last id.Block) *entry {
	return &entry{kind: pb.ParamEntry_PUT, step: step, keep: keep, first: first, last: last}
}

func TestLayout(t *testing.T) {
	for _, l := range []Layout{{1, 1, 1, 0}, {10, 3, 2, 0}, {1000, 7, 5, 0}, {64, 64, 3, 0}, {65, 64, 1, 0}} {
		t.Run(fmt.Sprint(l), func(t *testing.T) {
			params, blocks := 0, 0
			for s := range l.Shards {
				shard := id.ParamShard(s)
				n := l.own(shard)
				blocks += n
				params += l.floats(shard, 0, n)
				for i := range n {
					b := l.block(shard, i)
					if l.Shard(b) != shard {
						t.Fatalf("block %d of %v is in %v", b, shard, l.Shard(b))
					}
					if i0, i1 := l.local(shard, b, b+1); i0 != i || i1 != i+1 {
						t.Fatalf("block %d: local range [%d, %d), want %d", b, i0, i1, i)
					}
				}
			}
			if params != l.Params || blocks != l.Blocks() {
				t.Fatalf("%d parameters in %d blocks, want %d in %d", params, blocks, l.Params, l.Blocks())
			}
		})
	}
	if err := (Layout{}).Validate(); !errors.Is(err, ErrLayout) {
		t.Fatal(err)
	}
}

// TestRandomHistories applies legal pushes in random ranges and order, with any of the
// past repeated (with other bytes, even) and pushes beyond the state mixed in: the end is
// bit for bit that of one machine, on every optimizer.
func TestRandomHistories(t *testing.T) {
	l := Layout{Params: 1003, BlockSize: 32, Shards: 2}
	const shard, steps = id.ParamShard(1), 12
	for name, c := range optimizers() {
		for seed := range uint64(8) {
			t.Run(fmt.Sprint(name, seed), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 5))
				s := testState(t, l, shard, c)
				o := newOracle(t, c, l.Params)
				all := id.Block(l.Blocks())
				s.apply(1, put(0, 0, 0, all), part(l, shard, 0, all, append([][]float32{o.w}, o.slots...)...))
				at := make([]id.Step, all) // by block
				index := uint64(1)
				for done := 0; done < steps*l.own(shard); index++ {
					first := id.Block(r.IntN(int(all)))
					last := first + 1 + id.Block(r.IntN(min(6, int(all-first))))
					step := id.Step(r.IntN(steps))
					legal, fresh := true, 0
					i0, i1 := l.local(shard, first, last)
					for i := i0; i < i1; i++ {
						b := l.block(shard, i)
						legal = legal && at[b] >= step
						if at[b] == step {
							fresh++
						}
					}
					g := gradient(step, l.Params)
					if legal && fresh == 0 {
						g = gradient(step+1000, l.Params) // a repetition: its bytes must not matter
					}
					res := s.apply(index+1, push(step, first, last), part(l, shard, first, last, g))
					switch {
					case i0 == i1:
						if res.status != pb.ParamAnswer_BAD_REQUEST {
							t.Fatalf("push on no block of the shard: %v", res)
						}
						continue
					case !legal:
						if res.status != pb.ParamAnswer_GAP {
							t.Fatalf("push of %v on [%d, %d): %v, want a gap", step, first, last, res)
						}
						continue
					case res.status != pb.ParamAnswer_OK:
						t.Fatalf("push of %v on [%d, %d): %v", step, first, last, res)
					}
					done += fresh
					for i := i0; i < i1; i++ {
						at[l.block(shard, i)] = max(at[l.block(shard, i)], step+1)
					}
				}
				for range steps {
					o.push(gradient(o.step, l.Params))
				}
				vs, res := s.collect(nil, steps, 0, all)
				if res.status != pb.ParamAnswer_OK {
					t.Fatal(res)
				}
				var got []float32
				for _, v := range vs {
					got = append(got, v.data...)
				}
				sameBits(t, "state", got, part(l, shard, 0, all, append([][]float32{o.w}, o.slots...)...))
			})
		}
	}
}

// A version that somebody reads stays as it was while the block goes on.
func TestReadersKeepTheirVersion(t *testing.T) {
	l := Layout{Params: 100, BlockSize: 10, Shards: 1}
	s := testState(t, l, 0, optimizers()["momentum"])
	o := newOracle(t, optimizers()["momentum"], l.Params)
	s.apply(1, put(0, 0, 0, 10), part(l, 0, 0, 10, o.w, o.slots[0]))
	vs, _ := s.collect(nil, 0, 0, 10)
	want := append([]float32(nil), o.w...)
	for i := range id.Step(5) {
		s.apply(uint64(i)+2, push(i, 0, 10), gradient(i, l.Params))
	}
	var got []float32
	for _, v := range vs {
		got = append(got, v.w(1)...)
	}
	sameBits(t, "version read", got, want)
	releaseAll(vs)
	if _, res := s.collect(nil, 0, 0, 10); res.status != pb.ParamAnswer_GONE || res.newest != 5 {
		t.Fatalf("step 0 after five pushes: %v", res)
	}
	if _, res := s.collect(nil, 6, 0, 10); res.status != pb.ParamAnswer_NOT_YET {
		t.Fatalf("step 6 after five pushes: %v", res)
	}
	if steps := s.steps(); len(steps) != 2 || steps[0] != 4 || steps[1] != 5 {
		t.Fatalf("holds %v", steps)
	}
}

// In steady state a push makes no garbage.
func TestPushAllocatesNothing(t *testing.T) {
	l := Layout{Params: 1000, BlockSize: 10, Shards: 1}
	s := testState(t, l, 0, optimizers()["adam"])
	e, g := push(0, 0, 100), make([]float32, 1000)
	s.apply(1, put(0, 0, 0, 100), make([]float32, 3000))
	step := id.Step(0)
	if a := testing.AllocsPerRun(20, func() {
		e.step = step
		s.apply(uint64(step)+2, e, g)
		step++
	}); a > 0 {
		t.Fatalf("%v allocations for a push", a)
	}
}

func snapshotBytes(t testing.TB, s *shardState) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.snapshot(0).write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSnapshot(t *testing.T) {
	l := Layout{Params: 530, BlockSize: 32, Shards: 2}
	conf := optimizers()["adam"]
	s := testState(t, l, 1, conf)
	o := newOracle(t, conf, l.Params)
	all := id.Block(l.Blocks())
	empty := snapshotBytes(t, s)
	s.apply(7, put(3, 0, 0, all), part(l, 1, 0, all, append([][]float32{o.w}, o.slots...)...))
	s.apply(9, push(3, 0, 9), part(l, 1, 0, 9, gradient(3, l.Params)))
	snap := s.snapshot(0) // of this moment, though written later
	good := snapshotBytes(t, s)
	s.apply(10, push(3, 0, all), part(l, 1, 0, all, gradient(3, l.Params)))
	s.apply(11, push(4, 0, all), part(l, 1, 0, all, gradient(4, l.Params)))
	var late bytes.Buffer
	if err := snap.write(&late); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(good, late.Bytes()) {
		t.Fatal("a snapshot written late is of another moment")
	}
	for _, image := range [][]byte{empty, good} {
		r := testState(t, l, 1, conf)
		r.apply(1, put(50, 0, 0, all), part(l, 1, 0, all, append([][]float32{o.w}, o.slots...)...))
		if err := r.restore(bytes.NewReader(image)); err != nil {
			t.Fatal(err)
		}
		if again := snapshotBytes(t, r); !bytes.Equal(again, image) {
			t.Fatal("restored state differs")
		}
	}
	r := testState(t, l, 1, conf)
	if err := r.restore(bytes.NewReader(good)); err != nil || !r.has(9) || r.has(10) {
		t.Fatalf("restored, %v, applied %d, want 9", err, r.applied)
	}
	before := snapshotBytes(t, r)
	for i := 0; i < len(good); i += 1 + i/50 {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if err := r.restore(bytes.NewReader(bad)); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if err := r.restore(bytes.NewReader(good[:i])); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("cut at byte %d: %v", i, err)
		}
	}
	for _, other := range []*shardState{
		testState(t, l, 0, conf), testState(t, Layout{Params: 530, BlockSize: 16, Shards: 2}, 1, conf), testState(t, l, 1, optimizers()["sgd"]),
	} {
		if err := other.restore(bytes.NewReader(good)); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("snapshot of another layout: %v", err)
		}
	}
	if !bytes.Equal(before, snapshotBytes(t, r)) {
		t.Fatal("a bad snapshot changed the state")
	}
}

func FuzzSnapshot(f *testing.F) {
	l := Layout{Params: 50, BlockSize: 8, Shards: 2}
	s := testState(f, l, 0, optimizers()["momentum"])
	f.Add(snapshotBytes(f, s))
	s.apply(1, put(3, 0, 0, 7), part(l, 0, 0, 7, gradient(1, 50), gradient(2, 50)))
	f.Add(snapshotBytes(f, s))
	s.apply(2, push(3, 0, 4), part(l, 0, 0, 4, gradient(1, 50)))
	f.Add(snapshotBytes(f, s))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := testState(t, l, 0, optimizers()["momentum"])
		if err := s.restore(bytes.NewReader(data)); err == nil && !bytes.HasPrefix(data, snapshotBytes(t, s)) {
			t.Fatal("accepted a snapshot that is not what it writes")
		}
	})
}

func FuzzEntry(f *testing.F) {
	l := Layout{Params: 50, BlockSize: 8, Shards: 2}
	for _, e := range []*entry{push(0, 0, 7), put(9, 3, 2, 3), push(1<<63, 6, 7), {kind: 2, ref: reference{payloadID{1, 2}, 8, 3}}} {
		b, err := e.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decodeEntry(data)
		if err != nil {
			return
		}
		s := testState(t, l, 1, optimizers()["sgd"])
		s.apply(1, put(0, 0, 0, 7), part(l, 1, 0, 7, gradient(1, 50)))
		payload := make([]float32, min(e.ref.length/4, 1000))
		if res := s.apply(2, &e, payload); res.status == pb.ParamAnswer_UNSPECIFIED {
			t.Fatal("no result")
		}
	})
}
