package flight

import (
	"encoding/json"
	"io"
	"math"
)

// Trace writes records as a trace in Chrome's Trace Event Format (JSON; "Trace Event Format", Google, 2016), which
// ui.perfetto.dev and chrome://tracing open: a process for each node, a thread for each of its tracks. An operation on
// the ring has its phases below it: wait (until data comes), reduce-scatter, all-gather.
func Trace(out io.Writer, records []Record) error {
	zero := int64(math.MaxInt64)
	for _, r := range records {
		for _, l := range r.Spans {
			zero = min(zero, l.Begin)
		}
	}
	t := tracer{zero: zero, events: []event{}}
	for i, r := range records {
		t.add(i+1, &r)
	}
	return json.NewEncoder(out).Encode(map[string]any{"traceEvents": t.events, "displayTimeUnit": "ms"})
}

// event is one line of the format. Times are microseconds.
type event struct {
	Name  string         `json:"name"`
	Phase string         `json:"ph"` // X: a span; M: a name
	Cat   string         `json:"cat,omitempty"`
	Time  float64        `json:"ts"`
	Took  float64        `json:"dur,omitempty"`
	PID   int            `json:"pid"`
	TID   int            `json:"tid"`
	Args  map[string]any `json:"args,omitempty"`
}

type tracer struct {
	zero   int64
	events []event
}

func (t *tracer) add(pid int, r *Record) {
	t.name("process_name", pid, 0, string(r.Node))
	threads := map[string]int{}
	for i := range r.Spans {
		l := &r.Spans[i]
		tid := threads[l.Track]
		if tid == 0 {
			tid = len(threads) + 1
			threads[l.Track] = tid
			t.name("thread_name", pid, tid, l.Track)
		}
		t.span(pid, tid, l)
	}
}

func (t *tracer) name(what string, pid, tid int, name string) {
	t.events = append(t.events, event{Name: what, Phase: "M", PID: pid, TID: tid, Args: map[string]any{"name": name}})
}

func (t *tracer) span(pid, tid int, l *Line) {
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
	slice := func(name string, from, to int64, args map[string]any) {
		if to > from {
			t.events = append(t.events, event{Name: name, Phase: "X", Cat: l.Track, PID: pid, TID: tid, Args: args,
				Time: float64(from-t.zero) / 1e3, Took: float64(to-from) / 1e3})
		}
	}
	begin, end := l.Begin, l.Begin+l.Took
	slice(l.name(), begin, end, args)
	if l.Track != Ring.String() {
		return
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
}
