package table

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/optim"
)

func newOptimizer(t testing.TB, name string) optim.Optimizer {
	t.Helper()
	o, err := optim.New(optim.Config{Name: name, LR: 0.1})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// naive is the oracle: one map for a table, every rule as the package's comment words it.
type naive struct {
	cfg  Config
	rows map[uint64]*naiveRow
}

type naiveRow struct {
	last id.Step
	seen int
	w    []float32 // nil while it waits
	opt  [][]float32
}

func (n *naive) initial(key uint64) []float32 {
	w := make([]float32, n.cfg.Dim)
	newTable(0, n.cfg).initial(key, w)
	return w
}

func (n *naive) read(at id.Step, key uint64) []float32 {
	if r := n.rows[key]; r != nil && r.w != nil {
		return r.w
	}
	if n.cfg.Admit > 1 {
		return make([]float32, n.cfg.Dim)
	}
	return n.initial(key)
}

func (n *naive) push(step id.Step, parts []Part) {
	sums := map[uint64][]float32{}
	for l := range parts {
		for _, p := range parts {
			if int(p.Shard) != l {
				continue
			}
			r := p.Tables[0]
			for i, k := range r.Keys {
				g := r.Values[i*n.cfg.Dim : (i+1)*n.cfg.Dim]
				if sums[k] == nil {
					sums[k] = slices.Clone(g)
					continue
				}
				for j := range g {
					sums[k][j] += g[j]
				}
			}
		}
	}
	for k, g := range sums {
		r := n.rows[k]
		if r == nil {
			r = &naiveRow{}
			n.rows[k] = r
		}
		had := r.w != nil || n.cfg.Admit <= 1
		r.last = step
		r.seen++
		if r.w == nil && r.seen >= n.cfg.Admit {
			r.w = n.initial(k)
			for range n.cfg.Optimizer.Slots() {
				r.opt = append(r.opt, make([]float32, n.cfg.Dim))
			}
		}
		if had {
			n.cfg.Optimizer.Update(step, r.w, g, r.opt)
		}
	}
	if n.cfg.Expire > 0 {
		for k, r := range n.rows {
			if step+1-r.last > n.cfg.Expire {
				delete(n.rows, k)
			}
		}
	}
	if limit := n.cfg.limit(); limit > 0 {
		bySlot := map[int][]uint64{}
		for k := range n.rows {
			bySlot[Slot(k)] = append(bySlot[Slot(k)], k)
		}
		for _, keys := range bySlot {
			slices.SortFunc(keys, func(a, b uint64) int {
				return cmp.Or(cmp.Compare(n.rows[a].last, n.rows[b].last), cmp.Compare(a, b))
			})
			for _, k := range keys[:max(0, len(keys)-limit)] {
				delete(n.rows, k)
			}
		}
	}
}

// randomParts are the parts of a step, about the same keys again and again.
func randomParts(r *rand.Rand, logical, dim, keys int) []Part {
	parts := make([]Part, logical)
	for l := range parts {
		set := map[uint64]bool{}
		for range r.IntN(40) {
			set[testKey(r.IntN(1+r.IntN(keys)))] = true
		}
		rows := Rows{}
		for k := range set {
			rows.Keys = append(rows.Keys, k)
		}
		slices.Sort(rows.Keys)
		for range len(rows.Keys) * dim {
			rows.Values = append(rows.Values, float32(r.NormFloat64()))
		}
		parts[l] = Part{Shard: id.LogicalShard(l), Tables: []Rows{rows}}
	}
	return parts
}

// testKey crowds into few slots, so that limits are met.
func testKey(i int) uint64 {
	for k := uint64(i) << 32; ; k++ {
		if Slot(k) < 24 {
			return k
		}
	}
}

// of keeps what is of a store's shard.
func of(s *Store, p Part) Part {
	dim := s.tables[0].cfg.Dim
	out := Part{Shard: p.Shard, Tables: []Rows{{}}}
	for i, k := range p.Tables[0].Keys {
		if s.Owns(k) {
			out.Tables[0].Keys = append(out.Tables[0].Keys, k)
			out.Tables[0].Values = append(out.Tables[0].Values, p.Tables[0].Values[i*dim:(i+1)*dim]...)
		}
	}
	return out
}

// payload is bytes as they come to a server.
func payload(b []byte) []float32 {
	p := make([]float32, len(b)/4)
	copy(floats.Bytes(p), b)
	return p
}

func sameFloats(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

func testConfigs(t testing.TB) map[string]Config {
	all := map[string]Config{}
	for _, name := range []string{"sgd", "adagrad", "adam", "ftrl"} {
		all[name] = Config{Name: name, Dim: 5, Optimizer: newOptimizer(t, name), Seed: 7, Scale: 0.1}
	}
	c := all["adagrad"]
	c.Dim, c.Admit, c.Expire, c.MaxRows = 16, 3, 4, 6*Slots
	all["everything"] = c
	c.Admit, c.Expire = 1, 0
	all["limit"] = c
	return all
}

// A store of any number of shards does what the naive map does, whatever order parts come in, how often and in how many
// messages, and through snapshots and encodings.
func TestStoreAgainstMap(t *testing.T) {
	for name, c := range testConfigs(t) {
		for _, shards := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/%d", name, shards), func(t *testing.T) {
				const logical, keys, steps = 4, 200, 60
				r := rand.New(rand.NewPCG(1, uint64(shards)))
				n := &naive{cfg: c, rows: map[uint64]*naiveRow{}}
				var stores []*Store
				for i := range shards {
					s, err := New([]Config{c}, i, shards, logical)
					if err != nil {
						t.Fatal(err)
					}
					stores = append(stores, s)
				}
				history := map[id.Step]map[uint64][]float32{}
				for step := id.Step(0); step < steps; step++ {
					state := map[uint64][]float32{}
					for i := range keys {
						state[testKey(i)] = slices.Clone(n.read(step, testKey(i)))
					}
					history[step] = state
					for i, s := range stores {
						compare(t, s, history, step)
						switch r.IntN(8) {
						case 0:
							stores[i] = throughSnapshot(t, s)
						case 1:
							s.Pin(step, true)
						case 2:
							s.Pin(0, false)
						}
					}
					parts := randomParts(r, logical, c.Dim, keys)
					n.push(step, parts)
					for _, s := range stores {
						pushSomehow(t, r, s, step, parts)
					}
				}
				if name == "everything" {
					st := stores[0].Stats()[0]
					if st.Admitted == 0 || st.Expired == 0 || st.Evicted == 0 || st.Rows == st.Keys {
						t.Errorf("the test meets not everything: %+v", st)
					}
				}
			})
		}
	}
}

// compare reads every key at every step that can be read, and what changed.
func compare(t *testing.T, s *Store, history map[id.Step]map[uint64][]float32, now id.Step) {
	t.Helper()
	if s.Step() != now {
		t.Fatalf("the store is at %v, must be at %v", s.Step(), now)
	}
	for at := s.Oldest(); at <= now; at++ {
		for key, want := range history[at] {
			if !s.Owns(key) {
				continue
			}
			_, got, err := s.Pull(at, at, [][]uint64{{key}}, nil, nil)
			if err != nil || !sameFloats(got, want) {
				t.Fatalf("key %x at %v of %v: %v %v, must be %v", key, at, now, got, err, want)
			}
			for since := s.Oldest(); since < at; since++ {
				changed, got, err := s.Pull(at, since, [][]uint64{{key}}, nil, nil)
				if err != nil || len(got) == 0 && !sameFloats(history[since][key], want) || len(got) > 0 && changed[0] != 1 {
					t.Fatalf("key %x at %v since %v: %v %v", key, at, since, got, err)
				}
			}
		}
	}
	if _, _, err := s.Pull(now+1, 0, [][]uint64{{}}, nil, nil); !errors.Is(err, ErrNotYet) {
		t.Errorf("a step that is not made yet: %v", err)
	}
}

func pushSomehow(t *testing.T, r *rand.Rand, s *Store, step id.Step, parts []Part) {
	t.Helper()
	var order []Part
	for range 2 {
		for _, i := range r.Perm(len(parts)) {
			order = append(order, of(s, parts[i]))
		}
	}
	for len(order) > 0 {
		n := 1 + r.IntN(len(order))
		decoded, err := s.Decoder().Parts(payload(AppendParts(nil, order[:min(n, len(parts))])))
		if err != nil {
			t.Fatal(err)
		}
		keep := step
		if step > 2 && r.IntN(2) == 0 {
			keep = step - 2
		}
		if err := s.Push(step, keep, decoded); err != nil {
			t.Fatal(err)
		}
		order = order[min(n, len(parts)):]
	}
}

func TestPushBeyond(t *testing.T) {
	c := testConfigs(t)["sgd"]
	s, _ := New([]Config{c}, 0, 1, 1)
	if err := s.Push(1, 0, nil); !errors.Is(err, ErrGap) {
		t.Errorf("a push beyond the state: %v", err)
	}
	_ = s.Push(0, 0, []Part{{Tables: make([]Rows, 1)}})
	_ = s.Push(1, 1, []Part{{Tables: make([]Rows, 1)}})
	if _, _, err := s.Pull(0, 0, [][]uint64{{}}, nil, nil); !errors.Is(err, ErrGone) {
		t.Errorf("a pull of what is gone: %v", err)
	}
}

// Whatever the bytes are, they are taken or refused.
func FuzzDecode(f *testing.F) {
	o, _ := optim.New(optim.Config{Name: "adagrad", LR: 0.1})
	c := Config{Name: "t", Dim: 3, Optimizer: o, Scale: 1}
	s, _ := New([]Config{c, c}, 0, 1, 2)
	p := Part{Tables: []Rows{{Keys: []uint64{1, 9}, Values: make([]float32, 6)}, {Keys: []uint64{4}, Values: make([]float32, 3)}}}
	_ = s.Push(0, 0, []Part{p, {Shard: 1, Tables: make([]Rows, 2)}})
	rows, _ := s.AppendSlots(nil, 1, 0, 0, Slots)
	var snap bytes.Buffer
	whole := s.Snapshot(0, func(do func()) { do() })
	_ = errors.Join(whole.WriteLayer(&snap), whole.WriteRest(&snap))
	f.Add(AppendParts(nil, []Part{p}))
	f.Add(appendRequest(nil, [][]uint64{{1, 2}, {3}}))
	f.Add(rows)
	f.Add(snap.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		d := s.Decoder()
		if parts, err := d.Parts(payload(b)); err == nil && len(b)%4 == 0 && !bytes.Equal(AppendParts(nil, parts), b) {
			t.Error("parts that encode to something else")
		}
		if keys, _, err := d.Keys(b); err == nil && !bytes.Equal(appendRequest(nil, keys), b) {
			t.Error("keys that encode to something else")
		}
		n, _ := New([]Config{c, c}, 0, 1, 2)
		if err := n.Load(5, 0, Slots, b); err != nil && !errors.Is(err, ErrBad) {
			t.Error(err)
		}
		_, _ = s.Restore(bytes.NewReader(b))
	})
}

func TestInitialValues(t *testing.T) {
	tb := newTable(1, Config{Dim: 1000, Scale: 0.5, Seed: 3, Optimizer: newOptimizer(t, "sgd")})
	a, b := make([]float32, 1000), make([]float32, 1000)
	tb.initial(12345, a)
	tb.initial(12346, b)
	sum := 0.0
	for i, v := range a {
		if v <= -0.5 || v >= 0.5 || v == b[i] {
			t.Fatalf("element %d is %v, and of the next key %v", i, v, b[i])
		}
		sum += float64(v * v)
	}
	if v := sum / 1000 * 12; v < 0.9 || v > 1.1 {
		t.Errorf("the variance is %v of what it should be", v)
	}
	// Every machine and every later version must draw the same.
	if got := fmt.Sprint(a[:3]); got != "[0.05603996 0.34163073 -0.23642775]" {
		t.Errorf("the first values are %s", got)
	}
}
