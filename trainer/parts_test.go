package trainer

import (
	"bytes"
	"context"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/musterml/muster/internal/floats"
	"github.com/musterml/muster/internal/id"
	"github.com/musterml/muster/internal/port"
	"github.com/musterml/muster/membership"
	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device/cpu"
	"github.com/musterml/muster/trainer/nn"
)

// tiny is a job of a few hundred parameters, with its data and model.
func tiny(t *testing.T) (Job, *nn.Spec, data.Dataset, data.Dataset) {
	t.Helper()
	j := DefaultJob()
	j.Model = Model{Name: "linear"}
	j.Data.Train, j.Data.Test = 100, 20
	j.Batch = Batch{Size: 32, LogicalShards: 5}
	j.Passes = 2
	train, test, err := data.Open(t.Context(), j.Data, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := j.BuildModel(train.Form())
	if err != nil {
		t.Fatal(err)
	}
	return j, spec, train, test
}

func newTinyWork(t *testing.T) (*work, []float32) {
	t.Helper()
	j, spec, train, test := tiny(t)
	dev, err := cpu.New()
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWork(j, spec, dev, train, test, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	weights := make([]float32, spec.Params())
	if err := spec.Init(weights, 1); err != nil {
		t.Fatal(err)
	}
	return w, weights
}

// The held-out data are looked at once after each pass, and at the end.
func TestEvaluatesAfterEveryPass(t *testing.T) {
	w, _ := newTinyWork(t) // 100 samples twice, 32 a step: passes end in steps 4 and 7
	var got []id.Step
	for s := range w.steps + 1 {
		if w.evaluates(s) {
			got = append(got, s)
		}
	}
	if want := []id.Step{4, 7}; len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("evaluates at %v, want %v", got, want)
	}
}

// A unit that is done is not done again, and what it gives does not hang on who else works.
func TestComputeKeepsWhatIsDone(t *testing.T) {
	w, weights := newTinyWork(t)
	if err := w.compute(t.Context(), 1, 3, weights, []id.LogicalShard{1, 4}); err != nil {
		t.Fatal(err)
	}
	want := append([]float32(nil), w.units[1].grad...)
	w.units[1].grad[0] = 42 // a mark that computing anew would wipe out
	if err := w.compute(t.Context(), 1, 3, weights, []id.LogicalShard{0, 1, 2, 3, 4}); err != nil {
		t.Fatal(err)
	}
	if err := w.compute(t.Context(), 1, 3, weights, []id.LogicalShard{0, 1}); err != nil { // nothing is left to do
		t.Fatal(err)
	}
	if w.units[1].grad[0] != 42 {
		t.Error("a unit that was done is done again")
	}
	w.forget()
	if err := w.compute(t.Context(), 1, 3, weights, []id.LogicalShard{1}); err != nil {
		t.Fatal(err)
	}
	for i, g := range w.units[1].grad {
		if math.Float32bits(g) != math.Float32bits(want[i]) {
			t.Fatalf("gradient %d is %v alone and %v among others", i, g, want[i])
		}
	}
}

func TestComputeStopsWhenTheViewIsOver(t *testing.T) {
	w, weights := newTinyWork(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errViewOver)
	if err := w.compute(ctx, 1, 0, weights, []id.LogicalShard{0, 1}); err == nil || !strings.Contains(err.Error(), errViewOver.Error()) {
		t.Errorf("got %v", err)
	}
}

// Shares cover every parameter of a bucket once, in order, on block borders, for any world.
func TestSharesCoverBuckets(t *testing.T) {
	j, spec, _, _ := tiny(t)
	x := newExchange(j, spec)
	x.layout.BlockSize = 64
	for world := 1; world <= 40; world++ {
		for _, b := range buckets(x.layout.Blocks(), 9) {
			lo, hi := x.span(b.first, b.last)
			bounds := x.bounds(b, world)
			if bounds[0] != 0 || bounds[world] != hi-lo {
				t.Fatalf("world %d: bounds %v do not cover %d parameters", world, bounds, hi-lo)
			}
			for r := range world {
				if bounds[r] > bounds[r+1] || bounds[r]%64 != 0 {
					t.Fatalf("world %d: bounds %v", world, bounds)
				}
				if own := b.share(r, world); own.first < own.last {
					if first, last := x.span(own.first, own.last); first != lo+bounds[r] || last != lo+bounds[r+1] {
						t.Fatalf("world %d, bucket %v: share %v of rank %d is not what lies within bounds %v", world, b, own, r, bounds)
					}
				}
			}
		}
	}
}

// A member that the coordinator misses first is a loss as well, of which a record is wanted; one that joins is none, and what
// the ring has said is not said again.
func TestEnterTellsOfLoss(t *testing.T) {
	var told []string
	tr := &Trainer{cfg: Config{Node: "a", Incarnation: "1", Broken: func(err error) { told = append(told, err.Error()) }}}
	view := func(n id.View, why string, nodes ...id.Node) {
		v := membership.View{Number: n, Reason: why}
		for _, node := range nodes {
			v.Members = append(v.Members, membership.Member{Node: node, Incarnation: "1", Holder: true})
		}
		tr.Enter(v)
	}
	view(1, "the run begins", "a", "b")
	view(2, "trainers join", "a", "b", "c")
	view(3, "c is gone", "a", "b")
	tr.broken = true
	view(4, "b is gone", "a")
	view(5, "a was left out", "b")
	view(6, "b is gone", "a")
	if want := []string{"view 2 ended: c is gone", "view 4 ended: a was left out"}; !slices.Equal(told, want) {
		t.Errorf("told of %q, want %q", told, want)
	}
}

func TestFloat64Words(t *testing.T) {
	for _, v := range []float64{0, math.Copysign(0, -1), 1.5, -math.MaxFloat64, math.SmallestNonzeroFloat64, math.Inf(1)} {
		words := make([]int32, 2)
		putFloat64(words, v)
		if got := float64FromWords(words); math.Float64bits(got) != math.Float64bits(v) {
			t.Errorf("%v became %v", v, got)
		}
	}
}

func TestModelFileKeepsEveryBit(t *testing.T) {
	_, spec, _, _ := tiny(t)
	w := make([]float32, spec.Params())
	for i := range w {
		w[i] = math.Float32frombits(uint32(i) * 2654435761 &^ (1 << 30)) // any bits but NaN and Inf
	}
	path := filepath.Join(t.TempDir(), "m.safetensors")
	if err := WriteModel(path, spec, w); err != nil {
		t.Fatal(err)
	}
	got, err := ReadModel(path, spec)
	if err != nil {
		t.Fatal(err)
	}
	for i := range w {
		if math.Float32bits(got[i]) != math.Float32bits(w[i]) {
			t.Fatalf("weight %d is %v, was %v", i, got[i], w[i])
		}
	}
	other, err := nn.Build(nn.Model{Name: "mlp"}, data.Form{Shape: []int{1, 28, 28}, Classes: 10})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadModel(path, other); err == nil || !strings.Contains(err.Error(), "linear") {
		t.Errorf("a linear model as an mlp: %v", err)
	}
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadModel(path, spec); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a truncated file: %v", err)
	}
}

// A state that is damaged on the way, or of another step, is not taken.
func TestStateTransferRefuses(t *testing.T) {
	j, spec, _, _ := tiny(t)
	giver := &Trainer{state: newState(spec.Params(), 2, ModeRing), holds: true}
	giver.state.step = 7
	for i := range giver.state.w {
		giver.state.w[i] = float32(i)
	}
	taker := &shift{Trainer: &Trainer{cfg: Config{Job: j}, state: newState(spec.Params(), 2, ModeRing)}}
	take := func(at id.Step, between func(net.Conn) net.Conn) error {
		a, b := net.Pipe()
		go func() {
			giver.serveState(between(b), port.Peer{})
		}()
		defer a.Close()
		return taker.readState(stalling{a}, at)
	}
	if err := take(7, func(c net.Conn) net.Conn { return c }); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(floats.Bytes(taker.state.w), floats.Bytes(giver.state.w)) {
		t.Error("the state changed on the way")
	}
	if err := take(8, func(c net.Conn) net.Conn { return c }); err == nil || !strings.Contains(err.Error(), "does not hold step 8") {
		t.Errorf("another step: %v", err)
	}
	if err := take(7, func(c net.Conn) net.Conn { return &flipping{Conn: c} }); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("a flipped bit: %v", err)
	}
}

// flipping damages one bit of the first large write.
type flipping struct {
	net.Conn
	done bool
}

func (f *flipping) Write(p []byte) (int, error) {
	if len(p) > 1000 && !f.done {
		f.done = true
		p = append([]byte(nil), p...)
		p[500] ^= 1
	}
	return f.Conn.Write(p)
}

// A trainer keeps a state that may still be needed, and gives up one that may not be the run's.
func TestEnterKeepsWhatMayBeNeeded(t *testing.T) {
	for _, c := range []struct {
		name   string
		holder bool
		left   bool // out of the view
		from   id.Step
		want   bool
	}{
		{"a holder", true, false, 7, true},
		{"one step behind: the newest there is if the holders die now", false, false, 8, true},
		{"left out: its step may never have been agreed", false, true, 7, false},
		{"of the right step, but not counted: its weights differ", false, false, 7, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := &Trainer{cfg: Config{Node: "a", Incarnation: "1"}, state: &state{step: 7}, holds: true, changed: make(chan struct{}, 1)}
			v := membership.View{Number: 3, From: c.from, Members: []membership.Member{{Node: "a", Incarnation: "1", Holder: c.holder}}}
			if c.left {
				v.Members[0].Incarnation = "2"
			}
			if tr.Enter(v); tr.has(7) != c.want {
				t.Errorf("holds its state: %t, want %t", !c.want, c.want)
			}
		})
	}
}

// No bench has a group more than another, unless there are too few units for that.
func TestGroupsComeOutEven(t *testing.T) {
	for _, c := range []struct{ units, group, benches, want int }{
		{8, 3, 2, 4}, {8, 8, 1, 1}, {8, 3, 1, 3}, {8, 4, 2, 2}, {8, 1, 2, 8}, {3, 1, 2, 3}, {5, 2, 4, 4}, {1, 5, 2, 1}, {0, 5, 2, 0},
	} {
		w := &work{group: c.group, benches: make([]*bench, c.benches)}
		if got := w.groups(c.units); got != c.want {
			t.Errorf("%d units in groups of at most %d on %d benches: %d groups, want %d", c.units, c.group, c.benches, got, c.want)
		}
	}
}

// However units are grouped, they come to the same bits.
func TestGroupsAreAsIfAlone(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // all units to one bench
	w, weights := newTinyWork(t)
	if w.group != 5 {
		t.Fatalf("groups have %d units, want all 5 of so small a model", w.group)
	}
	shards := []id.LogicalShard{4, 0, 1, 3}
	var want [][]float32
	var evaluated nn.Result
	for group := 1; group <= w.group; group++ {
		w.group = group
		w.forget()
		if err := w.compute(t.Context(), 1, 4, weights, shards); err != nil { // a step that evaluates, too
			t.Fatal(err)
		}
		for i, l := range shards {
			if u := &w.units[l]; group == 1 {
				want = append(want, slices.Clone(u.grad))
			} else if !slices.Equal(u.grad, want[i]) {
				t.Errorf("in groups of %d, %v has another gradient", group, l)
			}
		}
		if got := w.units[3].test; group == 1 {
			evaluated = got
		} else if got != evaluated || got == (nn.Result{}) {
			t.Errorf("in groups of %d, held-out data come to %+v, alone to %+v", group, got, evaluated)
		}
	}
}
