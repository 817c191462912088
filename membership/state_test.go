package membership

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	pb "github.com/musterml/muster/proto"
)

func entryLog(t testing.TB, e *pb.Entry) *raft.Log {
	t.Helper()
	b, err := proto.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return &raft.Log{Index: 1, Data: b}
}

func steps(lo, hi uint64) []*pb.StepMetrics {
	var m []*pb.StepMetrics
	for s := lo; s < hi; s++ {
		m = append(m, &pb.StepMetrics{Step: s, Loss: float64(s)})
	}
	return m
}

// An entry counts once, whole, and where it belongs; what comes too late changes nothing.
func TestApplyTakesEntriesOnceAndWhole(t *testing.T) {
	var m machine
	take := func(e *pb.Entry) error {
		err, _ := m.Apply(entryLog(t, e)).(error)
		return err
	}
	good := []*pb.Entry{
		{Founding: &pb.Founding{Run: "one"}, Events: []*pb.Event{{Kind: "founded"}}},
		{View: &pb.View{Number: 1}, Events: []*pb.Event{{Kind: "view"}}},
		{Metrics: steps(0, 3)},
		{View: &pb.View{Number: 2, From: 5}, Metrics: steps(3, 5)},
		{Finish: &pb.Finish{Step: 5}},
	}
	for _, e := range good {
		if err := take(e); err != nil {
			t.Fatal(err)
		}
	}
	want := m.copy()
	for _, e := range []*pb.Entry{
		good[1], good[2], good[3],
		{View: &pb.View{Number: 4}, Events: []*pb.Event{{Kind: "view"}}},
		{View: &pb.View{Number: 3}, Metrics: steps(7, 8)},
		{Metrics: steps(6, 7), Events: []*pb.Event{{Kind: "recovered"}}},
		{Metrics: append(steps(5, 6), steps(5, 6)...)},
	} {
		if err := take(e); !errors.Is(err, errStale) {
			t.Errorf("%v: got error %v", e, err)
		}
	}
	for _, e := range []*pb.Entry{{Founding: &pb.Founding{Run: "two"}}, {Finish: &pb.Finish{Step: 9}}, {}} {
		if err := take(e); err != nil {
			t.Error(err)
		}
	}
	if got := m.copy(); !proto.Equal(got, want) {
		t.Errorf("the state is %v, want %v", got, want)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	s := &pb.RunState{}
	for i := range uint64(3*maxEvents + 17) {
		if err := apply(s, &pb.Entry{Events: []*pb.Event{{Step: i}}}); err != nil {
			t.Fatal(err)
		}
		if len(s.Events) > maxEvents {
			t.Fatalf("%d events", len(s.Events))
		}
	}
	last := uint64(3*maxEvents + 16)
	if s.Events[keepEvents-1].Step != keepEvents-1 {
		t.Error("the first events are lost")
	}
	for i := range uint64(maxEvents - keepEvents - dropEvents) {
		if e := s.Events[uint64(len(s.Events))-1-i]; e.Step != last-i {
			t.Fatalf("event %d from the end is that of step %d", i, e.Step)
		}
	}
	if s.Forgotten+uint64(len(s.Events)) != last+1 {
		t.Errorf("%d kept and %d forgotten, of %d", len(s.Events), s.Forgotten, last+1)
	}
}

type sink struct {
	bytes.Buffer
	fail             error
	closed, canceled bool
}

func (s *sink) ID() string    { return "test" }
func (s *sink) Cancel() error { s.canceled = true; return nil }
func (s *sink) Close() error  { s.closed = true; return nil }
func (s *sink) Write(p []byte) (int, error) {
	if s.fail != nil {
		return 0, s.fail
	}
	return s.Buffer.Write(p)
}

func TestSnapshotRoundTrip(t *testing.T) {
	var m, again machine
	m.Apply(entryLog(t, &pb.Entry{Founding: &pb.Founding{Run: "run"}, View: &pb.View{Number: 1}, Metrics: steps(0, 100)}))
	again.Apply(entryLog(t, &pb.Entry{Founding: &pb.Founding{Run: "other"}, Metrics: steps(0, 300)})) // gives way
	snap, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	want := m.copy()
	m.Apply(entryLog(t, &pb.Entry{Metrics: steps(100, 101)})) // after the snapshot
	var s sink
	if err := snap.Persist(&s); err != nil || !s.closed {
		t.Fatal(err)
	}
	if err := again.Restore(io.NopCloser(&s)); err != nil {
		t.Fatal(err)
	}
	if got := again.copy(); !proto.Equal(got, want) {
		t.Errorf("restored %v, want %v", got, want)
	}
	full := &sink{fail: errors.New("no space left on device")}
	if err := snap.Persist(full); !errors.Is(err, full.fail) || !full.canceled {
		t.Errorf("a full disk gives %v", err)
	}
	for _, bad := range []io.Reader{strings.NewReader("\xff\xff not a state"), io.MultiReader(strings.NewReader("\x0a"), &brokenReader{})} {
		if err := again.Restore(io.NopCloser(bad)); err == nil {
			t.Error("a corrupt snapshot was taken")
		}
		if got := again.copy(); !proto.Equal(got, want) {
			t.Error("a corrupt snapshot changed the state")
		}
	}
}

type brokenReader struct{}

func (*brokenReader) Read([]byte) (int, error) { return 0, errors.New("input/output error") }

// FuzzApply takes what a log may hold after any accident, without a crash, and keeps the
// state's own rules.
func FuzzApply(f *testing.F) {
	for _, e := range []*pb.Entry{
		{}, {View: &pb.View{Number: 2, Members: []*pb.Member{{Node: "a", Shards: []uint32{1, 2}}}}}, {Metrics: steps(1, 3), Finish: &pb.Finish{}},
	} {
		f.Add(entryLog(f, e).Data)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m machine
		m.Apply(entryLog(t, &pb.Entry{View: &pb.View{Number: 1}, Metrics: steps(0, 1)}))
		m.Apply(&raft.Log{Index: 2, Data: b})
		s := m.copy()
		for i, x := range s.Metrics {
			if x.GetStep() != uint64(i) {
				t.Fatalf("metrics[%d] is of step %d", i, x.GetStep())
			}
		}
		if n := s.View.GetNumber(); n != 1 && n != 2 {
			t.Fatalf("view %d after view 1", n)
		}
		viewFromProto(s.View)
	})
}

// However entries are cut up and repeated, every server ends with the same state.
func TestApplyIsAFunctionOfTheLog(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var log []*raft.Log
	next, view := uint64(0), uint64(0)
	for range 500 {
		e := &pb.Entry{}
		switch rng.IntN(4) {
		case 0:
			n := next + rng.Uint64N(4)
			e.Metrics, next = steps(next, n), n
		case 1:
			view++
			e.View = &pb.View{Number: view, From: next}
		case 2:
			e.Metrics = steps(next/2, next) // stale
		case 3:
			e.Events = []*pb.Event{{Step: next}}
		}
		log = append(log, entryLog(t, e))
	}
	var a, b machine
	for i, l := range log {
		a.Apply(l)
		if b.Apply(l); i%100 != 0 {
			continue
		}
		snap, err := b.Snapshot() // b lives a new life
		if err != nil {
			t.Fatal(err)
		}
		var s sink
		if err := snap.Persist(&s); err != nil {
			t.Fatal(err)
		}
		b = machine{}
		if err := b.Restore(io.NopCloser(&s)); err != nil {
			t.Fatal(err)
		}
	}
	if !proto.Equal(a.copy(), b.copy()) {
		t.Error("two servers with one log differ")
	}
}

// A long run keeps the figures of its newest steps, fewer of the older ones, and every evaluation that it can.
func TestOldFiguresBecomeSparse(t *testing.T) {
	const all, each, evaluation = 5 * maxMetrics, maxMetrics / 8, 512
	s := &pb.RunState{}
	for from := uint64(0); from < all; from += each {
		e := &pb.Entry{Metrics: steps(from, from+each)}
		for _, m := range e.Metrics {
			m.Evaluated = m.Step%evaluation == 77
		}
		if err := apply(s, e); err != nil {
			t.Fatal(err)
		}
		if n := len(s.Metrics); n > maxMetrics || recorded(s) != from+each {
			t.Fatalf("%d figures kept, %d steps recorded; want at most %d, and %d", n, recorded(s), maxMetrics, from+each)
		}
	}
	evaluations := 0
	for i, m := range s.Metrics {
		if m.Evaluated {
			evaluations++
		}
		if i > 0 && (m.Step <= s.Metrics[i-1].Step || i > len(s.Metrics)-maxMetrics/2+1 && m.Step != s.Metrics[i-1].Step+1) {
			t.Fatalf("step %d follows step %d, %d of %d", m.Step, s.Metrics[i-1].Step, i, len(s.Metrics))
		}
	}
	if evaluations != all/evaluation {
		t.Errorf("%d evaluations kept of %d", evaluations, all/evaluation)
	}
	if figures(s, all-1) == nil || figures(s, all) != nil || figures(s, 1) != nil {
		t.Error("the newest step has no figures, or one that is left out or to come has")
	}
	if err := apply(s, &pb.Entry{Metrics: steps(all-1, all)}); !errors.Is(err, errStale) {
		t.Errorf("a step recorded twice: %v", err)
	}
}
