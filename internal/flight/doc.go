// Package flight is a node's flight recorder: what its trainer and its ring did last, kept in memory all the time, to be
// looked at when something has gone wrong or has been slow.
//
// A Recorder holds the last few thousand spans: an operation on the ring, one logical shard's forward or backward
// pass, an update, a commit. Beginning and ending a span costs a lock and a copy of some two hundred bytes, and
// allocates nothing, so it is never switched off. A span that is under way is in the record too: that is the one that hangs.
//
// A Record is what a node gives away: its spans at one moment, as JSON. Table prints records for people, Trace makes of
// them a trace that ui.perfetto.dev and chrome://tracing open.
//
// It leaves out what internal/wait tells: what a node waits for now, and for how long that usually takes.
package flight
