// Package raftlog is where a Raft group's entries are: in memory and, when it is opened
// on a folder, on the disk as well before StoreLogs returns.
//
// Entries are small here, references of some fifty bytes and events of a few hundred, so
// all of them stay in memory, whatever is on the disk; that is read only by Open. What an
// entry refers to (a tensor) is its payload. It belongs to the owner, who sees to it that
// an entry is stored only when its payload is held, and on the disk it lies in the same journal, just before
// the entry: one sync makes both durable, and a payload is written once.
//
// # Truncation
//
// A truncation is carried out by the store that follows it. Raft deletes a conflicting
// suffix and then stores the leader's entries in its place; if that store fails (a
// payload could not be had, the disk is full) Raft goes on believing in the old last
// index, never finds those entries again and the replica is stuck. So a deletion that
// reaches the end of the log does nothing, and StoreLogs replaces whatever stands from its
// first index on. A store that fails leaves the log as if the truncation had not been
// tried, which Raft allows: entries that conflict are by definition not committed.
//
// The journal says it the same way: an entry takes the place of all from its index on. So
// a truncation needs no record of its own, and no crash can part it from the entry that it was made for.
//
// Compaction deletes a prefix and is carried out at once: on the disk by removing the
// segments that hold nothing else. Entries that come back with a segment that had to stay
// are older than a snapshot and do no harm. (A compaction would reach the end of the log
// only with TrailingLogs 0, which nobody here asks for.)
package raftlog
