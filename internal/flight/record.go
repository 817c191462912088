package flight

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/musterml/muster/internal/id"
)

// Record is a node's spans at one moment, as they are written and sent; docs/operations.md describes the JSON.
type Record struct {
	Node  id.Node `json:"node"`
	Run   string  `json:"run"`
	Time  int64   `json:"time_ns"` // of the record, Unix nanoseconds by the node's clock
	Why   string  `json:"why"`     // what it was made for
	Spans []Line  `json:"spans"`   // in the order in which they began
}

// Line is a Span as it is written. Times are nanoseconds, Begin by the clock of Record.Time.
type Line struct {
	What      string  `json:"what"`
	Track     string  `json:"track"` // "step", "sum", "ring", "push", "servers", "compute 0"
	View      uint64  `json:"view"`
	Step      uint64  `json:"step"`
	Shard     *int    `json:"shard,omitempty"`  // the first of
	Shards    int     `json:"shards,omitempty"` // so many; 0 is one
	Of        string  `json:"of,omitempty"`
	Bucket    *uint32 `json:"bucket,omitempty"`
	Bytes     int     `json:"bytes,omitempty"`
	Transport string  `json:"transport,omitempty"`
	Begin     int64   `json:"begin_ns"`
	Took      int64   `json:"took_ns"` // until Record.Time where it is open
	Open      bool    `json:"open,omitempty"`
	Data      int64   `json:"data_ns,omitempty"`
	Reduced   int64   `json:"reduced_ns,omitempty"`
	Peer      id.Node `json:"peer,omitempty"`
	Waited    int64   `json:"waited_ns,omitempty"`
	Error     string  `json:"error,omitempty"`
}

// Record makes a record of this moment.
func (r *Recorder) Record(node id.Node, run, why string) Record {
	rec := Record{Node: node, Run: run, Why: why, Spans: []Line{}}
	if r == nil {
		return rec
	}
	spans := r.Spans()
	rec.Time = r.now()
	for i := range spans {
		rec.Spans = append(rec.Spans, spans[i].line(rec.Time))
	}
	return rec
}

func (t Track) String() string {
	switch {
	case t >= Compute:
		return fmt.Sprintf("compute %d", t-Compute)
	case t == Sum:
		return "sum"
	case t == Ring:
		return "ring"
	case t == Push:
		return "push"
	case t == Servers:
		return "servers"
	}
	return "step"
}

func (s *Span) line(now int64) Line {
	l := Line{
		What: s.What, Track: s.Track.String(), View: uint64(s.View), Step: uint64(s.Step), Of: s.Of, Bytes: s.Bytes,
		Transport: s.Transport, Begin: s.Begin, Took: s.End - s.Begin,
		Data: int64(s.Data), Reduced: int64(s.Reduced), Peer: s.Peer, Waited: int64(s.Waited),
	}
	if s.End == 0 {
		l.Open, l.Took = true, now-s.Begin
		l.Peer, l.Waited = s.waits()
	}
	switch {
	case (s.Track == Ring || s.Track == Sum || s.Track == Push) && s.Bucket != NoBucket:
		l.Bucket = &s.Bucket
	case s.Track >= Compute:
		shard := int(s.Shard)
		l.Shard = &shard
		if s.Shards > 1 {
			l.Shards = s.Shards
		}
	}
	if s.Err != nil {
		l.Error = s.Err.Error()
	}
	return l
}

// waits is for whom a span waits that is under way.
func (s *Span) waits() (peer id.Node, ns int64) {
	if s.Waits == nil {
		return "", 0
	}
	peer, since, ok := s.Waits()
	if !ok || peer == "" {
		return "", 0
	}
	return peer, int64(time.Since(since))
}

// Parse reads a record back. What is not one, or cannot be, is an error in one sentence.
func Parse(b []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return Record{}, fmt.Errorf("not a flight record: %w", err)
	}
	if r.Node == "" || r.Spans == nil {
		return Record{}, fmt.Errorf("not a flight record: it names no node or holds no spans")
	}
	for i, l := range r.Spans {
		if l.Took < 0 || l.Begin < 0 || l.What == "" {
			return Record{}, fmt.Errorf("not a flight record: its span %d, %q, has no name or no time", i, l.What)
		}
	}
	return r, nil
}

// Shift moves a record onto another clock, which was at now when the record was made.
func (r *Record) Shift(now time.Time) {
	by := now.UnixNano() - r.Time
	r.Time += by
	for i := range r.Spans {
		r.Spans[i].Begin += by
	}
}
