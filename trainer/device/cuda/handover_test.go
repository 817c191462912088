package cuda

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/musterml/muster/trainer/data"
	"github.com/musterml/muster/trainer/device"
	"github.com/musterml/muster/trainer/nn"
)

// learner is a small model with all that steps differ in: samples, and the keys of its dropouts.
type learner struct {
	*nn.Replica
	spec *nn.Spec
	w    []float32
	part [1]nn.Part
	in   []data.Batch // by step
}

func newLearner(t *testing.T, d device.Device, steps int) *learner {
	t.Helper()
	spec, err := nn.Build(nn.Model{Layers: []nn.Layer{
		nn.Linear{Size: 9}, nn.ReLU{}, nn.Dropout{P: 0.4}, nn.Linear{Size: 7}, nn.LayerNorm{}, nn.GELU{}, nn.Dropout{P: 0.2}, nn.Linear{},
	}}, data.Form{Shape: []int{11}, Classes: 5})
	if err != nil {
		t.Fatal(err)
	}
	l := &learner{spec: spec, w: make([]float32, spec.Params())}
	l.part[0].Grad = make([]float32, spec.Params())
	if err := spec.Init(l.w, 1); err != nil {
		t.Fatal(err)
	}
	const n = 6
	rng := rand.New(rand.NewPCG(7, 8))
	for range steps {
		var in data.Batch
		for range n * spec.Features() {
			in.X = append(in.X, rng.Float32())
		}
		for range n {
			in.Labels = append(in.Labels, int32(rng.IntN(5)))
		}
		l.in = append(l.in, in)
	}
	if l.Replica, err = spec.NewReplica(d, n, 1); err != nil {
		t.Fatal(err)
	}
	return l
}

// step finds the gradient of the first n samples of a step.
func (l *learner) step(at, n int) error {
	in := l.in[at%len(l.in)]
	in.X, in.Labels = in.X[:n*l.spec.Features()], in.Labels[:n]
	l.part[0].Samples, l.part[0].Key = n, device.DropoutKey{Seed: 5, Step: uint64(at)}
	return l.Gradients(l.w, in, 1, l.part[:])
}

// Gradients are told of while there is still something to compute, and are what they are in the end.
func TestGradientsComeDuringTheBackwardPass(t *testing.T) {
	e := emulator(t)
	l := newLearner(t, newDevice(e, nil), 1)
	defer l.Close()
	var told, left []int
	var then [][]float32
	l.Progress = func(complete int) {
		told, left = append(told, complete), append(left, e.left())
		then = append(then, slices.Clone(l.part[0].Grad[complete:]))
	}
	for at := range 3 { // plain, captured, replayed
		told, left, then = nil, nil, nil
		clear(l.part[0].Grad)
		if err := l.step(at, 6); err != nil {
			t.Fatal(err)
		}
		if len(told) < 4 || told[0] != l.spec.Params() || told[len(told)-1] != 0 {
			t.Fatalf("complete from %v on", told)
		}
		for i := range told {
			if !slices.Equal(then[i], l.part[0].Grad[told[i]:]) {
				t.Errorf("step %d: from %d on the gradient was not complete", at, told[i])
			}
			// One thing is left in the end: the report is made ready for the next step.
			if last := i == len(told)-1; (left[i] > 1) == last {
				t.Errorf("step %d: with the gradient complete from %d on there are %d things left to do", at, told[i], left[i])
			}
		}
	}
	told = nil
	l.Marks = []int{l.spec.Params() * 2 / 3, 0}
	if err := l.step(3, 6); err != nil || len(told) != 3 {
		t.Errorf("with one mark: complete from %v on (%v)", told, err)
	}
}

// Steps of graphs give the bits of steps without, whatever differs between them; also where the driver makes none, which is said once.
func TestGraphs(t *testing.T) {
	const steps = 8
	run := func(noGraphs bool) (grads [][]float32, replays, warnings int) {
		e := emulator(t)
		e.noGraphs = noGraphs
		l := newLearner(t, newDevice(e, func(what string, _ error) {
			if warnings++; !strings.Contains(what, "graph") {
				t.Error(what)
			}
		}), steps)
		defer l.Close()
		for at := range steps {
			if err := l.step(at, 6-at/3%2); err != nil { // 6 or 5 samples: other shapes
				t.Fatal(err)
			}
			grads = append(grads, slices.Clone(l.part[0].Grad))
		}
		return grads, e.replays, warnings
	}
	want, none, warnings := run(true)
	if none != 0 || warnings != 1 {
		t.Errorf("%d graphs replayed and %d warnings without graphs", none, warnings)
	}
	got, replays, warnings := run(false)
	if replays < steps/2 || warnings != 0 {
		t.Errorf("%d graphs replayed, %d warnings", replays, warnings)
	}
	for i := range want {
		if !slices.Equal(got[i], want[i]) {
			t.Errorf("step %d has another gradient with graphs", i)
		}
		if i > 0 && slices.Equal(want[i], want[i-1]) {
			t.Errorf("steps %d and %d do not differ", i-1, i)
		}
	}
}

// The stream forgets the segments that were used longest ago.
func TestSegmentsAreForgotten(t *testing.T) {
	var g graphs
	for i := range mostSegments + 10 {
		if calls := []call{{bytes: i + 1}}; g.find(calls) != nil {
			t.Fatal("found what was never there")
		} else if err := g.remember(calls); err != nil {
			t.Fatal(err)
		}
		if g.find([]call{{bytes: 1}}) == nil {
			t.Fatalf("after %d segments the one that is used all the time is forgotten", i)
		}
	}
	if len(g.segments) != mostSegments || g.find([]call{{bytes: 2}}) != nil {
		t.Errorf("%d segments are remembered", len(g.segments))
	}
}

// idle is a GPU that does nothing, and so nothing that allocates.
type idle struct {
	*emulated
	made int // memories, events and graphs
}

type idleQueue struct{ g *idle }

func (g *idle) alloc(int) (pointer, error)       { g.made++; return 1 << 20, nil }
func (g *idle) free(pointer) error               { return nil }
func (g *idle) pinned(bytes int) ([]byte, error) { g.made++; return make([]byte, bytes), nil }
func (g *idle) unpin([]byte) error               { return nil }
func (g *idle) lock([]byte) error                { return nil }
func (g *idle) unlock([]byte) error              { return nil }
func (g *idle) newQueue() (queue, error)         { return idleQueue{g}, nil }
func (g *idle) newEvent() (event, error)         { g.made++; return idleQueue{g}, nil }

func (idleQueue) wait() error                                     { return nil }
func (idleQueue) write(pointer, []byte) error                     { return nil }
func (idleQueue) read([]byte, pointer) error                      { return nil }
func (idleQueue) fetch(pointer, gpu, pointer, int) error          { return nil }
func (idleQueue) zero(pointer, int) error                         { return nil }
func (idleQueue) launch(string, [3]int, int, int, []uint64) error { return nil }
func (idleQueue) gemm(gemm) error                                 { return nil }
func (q idleQueue) capture(f func() error) (graph, error)         { q.g.made++; return q, f() }
func (idleQueue) replay(graph) error                              { return nil }
func (idleQueue) record(event) error                              { return nil }
func (idleQueue) after(event) error                               { return nil }
func (idleQueue) sync() error                                     { return nil }
func (idleQueue) close() error                                    { return nil }

// From the third step on (the first makes what is kept, the second the graphs) nothing is made any more, of the GPU's or of Go's.
func TestSteadyStepsAllocateNothing(t *testing.T) {
	for _, off := range []string{"", "off"} {
		t.Setenv(GraphsVariable, off)
		g := &idle{emulated: &emulated{}}
		l := newLearner(t, newDevice(g, nil), 2)
		defer l.Close()
		at := 0
		step := func() {
			if err := l.step(at, 6); err != nil {
				t.Fatal(err)
			}
			at++
		}
		step()
		step()
		made := g.made
		if n := testing.AllocsPerRun(20, step); n > 0 {
			t.Errorf("graphs %q: %v allocations per step", off, n)
		}
		if g.made != made {
			t.Errorf("graphs %q: %d memories, events or graphs made in steady steps", off, g.made-made)
		}
	}
}

// An error of the GPU names the device, the kernel and its shape.
func TestErrorsNameKernelAndShape(t *testing.T) {
	errIllegal := errors.New("an illegal memory access was encountered")
	for _, off := range []string{"", "off"} {
		t.Setenv(GraphsVariable, off)
		e := emulator(t)
		l := newLearner(t, newDevice(e, nil), 4)
		var err error
		for at := range 4 { // in the last, which is replayed
			if at == 3 {
				e.fault = func(call string) error {
					if call == "launch layer_norm_backward" {
						return errIllegal
					}
					return nil
				}
			}
			err = l.step(at, 5)
		}
		if !errors.Is(err, errIllegal) || !errors.Is(err, device.ErrFailed) {
			t.Fatal(err)
		}
		for _, part := range []string{"cuda emulator", "the last that began was kernel layer_norm_backward on 5 x 1 x 1 blocks (rows 5, cols 7"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("graphs %q: %q does not say %q", off, err, part)
			}
		}
		if again := l.step(0, 5); !errors.Is(again, errIllegal) {
			t.Errorf("afterwards: %v", again)
		}
		_ = l.Close() // says it once more
	}
}
