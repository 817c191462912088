package flight

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
)

// Trace writes records as a trace in Chrome's Trace Event Format (JSON; "Trace Event Format", Google, 2016), which
// ui.perfetto.dev and chrome://tracing open: a process for each node, a thread for each of its tracks, and more of them for what
// overlaps. An operation on the ring has its phases below it: wait (until data comes), reduce-scatter, all-gather. Arrows (flows) lead
// along what is done to a bucket of a step: its exponents, its sum, its push, its new weights.
func Trace(out io.Writer, records []Record) error {
	t := tracer{zero: math.MaxInt64, events: []event{}}
	for _, r := range records {
		for _, l := range r.Spans {
			t.zero = min(t.zero, l.Begin)
		}
	}
	for i, r := range records {
		t.add(i+1, &r)
	}
	return json.NewEncoder(out).Encode(map[string]any{"traceEvents": t.events, "displayTimeUnit": "ms"})
}

// event is one line of the format. Times are microseconds.
type event struct {
	Name    string         `json:"name"`
	Phase   string         `json:"ph"` // X: a span; M: a name
	Cat     string         `json:"cat,omitempty"`
	Time    float64        `json:"ts"`
	Took    float64        `json:"dur,omitempty"`
	PID     int            `json:"pid"`
	TID     int            `json:"tid"`
	Flow    string         `json:"bind_id,omitempty"`
	FlowIn  bool           `json:"flow_in,omitempty"`
	FlowOut bool           `json:"flow_out,omitempty"`
	Args    map[string]any `json:"args,omitempty"`
}

type tracer struct {
	zero   int64
	flows  int
	events []event
}

// thread is a line of a trace: a track, or what of it overlaps. Viewers drop a span that begins within another one and ends after it.
type thread struct {
	track string
	extra int // so many of the track are above it
	tid   int
	ends  []int64 // of the spans that are open where the next begins, each within the one before
}

// takes draws a span there if it fits; none drawn before began after it. Only the step loop has spans within others.
func (th *thread) takes(l *Line) bool {
	end := l.Begin + l.Took
	for len(th.ends) > 0 && th.ends[len(th.ends)-1] <= l.Begin {
		th.ends = th.ends[:len(th.ends)-1]
	}
	if n := len(th.ends); n > 0 && (l.Track != Step.String() || end > th.ends[n-1]) {
		return false
	}
	th.ends = append(th.ends, end)
	return true
}

// threads finds a thread for each span, which are in the order in which they began, and numbers them as they are to be shown.
func threads(pid int, spans []Line) (of []*thread, all []*thread) {
	for i := range spans {
		l, extra := &spans[i], 0
		at := slices.IndexFunc(all, func(th *thread) bool {
			if th.track != l.Track {
				return false
			}
			extra++
			return th.takes(l)
		})
		if at < 0 {
			at = len(all)
			all = append(all, &thread{track: l.Track, extra: extra})
			all[at].takes(l)
		}
		of = append(of, all[at])
	}
	slices.SortFunc(all, func(a, b *thread) int {
		return cmp.Or(cmp.Compare(a.order(), b.order()), cmp.Compare(len(a.track), len(b.track)), cmp.Compare(a.track, b.track), cmp.Compare(a.extra, b.extra))
	})
	for i, th := range all {
		th.tid = pid<<16 + i + 1 // viewers sort by it, and take one that is the process' number for its main thread
	}
	return of, all
}

func (th *thread) order() int {
	tracks := []string{Step.String(), Compute.String(), Sum.String(), Ring.String(), Push.String(), Servers.String()}
	if at := slices.Index(tracks, th.track); at >= 0 {
		return at
	}
	return 1 // computing on other processors
}

func (t *tracer) add(pid int, r *Record) {
	t.name("process_name", pid, 0, string(r.Node))
	spans := slices.Clone(r.Spans)
	slices.SortStableFunc(spans, func(a, b Line) int { return cmp.Compare(a.Begin, b.Begin) })
	of, all := threads(pid, spans)
	for _, th := range all {
		name := th.track
		if th.extra > 0 {
			name = fmt.Sprintf("%s (%d)", th.track, th.extra+1)
		}
		t.name("thread_name", pid, th.tid, name)
	}
	var flows flows
	for i := range spans {
		if n := len(t.events); t.span(pid, of[i].tid, &spans[i]) {
			flows.add(&spans[i], n)
		}
	}
	t.connect(&flows)
}

// flows are the events of each bucket of each step, in the order in which they began.
type flows struct {
	keys   []flowKey
	events map[flowKey][]int
}

type flowKey struct {
	view, step uint64
	bucket     uint32
}

func (f *flows) add(l *Line, event int) {
	if l.Bucket == nil {
		return
	}
	key := flowKey{l.View, l.Step, *l.Bucket}
	if f.events == nil {
		f.events = map[flowKey][]int{}
	}
	if f.events[key] == nil {
		f.keys = append(f.keys, key)
	}
	f.events[key] = append(f.events[key], event)
}

func (t *tracer) connect(f *flows) {
	for _, key := range f.keys {
		of := f.events[key]
		if len(of) == 1 {
			continue
		}
		t.flows++
		for i, at := range of {
			e := &t.events[at]
			e.Flow, e.FlowIn, e.FlowOut = fmt.Sprintf("0x%x", t.flows), i > 0, i < len(of)-1
		}
	}
}

func (t *tracer) name(what string, pid, tid int, name string) {
	t.events = append(t.events, event{Name: what, Phase: "M", PID: pid, TID: tid, Args: map[string]any{"name": name}})
}

// micros are whole eighths of a microsecond: what is exact in binary stays so in a viewer, which would drop a span that
// ends a nanosecond after the one around it.
func (t *tracer) micros(ns int64) float64 { return float64((ns-t.zero)/125) / 8 }

// span adds what a line says, and its phases; false if it has taken no time that a trace can show.
func (t *tracer) span(pid, tid int, l *Line) bool {
	args := map[string]any{"view": l.View, "step": l.Step}
	for key, value := range map[string]any{"bytes": l.Bytes, "transport": l.Transport, "waited for": string(l.Peer), "error": l.Error} {
		if value != 0 && value != "" {
			args[key] = value
		}
	}
	if l.Peer != "" {
		args["waited"] = millis(l.Waited)
	}
	if l.Open {
		args["under way"] = true
	}
	slice := func(name string, from, to int64, args map[string]any) bool {
		begin, end := t.micros(from), t.micros(to)
		if end <= begin {
			return false
		}
		t.events = append(t.events, event{Name: name, Phase: "X", Cat: l.Track, PID: pid, TID: tid, Args: args, Time: begin, Took: end - begin})
		return true
	}
	begin, end := l.Begin, l.Begin+l.Took
	if !slice(l.name(), begin, end, args) {
		return false
	}
	if l.Track != Ring.String() {
		return true
	}
	// The phases lie within the operation whatever a record says, or a viewer would draw them anywhere.
	data, reduced := end, end
	if l.Data > 0 {
		data = min(begin+l.Data, end)
	}
	slice("wait", begin, data, nil)
	if l.Reduced > 0 {
		reduced = min(max(begin+l.Reduced, data), end)
		slice("reduce-scatter", data, reduced, nil)
		slice("all-gather", reduced, end, nil)
	}
	return true
}
