package raftgroup

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// What a replica lacks that can be reached is needed; what one lacks that is gone is not.
func TestNeeded(t *testing.T) {
	all := founded(t, nil)
	caughtUp(t, all)
	lead := all[0]
	for range 5 {
		apply(t, lead, "x")
	}
	eventually(t, "all have all", func() bool {
		after, known := lead.Needed()
		return known && after == lead.Raft().LastIndex()
	})
	if _, known := all[1].Needed(); known {
		t.Error("a follower knows what others need")
	}
	all[1].kill(t)
	eventually(t, "the one that is left has all", func() bool {
		apply(t, lead, "y")
		after, known := lead.Needed()
		return known && after+1 >= lead.Raft().LastIndex()
	})
}

func TestPositions(t *testing.T) {
	p := &positions{}
	check := func(what string, want uint64, within time.Duration) {
		t.Helper()
		if got, known := p.last(within); got != want || known != (want > 0) {
			t.Errorf("%s: %d, %t, want %d", what, got, known, want)
		}
	}
	check("nobody", 0, time.Hour)
	p.note("a", 10, false)
	p.note("b", 7, true)
	check("b is sent the state", 7, time.Hour)
	check("a has been silent, b is still sent the state", 7, 0)
	p.note("b", 12, false)
	check("b has gone past a", 10, time.Hour)
	p.forget(raft.ServerID("a"))
	check("a is gone", 12, time.Hour)
	check("all are silent", 0, 0)
}
