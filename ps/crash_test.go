package ps

import (
	"fmt"
	"testing"

	"github.com/musterml/muster/internal/id"
)

// crashPoints are where a server's process kills itself, and at which pass.
var crashPoints = []string{
	"journal.segment-created:1", "journal.segment-created:4",
	"journal.before-record:9", "journal.after-record:9", // a payload
	"journal.before-record:10", "journal.after-record:10", // its entry
	"journal.before-sync:6", "journal.after-sync:6",
	"ps.before-apply:5", "ps.after-apply:5",
	"ps.snapshot-begin:2", "ps.snapshot-record:7", "ps.snapshot-written:2", "ps.snapshot-closed:2",
	"journal.trim:1", "journal.trimmed:1", "journal.trim:3",
	"raftgroup.before-ballot:1", "raftgroup.after-ballot:1", "raftgroup.after-ballot:2",
}

// TestCrashPoints kills a server at every point of its storage. The others go on, the dead
// one comes back under its identity with what its disk has, nothing that was acknowledged
// is lost, and then all of them are killed at once and go on again.
func TestCrashPoints(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	for i, point := range crashPoints {
		for _, victim := range []id.Node{"a", "b"} { // a founds, and leads at first
			if testing.Verbose() || (i%2 == 0) == (victim == "a") {
				t.Run(fmt.Sprintf("%s at %s", victim, point), func(t *testing.T) {
					t.Parallel()
					crashAt(t, victim, point)
				})
			}
		}
	}
}

func crashAt(t *testing.T, victim id.Node, point string) {
	f := newFamily(t)
	for _, r := range f.all {
		if r.Node != victim {
			f.start(r.Node, "")
		}
	}
	f.start(victim, point)
	f.begin()
	for !f.child(victim).ended() && f.oracle.step < 400 {
		f.steps(1)
	}
	if !f.child(victim).ended() {
		t.Fatalf("%s never came to %s", victim, point)
	}
	f.steps(3)
	f.start(victim, "")
	f.steps(3)
	f.check()
	f.killAll()
	f.startAll()
	f.check()
	f.steps(3)
	f.check()
}
