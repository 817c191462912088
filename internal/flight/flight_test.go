package flight

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/musterml/muster/internal/id"
)

func TestKeepsTheLastSpans(t *testing.T) {
	r := New(3)
	first := r.Begin(Span{What: "a"})
	for _, what := range []string{"b", "c", "d"} {
		r.End(r.Begin(Span{What: what}), Outcome{})
	}
	r.End(first, Outcome{Err: errors.New("must not end the span in its place")})
	got := ""
	for _, s := range r.Spans() {
		got += s.What
		if s.Err != nil || s.End == 0 {
			t.Errorf("%s ended at %d with %v", s.What, s.End, s.Err)
		}
	}
	if got != "bcd" {
		t.Errorf("kept %q, not the last three", got)
	}
}

// What hangs is what people look for: it is in the record before it has ended.
func TestRecordShowsWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(8)
		late := time.Now().Add(50 * time.Millisecond)
		waits := func() (id.Node, time.Time, bool) { return "c", late, true }
		m := r.Begin(Span{What: "AllReduce", Track: Ring, Of: "SumInt32", Step: 3, Bucket: 0, Waits: waits})
		<-time.After(70 * time.Millisecond)
		l := r.Record("n", "run", "test").Spans[0]
		if !l.Open || l.Took != int64(70*time.Millisecond) || l.Bucket == nil || l.Peer != "c" || l.Waited != int64(20*time.Millisecond) {
			t.Errorf("under way for 70 ms it is %+v", l)
		}
		<-time.After(30 * time.Millisecond)
		r.End(m, Outcome{Err: errors.New("peer b is silent"), Peer: "b", Waited: 90 * time.Millisecond})
		l = r.Record("n", "run", "test").Spans[0]
		if l.Open || l.Took != int64(100*time.Millisecond) || l.Error != "peer b is silent" || l.Peer != "b" {
			t.Errorf("after its end it is %+v", l)
		}
	})
}

func TestNilRecorderRecordsNothing(t *testing.T) {
	var r *Recorder
	r.End(r.Begin(Span{What: "a"}), Outcome{})
	if got := r.Record("n", "", ""); len(got.Spans) != 0 {
		t.Errorf("%d spans", len(got.Spans))
	}
}

func TestNoAllocation(t *testing.T) {
	r := New(16)
	if n := testing.AllocsPerRun(100, func() {
		r.End(r.Begin(Span{What: "AllReduce", Track: Ring, Of: "SumInt32"}), Outcome{Peer: "b", Waited: 1})
	}); n != 0 {
		t.Errorf("%v allocations per span", n)
	}
}

// sample has one of every kind of span.
func sample() []Record {
	zero, four := uint32(0), 4
	return []Record{
		{Node: "a", Run: "r", Time: 9e6, Spans: []Line{
			{What: "forward", Track: "compute 0", View: 1, Step: 7, Shard: &four, Begin: 1e6, Took: 1e6},
			{What: "AllReduce", Track: "ring", Of: "SumInt32", View: 1, Step: 7, Bucket: &zero, Bytes: 40 << 10, Transport: "tcp",
				Begin: 2e6, Took: 4e6, Data: 1e6, Reduced: 3e6, Peer: "b", Waited: 1e6},
			{What: "update", Track: "step", View: 1, Step: 7, Begin: 6e6, Took: 1e6},
		}},
		{Node: "b", Run: "r", Time: 9e6, Spans: []Line{
			{What: "AllReduce", Track: "ring", Of: "MaxInt32", View: 1, Step: 7, Bucket: &zero, Bytes: 200,
				Begin: 3e6, Took: 6e6, Open: true, Error: "it\nbroke"},
		}},
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	if err := Table(&out, sample(), 3); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines, not a head and three:\n%s", len(lines), out.String())
	}
	for i, wants := range [][]string{
		1: {"a", "ring", "AllReduce SumInt32, bucket 0", "40 KiB", "4.000 ms", "1.000 ms for b", "tcp"},
		2: {"b", "AllReduce MaxInt32, bucket 0", "200 B", "under way", "it broke"},
		3: {"a", "step", "update"},
	} {
		for _, want := range wants {
			if !strings.Contains(lines[i], want) {
				t.Errorf("line %d has no %q: %s", i, want, lines[i])
			}
		}
	}
}

// traceOf is the events of a trace, without the names of processes and threads. It checks what the Perfetto trace processor asks
// of a trace, which drops silently what is otherwise: a name for every process and thread, times that it reads without
// rounding, spans of one thread nested or apart, flows that begin, go on and end.
func traceOf(t *testing.T, records []Record) (spans []event, threads map[string]string) {
	t.Helper()
	var out bytes.Buffer
	if err := Trace(&out, records); err != nil {
		t.Fatal(err)
	}
	var trace struct{ TraceEvents []event }
	if err := json.Unmarshal(out.Bytes(), &trace); err != nil {
		t.Fatal(err)
	}
	threads = map[string]string{}
	open, flows := map[string][]event{}, map[string]event{}
	for _, e := range trace.TraceEvents {
		at := fmt.Sprint(e.PID, "/", e.TID)
		if e.Phase == "M" {
			threads[at] = fmt.Sprint(e.Args["name"])
			continue
		}
		spans = append(spans, e)
		if threads[at] == "" || threads[fmt.Sprint(e.PID, "/0")] == "" {
			t.Errorf("%s is on a thread without a name, or in a process without", e.Name)
		}
		if e.Phase != "X" || e.Took <= 0 || e.Time*8 != math.Trunc(e.Time*8) || e.Took*8 != math.Trunc(e.Took*8) {
			t.Errorf("%s is a span at %v for %v", e.Name, e.Time, e.Took)
		}
		for n := len(open[at]); n > 0 && open[at][n-1].Time+open[at][n-1].Took <= e.Time; n-- {
			open[at] = open[at][:n-1]
		}
		if n := len(open[at]); n > 0 && e.Time+e.Took > open[at][n-1].Time+open[at][n-1].Took {
			t.Errorf("%s begins within %s and ends after it", e.Name, open[at][n-1].Name)
		}
		open[at] = append(open[at], e)
		if e.Flow != "" {
			before, known := flows[e.Flow]
			if known != e.FlowIn || known && (!before.FlowOut || before.Time > e.Time) {
				t.Errorf("the flow into %s comes from %+v", e.Name, before)
			}
			flows[e.Flow] = e
		}
	}
	for _, e := range flows {
		if e.FlowOut {
			t.Errorf("the flow out of %s goes nowhere", e.Name)
		}
	}
	return spans, threads
}

func TestTrace(t *testing.T) {
	seen := map[string]event{}
	spans, _ := traceOf(t, sample())
	for _, e := range spans {
		seen[fmt.Sprint(e.PID, " ", e.Name)] = e
	}
	whole := seen["1 AllReduce SumInt32, bucket 0"]
	for name, want := range map[string][2]float64{"wait": {1e3, 1e3}, "reduce-scatter": {2e3, 2e3}, "all-gather": {4e3, 1e3}} {
		got := seen["1 "+name]
		if got.Time != want[0] || got.Took != want[1] || got.TID != whole.TID {
			t.Errorf("%s is at %v for %v, want %v", name, got.Time, got.Took, want)
		}
	}
	if whole.Args["waited for"] != "b" || seen["2 AllReduce MaxInt32, bucket 0"].Args["under way"] != true {
		t.Errorf("arguments are missing: %v", whole.Args)
	}
	if f, u := seen["1 forward, shard 4"], seen["1 update"]; f.Time != 0 || f.TID == u.TID {
		t.Errorf("forward is %+v, update %+v", f, u)
	}
}

// What overlaps on one track lies on threads of its own, what is within another span below it, and a bucket is followed.
func TestTraceOfWhatOverlaps(t *testing.T) {
	zero, one := uint32(0), uint32(1)
	spans, threads := traceOf(t, []Record{{Node: "a", Run: "r", Time: 9e6, Spans: []Line{
		{What: "step", Track: "step", Step: 7, Begin: 1000001, Took: 8e6 - 1},
		{What: "AllReduce", Track: "ring", Step: 7, Bucket: &zero, Begin: 1e6, Took: 999999, Data: 3, Reduced: 999998},
		{What: "update", Track: "push", Step: 7, Bucket: &zero, Begin: 2e6, Took: 3e6},
		{What: "update", Track: "push", Step: 7, Bucket: &one, Begin: 3e6, Took: 1e6},
		{What: "update", Track: "push", Step: 8, Bucket: &zero, Begin: 5e6, Took: 1e6},
		{What: "update", Track: "step", Step: 7, Begin: 4e6, Took: 5e6 - 1},
		{What: "forward", Track: "compute 10", Step: 7, Begin: 8e6, Took: 1e6},
		{What: "forward", Track: "compute 2", Step: 7, Begin: 8e6, Took: 1e6},
	}}})
	got := ""
	for _, e := range spans {
		got += fmt.Sprintf("%s: %s %v %v\n", threads[fmt.Sprint(e.PID, "/", e.TID)], e.Name, e.FlowIn, e.FlowOut)
	}
	const want = `ring: AllReduce, bucket 0 false true
ring: reduce-scatter false false
step: step 7 false false
push: update, bucket 0 true false
push (2): update, bucket 1 false false
step: update false false
push: update, bucket 0 false false
compute 10: forward false false
compute 2: forward false false
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	shown := slices.Sorted(maps.Keys(threads))
	for i, at := range shown {
		shown[i] = threads[at]
	}
	if want := []string{"a", "step", "compute 2", "compute 10", "ring", "push", "push (2)"}; !slices.Equal(shown, want) {
		t.Errorf("threads are shown as %q, want %q", shown, want)
	}
}

func TestMerge(t *testing.T) {
	old := sample()
	newer := sample()[1]
	newer.Time = 20e6
	newer.Spans[0].Open, newer.Spans[0].Took = false, 7e6
	newer.Spans = append(newer.Spans, Line{What: "update", Track: "step", Begin: 15e6})
	got := Merge([]Record{newer, old[0], old[1]})
	if len(got) != 2 || got[1].Node != "b" || len(got[1].Spans) != 2 || got[1].Spans[0].Open || got[1].Time != 20e6 {
		t.Errorf("merged into %+v", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, r := range sample() {
		b, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"node":"a","spans":[{"what":"x","took_ns":-1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is not one line", err)
			}
			return
		}
		records := Merge([]Record{r, r})
		if err := errors.Join(Table(&bytes.Buffer{}, records, 10), Trace(&bytes.Buffer{}, records)); err != nil {
			t.Errorf("what was read cannot be shown: %v", err)
		}
	})
}
